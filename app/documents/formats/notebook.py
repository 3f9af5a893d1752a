"""Jupyter notebooks: one section a cell, in order, with what it printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from app.documents.document import Section
from app.documents.encoding import clean
from app.documents.parts import Begun, Done, Job, Opened, Part, Refused

# What a terminal takes for a colour.
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def read_notebook(job: Job) -> Iterator[Part]:
    """Yields the cells; pictures and other outputs that are no text are left out."""
    try:
        notebook = json.loads(job.path.read_bytes())
        cells = notebook["cells"]
        language = str(notebook.get("metadata", {}).get("kernelspec", {}).get("language", ""))
        texts = [(str(cell["cell_type"]), _text(cell)) for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        yield Refused(
            f"{job.name} cannot be read as a notebook: it is damaged or of a form of before 2015 "
            f"({type(fault).__name__}). Open it in Jupyter and save it again."
        )
        return
    yield Opened("notebook", len(texts))
    for unit in job.units(len(texts)):
        kind, text = texts[unit]
        label = f"cell {unit + 1}"
        yield Begun(unit, label)
        yield Section(label, text, language=language if kind == "code" else "")
        yield Done(unit)


def _text(cell: dict[str, Any]) -> str:
    pieces = [_joined(cell["source"])]
    for output in cell.get("outputs", []):
        if "text" in output:
            said = _joined(output["text"])
        elif output.get("output_type") == "error":
            said = f"{output.get('ename', '')}: {output.get('evalue', '')}"
        else:
            said = _joined(output.get("data", {}).get("text/plain", ""))
        said = _as_shown(said)
        if said.strip():
            pieces.append(f"Output:\n{said.rstrip()}")
    return clean("\n\n".join(pieces)).strip()


def _as_shown(said: str) -> str:
    """Without colours, and of a line that was written over and over only its last state."""
    lines = _COLOUR.sub("", said).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def _joined(lines: Any) -> str:
    """A string, which notebooks may keep as a list of lines."""
    return "".join(map(str, lines)) if isinstance(lines, list) else str(lines)
