"""Command line of tidebell."""

import argparse
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from tidebell.table import TableError, read_table
from tidebell.twelfths import first_time_above

SILL_M = 0.9
KEEL_CLEARANCE_M = 0.3
WARNING = timedelta(minutes=25)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tidebell")
    parser.add_argument("table", type=Path)
    parser.add_argument("--draught", type=float, required=True, help="of the boat, in metres")
    arguments = parser.parse_args()
    try:
        tides = read_table(arguments.table)
    except TableError as fault:
        print(f"tidebell: {fault}", file=sys.stderr)
        return 2
    needed_m = SILL_M + arguments.draught + KEEL_CLEARANCE_M
    for before, after in zip(tides, tides[1:]):
        afloat = first_time_above(before, after, needed_m)
        if afloat is None or afloat - WARNING < datetime.now():
            continue
        time.sleep((afloat - WARNING - datetime.now()).total_seconds())
        print("\a", f"The slipway floats you from {afloat:%H:%M} on.")
        return 0
    print("tidebell: no tide is high enough", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
