"""Side by side with what people would use instead, each in a process of its own.

`protocol.py` is what every peer can do and the one way it is measured; `plain.py`, `llama.py` and
`ours.py` are the peers; `suite.py` runs them in turns.
"""
