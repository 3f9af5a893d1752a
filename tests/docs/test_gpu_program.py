"""`python -m benchmarks.gpu` can be tried where there is no GPU: every part, small, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.__main__ import is_bad, main
from benchmarks.gpu.parts import PARTS
from benchmarks.record import ROOT

# What every line says of the run it comes from.
ABOUT = {"date", "commit", "machine", "versions", "device", "part", "name", "outcome"}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("part", PARTS)
def test_dry_run(part: int, tmp_path: Path) -> None:
    assert main(["--dry-run", "--part", str(part), "--out", str(tmp_path)]) == 0
    written = lines(tmp_path)
    assert all(set(line) >= ABOUT for line in written)
    unexpected = [line for line in written if line["outcome"] != "measured" or is_bad(line)]
    assert not unexpected


def test_all_parts_stay_under_25_minutes() -> None:
    assert all(part.limit_seconds < 9 * 60 for part in PARTS.values())
    # Starting a part takes a while too.
    assert sum(part.limit_seconds + 15 for part in PARTS.values()) <= 25 * 60


def test_needs_only_torch_and_transformers(tmp_path: Path) -> None:
    """The machine it is for has neither the page's packages nor ours for files and folders."""
    absent = ["gradio", "platformdirs", "gguf", "pypdf", "pypdfium2", "pathspec", "uvicorn"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import benchmarks.gpu.__main__"
        f" as g; sys.exit(g.main(['--dry-run', '--part', '4', '--out', {str(tmp_path)!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert lines(tmp_path)


def test_parts_run_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.__main__.run_apart", lambda number, *_, **__: number % 2)
    assert main(["--dry-run", "--part", "2", "--part", "4", "--out", str(tmp_path)]) == 0
    assert main(["--dry-run", "--out", str(tmp_path)]) == 1


def test_unknown_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--part", "9"])
    assert "there is no part 9; the parts are 1, 2, 3, 4, 5" in capsys.readouterr().err


def test_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="No CUDA device was found"):
        main(["--part", "1"])
