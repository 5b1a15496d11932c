"""`sampan-oci run` of /bin/true from a bundle, as a whole command and cold, beside `runc run` of the same bundle."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import in_turns, seconds, table, verdict

from support.rootfs import make_rootfs
from support.tools import which


def main(rounds: int = 25) -> None:
    work = Path(tempfile.mkdtemp(prefix="sampan-bench.", dir="/var/tmp"))
    try:
        bundle = work / "bundle"
        make_rootfs(bundle / "rootfs")
        subprocess.run([which("runc"), "spec", "-b", str(bundle)], check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"].update(terminal=False, args=["/bin/true"])
        (bundle / "config.json").write_text(json.dumps(config))
        programs = {"sampan-oci": str(Path(sys.executable).parent / "sampan-oci"), "runc": which("runc")}
        numbers = iter(range(1 << 20))

        def start(program: str, name: str) -> float:
            command = [program, "--root", str(work / name), "run", "-b", str(bundle), f"bench-{next(numbers)}"]
            return seconds(lambda: subprocess.run(command, stdin=subprocess.DEVNULL, check=True))

        times = in_turns({n: (lambda n=n, p=p: start(p, n)) for n, p in programs.items()}, rounds)  # type: ignore[misc]
        table(f"run of /bin/true from a bundle, {rounds} rounds in turns", times)
        ratio = statistics.median(times["sampan-oci"]) / statistics.median(times["runc"])
        verdict("sampan-oci by runc", ratio, 1.5)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
