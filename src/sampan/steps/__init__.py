"""What is done to the kernel, as objects that describe themselves before they run and are recorded as they do."""
