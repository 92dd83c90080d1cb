"""How long a command takes before it does anything: `--help` and `check`, beside a peer's `--help`.

    pip install -c constraints.txt 'phinetune[bench]'
    python benchmarks/startup.py [--runs 9]

Whole processes, taking turns, medians. The workbook for `check` has 11,000 rows and is made here.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import publish
from read_sheet import write_workbook

BIN = Path(sys.executable).parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", default=9, type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workbook = write_workbook(Path(folder, "large.xlsx"), 11_000)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "phinetune --help": [str(BIN / "phinetune"), "--help"],
            "phinetune train --help": [str(BIN / "phinetune"), "train", "--help"],
            "phinetune check, 11,000 rows": [str(BIN / "phinetune"), "check", str(workbook)],
            "trl --help": [str(BIN / "trl"), "--help"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.runs + 1):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - start)
    ours = statistics.median(seconds["phinetune --help"][1:])
    publish(
        "Start-up",
        "python benchmarks/startup.py",
        ["command", "seconds", "against phinetune --help"],
        [
            [name, f"{(median := statistics.median(measured[1:])):.2f}", f"{median / ours:.1f} x"]
            for name, measured in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
