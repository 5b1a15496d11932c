# `python -I -S .../sampan/shim/__main__.py`: as a script it is compiled at every start, so the rest is elsewhere.
import sys

sys.path.insert(0, __file__.rpartition("/sampan/")[0])
if sys.argv[1:2] == ["zygote"]:
    from sampan.shim.zygote import main
else:
    from sampan.shim.boot import main
main()
