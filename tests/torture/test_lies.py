"""Short runs of the scripts in torture/ that lie; `make torture` runs them for hours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[2] / "torture"

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits on memory as Linux has them")


@pytest.mark.parametrize(
    ("script", "first", "count"),
    [
        ("lying_sheets", 0, 12),
        ("lying_sheets", 5000, 60),
        ("lying_settings", 0, 80),
        ("lying_models", 0, 60),
        ("lying_runs", 0, 12),
        ("hostile_clients", 0, 16),
    ],
)
def test_each_lie_is_read_or_refused(script: str, first: int, count: int) -> None:
    command = [sys.executable, str(TORTURE / f"{script}.py"), "--seed", str(first), "--count", str(count), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr[-2000:]
    [row] = json.loads(done.stdout)["rows"]
    assert row["failures"] == []
    assert row["survived"] == row["tried"] == count


def test_guided_fuzzer_reads_what_it_begins_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TORTURE)
    import guided_sheets

    for kind in (b"t", b"s", b"x"):
        assert any(data.startswith(kind) for data in guided_sheets.beginnings().values())
    for data in guided_sheets.beginnings().values():
        guided_sheets.try_out(data)
