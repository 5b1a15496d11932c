"""Code that runs in a container's own processes: the monitor, and the children that become init or an exec.

It is started, not called: a parent may import `shim.protocol` only. It imports `kernel` and `steps`.
"""
