"""Run every torture script beside this file and print one table: python torture [--short] [NAME ...]"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from _row import HEADER, Row, parser  # noqa: E402 (the folder is no package)


def main() -> int:
    options = parser("Run all torture scripts and print one table.")
    options.add_argument("names", nargs="*", help="scripts to run, without .py; all when left out")
    chosen = options.parse_args()
    scripts = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("_"))
    flags = ["--json"] + [flag for flag in ("--short", "--full") if getattr(chosen, flag[2:])]
    rows: list[Row] = []
    broken = []
    print(HEADER, flush=True)
    for script in scripts:
        if chosen.names and script.stem not in chosen.names:
            continue
        done = subprocess.run([sys.executable, str(script), *flags], stdout=subprocess.PIPE, text=True, check=False)
        try:
            found = [Row(**row) for row in json.loads(done.stdout)["rows"]]
        except (ValueError, TypeError, KeyError):
            broken.append(f"{script.name} ended with {done.returncode} and printed no rows")
            continue
        rows += found
        print(*found, sep="\n", flush=True)
    for row in rows:
        for failure in row.failures:
            print(f"\n{row.what}: {failure}")
    for line in broken:
        print(f"\n{line}")
    return int(bool(broken) or not rows or any(row.survived < row.tried for row in rows))


if __name__ == "__main__":
    sys.exit(main())
