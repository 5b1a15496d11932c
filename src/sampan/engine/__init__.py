"""The use cases, one file each: the only room that knows more than one neighbour."""
