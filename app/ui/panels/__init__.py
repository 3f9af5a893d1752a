"""Panels of the page: each builds its part of the layout, and a script fills it."""
