"""An adapter in pickle form: every command that reads one refuses it, and reads it as numbers when told to."""

from __future__ import annotations

import io
import shutil
import sys

import pytest
import torch
import toys
from safetensors.torch import load_file

import phinetune
from phinetune.cli import main
from phinetune.errors import ModelError

QUESTION = toys.PAIRS[0][0]
READING = {
    "ask": [QUESTION, "--greedy", "--max-new-tokens", "4"],
    "chat": ["--greedy", "--max-new-tokens", "4"],
    "answer": ["--sheet", "questions.csv", "--to", "made.csv", "--max-new-tokens", "4"],
    "compare": ["--limit", "2", "--max-new-tokens", "4"],
    "verify": ["--limit", "2"],
    "merge": ["--to", "made"],
    "gguf": ["--to", "made.gguf", "--quantize", "q8_0"],
    "gguf, without reading it back": ["--to", "made.gguf", "--no-check"],
    "gguf, the adapter alone": ["--to", "made.gguf", "--adapter"],
}


@pytest.fixture
def pickled(toy_run, tmp_path, monkeypatch):
    """A run in the present folder whose adapter is there in pickle form alone."""
    shutil.copytree(toy_run.folder.root, tmp_path / "run")
    weights = tmp_path / "run" / "model" / "adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    (tmp_path / "questions.csv").write_text(f"Question\n{QUESTION}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "run"


def _run(monkeypatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n"))
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return done.value.code


@pytest.mark.parametrize("what", READING)
def test_it_is_refused_and_read_when_allowed(pickled, tmp_path, monkeypatch, capsys, what):
    verb, options = what.partition(",")[0], READING[what]
    assert _run(monkeypatch, verb, pickled, *options) == 1
    told = capsys.readouterr().err
    assert "in pickle form" in told
    assert "--allow-bin" in told
    assert not list(tmp_path.glob("made*"))
    assert not _run(monkeypatch, verb, pickled, *options, "--allow-bin")
    assert "--to" not in options or list(tmp_path.glob("made*"))


def test_serving_refuses_it_and_reads_it_when_allowed(pickled):
    pytest.importorskip("xllamacpp")
    with pytest.raises(ModelError, match="in pickle form"):
        phinetune.serve(pickled)
    with phinetune.serve(pickled, allow_bin=True) as server:
        assert server.address
