"""Models: finding and loading them, what their layers are, and the seam to transformers."""
