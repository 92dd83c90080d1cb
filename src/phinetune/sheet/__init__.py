"""Any table file -> question/answer pairs. Knows spreadsheets and nothing of tokens."""

from phinetune.sheet.clean import normalize_question
from phinetune.sheet.findings import Pair, Skipped
from phinetune.sheet.pairs import PairTable, find_pairs
from phinetune.sheet.read import read_tables
from phinetune.sheet.split import Split, split
from phinetune.sheet.table import SheetWarning, Table

__all__ = [
    "Pair",
    "PairTable",
    "SheetWarning",
    "Skipped",
    "Split",
    "Table",
    "find_pairs",
    "normalize_question",
    "read_tables",
    "split",
]
