"""Measurements against other engines on the same machine: ratios in one run, never absolute limits."""
