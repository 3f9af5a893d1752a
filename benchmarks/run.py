"""`python -m benchmarks.run`: one suite on this machine; a table, and a line of JSON.

`--save` adds the line to `benchmarks/results/<suite>.jsonl`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import record


def main() -> None:
    """Runs the suite that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--suite", choices=["peers", "paper"], default="peers")
    parser.add_argument("--tokens", type=int, default=8000, help="of the prompt")
    parser.add_argument("--new-tokens", type=int, default=48, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--llama-python", type=Path, help="an interpreter that has llama-cpp-python; else this one"
    )
    parser.add_argument("--save", action="store_true", help="add the result to results/")
    arguments = parser.parse_args()
    if arguments.suite == "paper":
        from benchmarks.paper.suite import lines, run_paper

        result = run_paper(
            tokens=arguments.tokens, new_tokens=arguments.new_tokens, rounds=arguments.rounds
        )
    else:
        from benchmarks.peers.suite import lines, run_peers

        result = run_peers(
            tokens=arguments.tokens,
            new_tokens=arguments.new_tokens,
            rounds=arguments.rounds,
            llama_python=arguments.llama_python,
        )
    print("\n".join(lines(result)))
    if arguments.save:
        print(f"added to {record.append(arguments.suite, result)}")
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
