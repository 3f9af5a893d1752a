"""One reader per kind of file; each yields parts of text."""
