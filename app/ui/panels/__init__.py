"""Panels of the page: each makes its part of the layout; the scripts beside them fill it."""
