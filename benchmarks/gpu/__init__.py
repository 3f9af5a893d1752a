"""Everything that needs a GPU, in one command: `python -m benchmarks.gpu`.

For a machine with one NVIDIA card, PyTorch and transformers, and nothing else: no network, no
page. It runs in parts, the most important first, and writes each result as it comes, so that a
cut-off loses little.

`session.py` guards time and writes results; `parts.py` is what is measured, in order;
`exactness.py`, `overlap.py` and `longest.py` are the measurements that need more than one run.
"""
