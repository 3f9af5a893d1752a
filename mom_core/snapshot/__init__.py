"""Snapshots: contexts saved on disk, as safetensors files that a manifest lists."""
