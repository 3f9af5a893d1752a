"""Models: finding and loading them (`load`, `builtin`, `dtype_probe`), and the one seam to
transformers' internals (`hf_seam`)."""
