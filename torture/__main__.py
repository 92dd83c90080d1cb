"""Run every torture script beside this file and print one table: python torture [--short] [NAME ...]"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from _row import HEADER, Row, parser, row_since  # noqa: E402 (the folder is no package)

HOURS = float(os.environ.get("TORTURE_HOURS", "3"))  # that one script may take; the longest takes half an hour


def main() -> int:
    options = parser("Run all torture scripts and print one table.")
    options.add_argument("names", nargs="*", help="scripts to run, without .py; all when left out")
    chosen = options.parse_args()
    scripts = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("_"))
    flags = ["--json"] + [flag for flag in ("--short", "--full") if getattr(chosen, flag[2:])]
    rows: list[Row] = []
    print(HEADER, flush=True)
    for script in scripts:
        if chosen.names and script.stem not in chosen.names:
            continue
        found = _rows_of(script, flags)
        rows += found
        print(*found, sep="\n", flush=True)
    for row in rows:
        for failure in row.failures:
            print(f"\n{row.what}: {failure}")
    return int(not rows or any(row.failures or not row.tried for row in rows))


def _rows_of(script: Path, flags: list[str]) -> list[Row]:
    """What the script reports; that it broke, or came to no end, is a row of failure and no end of the others."""
    start = time.monotonic()
    with subprocess.Popen([sys.executable, str(script), *flags], stdout=subprocess.PIPE, text=True) as running:
        try:
            said, _ = running.communicate(timeout=HOURS * 3600)
            how = f"ended with {running.returncode} and printed no rows"
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGINT)  # so that it ends its own workers
            try:
                running.wait(timeout=30)
            except subprocess.TimeoutExpired:
                running.kill()
            said, how = "", f"was still running after {HOURS:g} hours"
    try:
        if found := [Row(**row) for row in json.loads(said)["rows"]]:
            return found
    except (ValueError, TypeError, KeyError):
        pass
    return [row_since(start, f"{script.name}, as a whole", 1, [f"{script.name} {how}"])]


if __name__ == "__main__":
    sys.exit(main())
