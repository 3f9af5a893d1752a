"""Programs that measure, each beside a baseline in the same run, and their results.

    python -m benchmarks.run --suite peers    this machine: plain transformers, llama.cpp and ours
    python -m benchmarks.run --suite paper    the paper's comparison, run and simulated
    python -m benchmarks.gpu                  everything that needs a GPU, in parts
    python -m benchmarks.report               the tables in README and docs, from results/

A result is one line in `results/`, with the machine, the versions, the commit and every sample;
lines are only ever added.
"""
