"""Models: finding and loading them, what their layers cost, and the seam to transformers."""
