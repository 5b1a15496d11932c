"""The parent side of one container: from a record to a plan, from a plan to a process, and a handle on it."""
