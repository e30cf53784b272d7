"""Very many files: folders, object stores and clusters; killed anywhere, it goes on where it was."""
