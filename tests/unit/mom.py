"""Commands, run as a person runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NO_TORCH = """
import sys
import time
import app.cli.main
sys.argv = ["mom", "read", *sys.argv[1:]]
try:
    app.cli.main.main()
finally:
    assert not {"torch", "transformers", "gradio"} & set(sys.modules), "mom read drags in torch"
"""


def mom_read(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", NO_TORCH, *arguments, "--no-cache"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
