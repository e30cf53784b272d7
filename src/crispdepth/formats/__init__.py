"""One reader and one writer per file format: bytes to arrays and back, no units."""
