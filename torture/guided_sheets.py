"""Coverage-guided lies for the sheet reader: inputs that reach new lines are kept and mutated on (needs atheris).

Text tables, JSON and the XML of worksheets go in as bytes; pairs, nothing, or a SheetError must come out.
The extra `torture` brings the fuzzer (Python 3.11 to 3.13, Linux); without it nothing is tried, and this says so.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _contained as contained
import _seeds as seeds

_STYLES = b"""<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><numFmts count="1"><numFmt
 numFmtId="164" formatCode="0.00%"/></numFmts><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs>
</styleSheet>"""
_LIMITS = ["-timeout=10", "-rss_limit_mb=1500", "-max_len=20000", "-print_final_stats=1"]


def beginnings() -> dict[str, bytes]:
    """Honest inputs of every kind, by name, which the fuzzer begins from."""
    sheet = '<row r="1"><c r="A1" t="e"><v>#N/A</v></c><c r="B1"><f>A1</f><v>0</v></c></row>'
    return {
        **{name: b"t" + data for name, data in seeds.texts().items()},
        "styles": b"s" + _STYLES,
        "sheet": b"x" + str(seeds.xlsx_parts(sheet)["xl/worksheets/sheet1.xml"]).encode(),
    }


def try_out(data: bytes) -> None:
    """One input: its first byte says what it is taken for."""
    from xml.parsers.expat import ExpatError

    from phinetune.errors import SheetError
    from phinetune.sheet.columns import choose_columns
    from phinetune.sheet.read import _text_tables
    from phinetune.sheet.workbook_xml import _faults_in, _StylesParser

    kind, data = data[:1], data[1:]
    try:
        if kind == b"x":
            _faults_in(data, "FAQ", "a.xlsx", {"1": "0%", "2": "00000", "3": "by country"})
        elif kind == b"s":
            _StylesParser().parse(data)
        elif tables := [table for table in _text_tables(data, "a.csv", None) if table.rows]:
            choose_columns(tables)
    except SheetError:
        return
    except (ExpatError, ValueError, LookupError):
        if kind not in (b"x", b"s"):  # read.py takes these for damage, of a workbook alone
            raise


def _fuzz() -> None:
    import atheris

    with atheris.instrument_imports(include=["phinetune.sheet"]):
        import phinetune.sheet  # noqa: F401
    atheris.Setup(sys.argv, try_out)
    atheris.Fuzz()


def main() -> None:
    if "--fuzz" in sys.argv:
        sys.argv.remove("--fuzz")
        _fuzz()
        return
    options = contained.arguments(str(__doc__), 100_000)
    try:
        import atheris  # noqa: F401
    except ModuleNotFoundError:
        contained.report("sheets, guided by coverage", 0, 0, 0, ["atheris is not installed"], as_json=options.json)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="guided-sheets-") as place:
        corpus = Path(place, "corpus")
        corpus.mkdir()
        for name, data in beginnings().items():
            (corpus / name).write_bytes(data)
        limits = [*_LIMITS, f"-runs={options.count}", f"-seed={options.seed + 1}", f"-artifact_prefix={place}/"]
        if options.seconds:
            limits.append(f"-max_total_time={options.seconds:.0f}")
        done = subprocess.run(
            [sys.executable, __file__, "--fuzz", *limits, str(corpus)], capture_output=True, check=False
        )
        said = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
        tried = int((re.findall(r"number_of_executed_units: (\d+)", said) or ["0"])[-1])
        broken = [path for path in Path(place).iterdir() if path.is_file()]
        failures = [f"{path.name}: {path.read_bytes()[:60]!r} {_cause(said)}" for path in broken]
        if done.returncode and not failures:
            failures = [said[-600:]]
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for path in broken:
                (options.keep / path.name).write_bytes(path.read_bytes())
    seconds = time.monotonic() - start
    contained.report(
        "sheets, guided by coverage", tried, tried - len(failures), seconds, failures, as_json=options.json
    )


def _cause(said: str) -> str:
    found = re.findall(r"Uncaught Python exception: ===\n(.*)", said)
    return found[-1] if found else ""


if __name__ == "__main__":
    main()
