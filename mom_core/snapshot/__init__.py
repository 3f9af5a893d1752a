"""Contexts on disk: safetensors written piece by piece under a manifest."""
