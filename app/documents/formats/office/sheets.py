"""Spreadsheets (.xlsx, .xlsb, .xls, .ods): one section a sheet, one line a row."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from app.documents.document import Section
from app.documents.encoding import clean
from app.documents.formats.office.packages import package
from app.documents.formats.tables import table_row
from app.documents.parts import Begun, Done, Job, More, Opened, Part
from mom_core.errors import DocumentError

_ROWS_AT_ONCE = 1_000


def read_sheets(job: Job) -> Iterator[Part]:
    """Yields the sheets in their order."""
    import python_calamine

    with job.path.open("rb") as file:
        is_package = file.read(2) == b"PK"
    with package(job) if is_package else nullcontext():
        try:
            book = python_calamine.load_workbook(str(job.path))
        except Exception as fault:
            # Its errors share no base but Exception.
            raise DocumentError(
                f"{job.name} cannot be read as a spreadsheet: it is damaged or locked "
                f"({str(fault)[:120]}). Save it again as .xlsx or .csv."
            ) from fault
        names = book.sheet_names
        yield Opened("sheets", len(names))
        for unit in job.units(len(names)):
            label = " ".join(names[unit].split()) or f"sheet {unit + 1}"
            yield Begun(unit, label)
            yield Section(label, "")
            lines: list[str] = []
            for row in book.get_sheet_by_index(unit).iter_rows():
                if line := table_row(map(_cell, row)):
                    lines.append(line)
                if len(lines) >= _ROWS_AT_ONCE:
                    yield More(clean("\n".join(lines) + "\n"))
                    lines = []
            yield More(clean("\n".join(lines)))
            yield Done(unit)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
