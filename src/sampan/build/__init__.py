"""Dockerfiles as data: read, checked, and ordered into what has to be built. Nothing here touches a disk or starts anything."""
