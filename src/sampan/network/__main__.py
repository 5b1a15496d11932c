# A keeper: `python -I -S .../sampan/network/__main__.py`. Compiled at every start, so the rest is in keeper.py.

from __future__ import annotations

import sys

sys.path.insert(0, __file__.rpartition("/sampan/")[0])
from sampan.network.keeper import main

main(sys.argv[1:])
