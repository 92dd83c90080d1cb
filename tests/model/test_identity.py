"""What a model is, told without its name and without reading all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import toys

from phinetune.errors import ModelError
from phinetune.model import identity
from phinetune.model.identity import identify


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return toys.save(tmp_path_factory.mktemp("base"))


def _copy(base: Path, place: Path) -> Path:
    return Path(shutil.copytree(base, place))


def test_a_copy_is_the_same_model_whatever_lies_beside_it(base, tmp_path):
    copy = _copy(base, tmp_path / "copy")
    (copy / "README.md").write_text("mine")
    config = json.loads((copy / "config.json").read_text())
    config = dict(reversed(config.items())) | {"transformers_version": "4.1", "_name_or_path": "/elsewhere"}
    (copy / "config.json").write_text(json.dumps(config))
    assert identify(copy) == identify(base)
    assert set(identify(base)) == {"config", "tokenizer", "weights"}


@pytest.mark.parametrize(
    ("file", "part"),
    [("config.json", "config"), ("tokenizer_config.json", "tokenizer"), ("tokenizer.json", "tokenizer")],
)
def test_each_part_is_told_apart(base, tmp_path, file, part):
    copy = _copy(base, tmp_path / "copy")
    values = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(values | {"rope_theta": 7}))
    changed = {name for name, digest in identify(copy).items() if identify(base)[name] != digest}
    assert changed == {part}


def test_other_weights_of_the_same_shape_are_told_apart(base, tmp_path):
    other = toys.save(tmp_path / "other", toys.phi(seed=5))
    assert identify(other)["weights"] != identify(base)["weights"]
    assert identify(other)["config"] == identify(base)["config"]


def test_of_a_large_file_blocks_at_even_distances_are_read(tmp_path, monkeypatch):
    """5.6 GB would take half a minute; a change of 2 % of the numbers, side by side, is met."""
    monkeypatch.setattr(identity, "_HEAD", 1000)
    monkeypatch.setattr(identity, "_BLOCK", 10)
    monkeypatch.setattr(identity, "_STRIDE", 1000)
    file = tmp_path / "a.gguf"
    file.write_bytes(bytes(50_000))
    before = identify(file)
    for start in (0, 999, 20_500, 49_000, 49_995):
        data = bytearray(50_000)
        data[start : start + 1001] = b"x" * len(data[start : start + 1001])
        file.write_bytes(data)
        assert identify(file) != before
    file.write_bytes(bytes(50_001))
    assert identify(file) != before


def test_a_folder_without_a_model_is_left_to_loading_to_complain_of(tmp_path):
    assert identify(tmp_path) == {}
    (tmp_path / "config.json").write_text("{")
    assert set(identify(tmp_path)) == {"config"}


def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(identity, "_sample", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        identify(tmp_path / "a.gguf")
