"""Plain, slow numpy: what the fast code must equal."""
