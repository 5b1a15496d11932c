"""`python -m bench [start|api|bridge|names|throughput|many|import|commit|build|archives|probe|oci|pull]...`: all of them without a name."""

from __future__ import annotations

import sys

from bench import api, archives, bridge, build, commit, import_, many, names, oci, probe, pull, start, throughput

ALL = {
    "start": start.main,
    "api": api.main,
    "bridge": bridge.main,
    "names": names.main,
    "throughput": throughput.main,
    "many": many.main,
    "import": import_.main,
    "commit": commit.main,
    "build": build.main,
    "archives": archives.main,
    "probe": probe.main,
    "oci": oci.main,
    "pull": pull.main,
}

for name in sys.argv[1:] or ALL:
    ALL[name]()
