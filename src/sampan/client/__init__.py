"""The engine of another process, over Docker's Engine API: the same objects as `sampan.Engine` has. `sampan.connect` opens it."""
