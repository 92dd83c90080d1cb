"""A few of each kind of what `make torture` does at full length."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import warm

TORTURE = Path(__file__).parents[2] / "torture"
SHORT = ("kill", "disk")  # in seconds; the others have tests of their own


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is forked, so that a hundred of them take minutes")
@pytest.mark.parametrize("name", SHORT)
def test_everything_survives(name):
    command = [sys.executable, str(TORTURE / f"{name}.py"), "--short", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # threads do not survive a fork
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.stdout, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) >= 2
    for row in rows:
        assert row["tried"] > 0
        assert not row["failures"]
        assert row["survived"] == row["tried"]
    assert done.returncode == 0


def test_phases_are_told_by_functions_that_the_product_has(monkeypatch):
    monkeypatch.syspath_prepend(TORTURE)
    import _wound

    found = set()
    for path in (TORTURE.parent / "src").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            of_a_class = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            members = node.body if of_a_class else [node]
            found |= {of_a_class + member.name for member in members if isinstance(member, ast.FunctionDef)}
    assert set(_wound.DOING) <= found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forked, so that torch is not imported for each")
def test_every_script_explains_itself_and_is_found():
    scripts = sorted(path for path in TORTURE.glob("*.py") if not path.name.startswith("_"))
    assert {script.stem for script in scripts} >= set(SHORT)
    for script in scripts:
        if script.stem in SHORT or script.stem.startswith(("lying", "hostile")):
            continue  # run with their flags by other tests
        with closing(warm.Process(script, "--help")) as process:
            said = process.finish(timeout=60)
        assert process.returncode == 0, said
        for flag in ("--json", "--short"):
            assert flag in said, script.name


def test_a_script_that_breaks_or_hangs_is_a_failure_and_hides_no_other(tmp_path):
    for name in ("__main__.py", "_row.py"):
        (tmp_path / name).write_text((TORTURE / name).read_text())
    (tmp_path / "good.py").write_text(
        'print(\'{"rows": [{"what": "good", "tried": 2, "survived": 2, "seconds": 1.0, "failures": []}]}\')'
    )
    command = [sys.executable, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| good | 2 | 2 | 1 |" in done.stdout
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    (tmp_path / "a_loop.py").write_text("import time\ntime.sleep(60)")
    (tmp_path / "empty.py").write_text("print('{\"rows\": []}')")
    environment = os.environ | {"TORTURE_HOURS": "0.0005"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "| good | 2 | 2 | 1 |" in done.stdout
    assert "| bad.py, as a whole | 1 | 0 |" in done.stdout
    assert "bad.py ended with 3" in done.stdout
    assert "a_loop.py was still running after 0.0005 hours" in done.stdout
    assert "empty.py ended with 0 and printed no rows" in done.stdout


def test_a_script_that_tries_nothing_is_a_failure(tmp_path):
    for name in ("__main__.py", "_row.py"):
        (tmp_path / name).write_text((TORTURE / name).read_text())
    (tmp_path / "none.py").write_text(
        'print(\'{"rows": [{"what": "none", "tried": 0, "survived": 0, "seconds": 1.0, "failures": ["no fuzzer"]}]}\')'
    )
    done = subprocess.run([sys.executable, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "none: no fuzzer" in done.stdout
    assert done.returncode == 1
