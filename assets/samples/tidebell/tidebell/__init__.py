"""Rings a bell before high water."""

__version__ = "0.4.2"
