"""Prepared documents on disk, so that nothing is read twice."""
