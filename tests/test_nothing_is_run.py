"""What comes from a file is data: nothing is unpickled, evaluated, imported by its name or given to a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "phinetune"

NEVER_IMPORTED = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "imp", "code"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "execfile"}
NEVER_ON = {"os": {"system", "popen", "execv", "execve", "spawnl"}, "subprocess": {"getoutput", "getstatusoutput"}}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_Loader"}  # the last is ours, made from SafeLoader


def trouble_in(source: str) -> list[str]:
    """What the source does that no data may decide."""
    return [found for node in ast.walk(ast.parse(source)) for found in _trouble(node)]


def _trouble(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        yield from (f"imports {name}" for name in modules if name.partition(".")[0] in NEVER_IMPORTED)
    if not isinstance(node, ast.Call):
        return
    called = ast.unparse(node.func)
    owner, _, name = called.rpartition(".")
    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if called in NEVER_CALLED or name in NEVER_ON.get(owner, ()):
        yield f"calls {called}"
    if called == "torch.load" and keywords.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if keywords.get("allow_pickle", "False") != "False" or keywords.get("trust_remote_code", "False") != "False":
        yield f"{called} that runs what it reads"
    if keywords.get("shell", "False") != "False":
        yield f"{called} with a shell"
    if owner == "yaml" and name in ("load", "load_all", "unsafe_load", "full_load"):
        loader = keywords.get("Loader", "").rpartition(".")[2]
        if name not in ("load", "load_all") or loader not in SAFE_LOADERS:
            yield f"yaml.{name} of anything"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=wanted)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert trouble_in(source)


def test_our_own_yaml_loader_makes_plain_values_only() -> None:
    import yaml

    from phinetune.settings.yaml_file import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)


def test_nothing_in_the_source_runs_what_it_reads() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    assert {str(file): found for file in files if (found := trouble_in(file.read_text(encoding="utf-8")))} == {}


def test_every_model_that_transformers_loads_is_refused_its_own_code() -> None:
    calls = [
        (file.name, ast.unparse(node))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith("Auto")
        and "from_pretrained" in ast.unparse(node.func)
    ]
    assert len(calls) >= 4
    assert [call for call in calls if "trust_remote_code=False" not in call[1]] == []
