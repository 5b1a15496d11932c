"""The language of Go's text/template with the functions that Docker adds: a text and a value in, a text out. No I/O."""
