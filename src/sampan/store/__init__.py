"""Bytes on disk: content, layers, snapshots, names, records, and the locks on them."""
