"""The zip to take along: the model and its pictures, whole, and nothing else."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from phinetune.artifacts.pack import pack
from phinetune.errors import RunError
from phinetune.run_folder import RunFolder

MEMBERS = [
    "model/README.md",
    "model/adapter_model.safetensors",
    "model/phinetune.json",
    "training_visuals/training_metrics.csv",
]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    root = tmp_path / "run"
    for name in (
        *reversed(MEMBERS),
        "checkpoints/checkpoint-5/state.json",
        "model/.partial-abc.json",
        "model/.ipynb_checkpoints/README.md",
        "notes.txt",
        "training_visuals/comparison.xlsx",
        "training_visuals/comparison.json",
        "training_visuals/data_findings.json",
        "training_visuals/report.html",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}")
    return RunFolder(root)


def test_it_holds_model_and_visuals_in_order_and_nothing_else(run, tmp_path):
    path = pack(run, tmp_path / "out" / "faq.zip")
    assert path == tmp_path / "out" / "faq.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == MEMBERS
        assert archive.testzip() is None
        assert archive.read(MEMBERS[1]) == b"content of model/adapter_model.safetensors"


def test_the_same_run_makes_the_same_bytes(run, tmp_path):
    first = pack(run, tmp_path / "a.zip").read_bytes()
    os.utime(run.recipe, (0, 0))
    assert pack(run, tmp_path / "b.zip").read_bytes() == first


def test_an_earlier_zip_is_replaced_and_never_packed_into_itself(run):
    path = run.visuals / "run.zip"
    path.write_bytes(b"earlier")
    for _ in range(2):
        with zipfile.ZipFile(pack(run, path)) as archive:
            assert archive.namelist() == MEMBERS
    left = {file.name for file in run.visuals.iterdir()} - {file.name for file in run.tells_of_the_sheet}
    assert left == {"run.zip", "training_metrics.csv"}


def test_an_unfinished_run_is_refused_and_nothing_written(run, tmp_path):
    run.recipe.unlink()
    with pytest.raises(RunError, match="not finished"):
        pack(run, tmp_path / "faq.zip")
    assert not (tmp_path / "faq.zip").exists()


@pytest.mark.parametrize("place", ["model/secret.txt", "training_visuals/folder"])
def test_a_link_out_of_the_run_is_refused_and_the_earlier_zip_kept(run, tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (run.root / place).symlink_to(outside if place.endswith("folder") else outside / "secret.txt")
    (tmp_path / "faq.zip").write_bytes(b"earlier")
    with pytest.raises(RunError, match="it is a link to"):
        pack(run, tmp_path / "faq.zip")
    assert (tmp_path / "faq.zip").read_bytes() == b"earlier"


def test_a_link_within_the_run_is_packed_as_the_file_it_names(run, tmp_path):
    (run.model / "copy.md").symlink_to("README.md")
    with zipfile.ZipFile(pack(run, tmp_path / "faq.zip")) as archive:
        assert archive.read("model/copy.md") == b"content of model/README.md"
