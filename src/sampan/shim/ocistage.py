"""`python -I -S .../sampan/shim/ocistage.py`: as a script it is compiled at every start, so the rest is in ociboot.py."""

from __future__ import annotations

import sys

sys.path.insert(0, __file__.rpartition("/sampan/")[0])
from sampan import bundle

bundle.use()
from sampan.shim.ociboot import main  # noqa: E402

main()
