"""Registries: where images come from and go to, over HTTP. Nothing here knows of the store."""
