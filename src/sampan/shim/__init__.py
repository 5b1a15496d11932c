"""Code that runs in a container's own processes. It is started, not called: a parent imports `protocol` only."""
