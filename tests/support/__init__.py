"""What the tests share: isolated roots, the real command, leak checks, and the rules of the architecture."""
