# sampan: `make` or `make help` lists what there is. The set-up itself is in scripts/venv and scripts/packages.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# A shell that has it set would make every start compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
bin := .venv/bin
pytest := $(bin)/python -m pytest
# Several at a time, each with a store of its own: more than there are processors, because half of the time of a test is
# waiting, for disks and for what ends by itself (less than that in the long ones). The tests of one file stay together, for
# what they share, and the files that take longest begin first (tests/support/durations.py).
together := --dist loadfile --no-loadscope-reorder
# What the tests on the cgroup v2 machine may take, in seconds: it is an emulated one. It is given the modules that have
# such tests only: to read the others takes it minutes.
vm_seconds := 2700

.PHONY: help run test test-long beside-docker conformance check check-format check-lint check-types check-unit-1 check-unit-2 bench soak clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

run: ## make .venv, install the package, run a container from the embedded default image (root)
	@scripts/venv
	@if [ "$$(id -u)" != 0 ]; then echo "make run: a container needs root (namespaces, mounts, cgroups): run it as root, or: sudo make run" >&2; exit 1; fi
	$(bin)/sampan run --rm base echo hello

test: ## install what the tests need (root), run all but the long ones
	@scripts/packages test
	@scripts/venv test
	$(pytest) -n 4 $(together) --hypothesis-profile=some -m "not long and not cgroup2 and not docker28 and not peer"

test-long: ## the long ones, properties with all their examples, and the core tests on a machine whose only cgroup hierarchy is v2
	@scripts/packages long
	@scripts/venv test
	$(pytest) -n 3 $(together) -m "(long or hypothesis) and not alone and not cgroup2 and not docker28 and not peer"
	$(pytest) -m "long and alone"
	SAMPAN_TEST_DIR=/run/sampan-tests SAMPAN_TEST_PATIENCE=10 \
	  scripts/vm-cgroup2 -m 4G -t $(vm_seconds) -- $(pytest) -n 2 $(together) -p no:cacheprovider --color=no -m "(core or cgroup2) and not peer and not zygote" \
	    $$(grep -rlE --include='test_*.py' 'mark\.(core|cgroup2)' tests/kernel tests/contract tests/integration)

conformance: ## the OCI runtime specification, demand by demand, against runc and sampan-oci in one run; writes docs/conformance.md (root)
	@scripts/packages conformance
	@scripts/venv test
	$(pytest) -q tests/conformance --table docs/conformance.md

beside-docker: ## the same lines typed to this and to a docker command line 28.2 on the path, with a dockerd
	@scripts/packages test
	@scripts/venv test
	$(pytest) -m docker28

check: ## format, lint, types, architecture, the quick unit tests: seconds
	@scripts/venv test
	@$(MAKE) --no-print-directory -j4 -O check-format check-lint check-types check-unit-1 check-unit-2

check-format:
	@$(bin)/ruff format --check --quiet . || { $(bin)/ruff format --check .; exit 1; }

check-lint:
	@$(bin)/ruff check --quiet .

check-types:
	@$(bin)/mypy --no-error-summary

# In two halves, for two processors: one process would take longer than everything else together.
check-unit-1: half = tests/unit/test_[a-c]*.py
check-unit-2: half = tests/unit/test_[!a-c]*.py
check-unit-1 check-unit-2:
	@$(pytest) -q --no-header --hypothesis-profile=check -p no:cacheprovider -p no:xdist -m "not root and not long and not docker28 and not thorough" $(half)

bench: ## start, API, networks, many, import and commit against other engines on this machine, by ratio in one run (root; BENCH=start for one of them)
	@scripts/packages bench
	@scripts/venv test
	@PYTHONPATH=tests $(bin)/python -m bench $(BENCH)

soak: ## thousands of starts and stops while processes of the engine are killed, then a look at what is left (root; STARTS=2000, SECONDS=, SEED=, WORKERS=4)
	@scripts/packages test
	@scripts/venv test
	@cd tests && ../$(bin)/python -m support.soak $(if $(STARTS),--starts $(STARTS)) $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(WORKERS),--workers $(WORKERS))

clean: ## what was built and cached here; containers and images stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
