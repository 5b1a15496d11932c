"""What images, references and configurations are: pure data, no I/O."""
