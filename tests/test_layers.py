"""Imports point one way. The rooms and their order are the architecture; this test holds them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "phinetune"

ANYONE = {"errors", "settings", "events", "run_folder", "recipe"}
MAY_IMPORT = {
    "errors": set(),
    "events": set(),
    "settings": {"errors"},
    "run_folder": {"errors"},
    "recipe": {"errors", "settings", "run_folder"},
    "sheet": ANYONE,
    "tokens": ANYONE,
    "model": ANYONE,
    "training": ANYONE | {"tokens", "model"},
    "artifacts": ANYONE | {"model"},
    "use": ANYONE | {"tokens", "model"},
    "api": ANYONE | {"sheet", "tokens", "model", "training", "artifacts", "use"},
    "cli": ANYONE | {"api", "phinetune"},
}
MAY_IMPORT_INSIDE_A_FUNCTION = {"cli/__init__.py"}


def _modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem in MAY_IMPORT)


def _own_imports(node: ast.AST) -> list[str]:
    """The rooms that the import statements below `node` name."""
    names = []
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            names += [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom) and part.module:
            names += [f"{part.module}.{a.name}" for a in part.names] if part.module == "phinetune" else [part.module]
    own = [name.split(".") for name in names if name.split(".")[0] == "phinetune"]
    return [parts[1] if len(parts) > 1 else "phinetune" for parts in own]


def test_every_room_is_known():
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    assert rooms - {"__init__", "__main__"} == set(MAY_IMPORT)


def test_imports_point_one_way():
    wrong = []
    for path in _modules():
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for imported in _own_imports(ast.parse(path.read_text())):
            if imported != room and imported not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(SOURCE)} imports {imported}")
    assert len(_modules()) > 25
    assert not wrong


def test_nothing_of_our_own_is_imported_inside_a_function():
    wrong = []
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and _own_imports(node):
                wrong.append(str(path.relative_to(SOURCE)))
    assert set(wrong) <= MAY_IMPORT_INSIDE_A_FUNCTION


def test_help_and_import_load_nothing_heavy():
    code = (
        "import sys, phinetune\n"
        "from phinetune.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'matplotlib', 'numpy', 'pyarrow', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("train", "ask", "check", "pack"):
        assert verb in done.stdout
