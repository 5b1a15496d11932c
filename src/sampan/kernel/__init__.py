"""The Linux kernel and nothing else: no policy, no container words."""
