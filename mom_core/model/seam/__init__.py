"""The one place that touches transformers' internals."""
