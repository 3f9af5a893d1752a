"""From token ids to new tokens: prefill, decode, sampling, text."""
