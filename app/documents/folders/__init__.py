"""Folders, archives and repositories: which files are read, and why the rest is not."""
