# `python -I -S .../sampan/shim/__main__.py`. A script is compiled at every start, so it is this short; the rest is boot.py.
import sys

sys.path.insert(0, __file__.rpartition("/sampan/")[0])

from sampan.shim.boot import main

main()
