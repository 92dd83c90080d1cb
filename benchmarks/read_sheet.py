"""Reading a workbook: from the file to cleaned, split-ready pairs, beside pandas, which reads the cells alone.

pip install -c constraints.txt 'phinetune[bench]'
python benchmarks/read_sheet.py [--rows 11000] [--runs 5]
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import pandas
import xlsxwriter
from bench import median_seconds, publish

from phinetune.sheet.pairs import find_pairs

WORDS = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default=11_000, type=int)
    parser.add_argument("--runs", default=5, type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_workbook(Path(folder, "large.xlsx"), arguments.rows)
        assert len(find_pairs(path).pairs) == len(pandas.read_excel(path)) == arguments.rows
        ours = median_seconds(lambda: find_pairs(path), arguments.runs)
        peer = median_seconds(lambda: pandas.read_excel(path), arguments.runs)
    publish(
        f"Reading a workbook of {arguments.rows:,} rows",
        "python benchmarks/read_sheet.py",
        ["what", "seconds", "against phinetune"],
        [
            ["phinetune: find sheet and columns, clean, find duplicates", f"{ours:.2f}", "1.0 x"],
            ["pandas.read_excel (openpyxl): cells alone", f"{peer:.2f}", f"{peer / ours:.1f} x"],
        ],
    )


def write_workbook(path: Path, rows: int) -> Path:
    draw = random.Random(0)
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["Question", "Answer", "Source"])
        for row in range(1, rows + 1):
            question = f"What about {' '.join(draw.choices(WORDS, k=8))} number {row}?"
            sheet.write_row(row, 0, [question, " ".join(draw.choices(WORDS, k=30)), "manual"])
    return path


if __name__ == "__main__":
    main()
