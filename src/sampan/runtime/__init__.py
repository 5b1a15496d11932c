"""The parent side of one container: record -> OCI config -> plan -> launch, and a handle on what runs."""
