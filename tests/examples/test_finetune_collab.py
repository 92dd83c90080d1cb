"""finetuneCollab.py, the guide's own entry: edit Config, run the file."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import toys

from phinetune.events import Event, StepDone

SCRIPT = Path(__file__).resolve().parents[2] / "finetuneCollab.py"

GUIDE = {
    "MODEL_NAME": "microsoft/phi-2",
    "DATASET_PATH": "dataset.xlsx",
    "BATCH_SIZE": 4,
    "GRADIENT_ACCUMULATION_STEPS": 4,
    "NUM_EPOCHS": 5,
    "LEARNING_RATE": 2e-4,
    "MAX_LENGTH": 512,
    "WEIGHT_DECAY": 0.01,
    "LORA_R": 16,
    "LORA_ALPHA": 32,
    "LORA_DROPOUT": 0.05,
}

OUTPUTS = [
    "checkpoints/checkpoint-3",
    "checkpoints/checkpoint-6",
    "model/README.md",
    "model/adapter_config.json",
    "model/adapter_model.safetensors",
    "model/special_tokens_map.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "training_visuals/loss_comparison.png",
    "training_visuals/training_config.json",
    "training_visuals/training_curves.png",
    "training_visuals/training_metrics.csv",
    "training_visuals/training_metrics.json",
]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("finetuneCollab", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module, about to train a toy on 20 pairs: 3 steps an epoch, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    toys.write_sheet(tmp_path / "dataset.xlsx")
    module = load_script()
    module.Config.MODEL_NAME = str(toys.save(tmp_path / "toy"))
    module.Config.GRADIENT_ACCUMULATION_STEPS = 2
    module.Config.NUM_EPOCHS = 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads on a toy model only wait for each other
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield module
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def settings_of(folder: Path) -> dict:
    return json.loads((folder / "training_visuals" / "training_config.json").read_text())["settings"]


def press_ctrl_c_after(script: ModuleType, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressing(script.TrainingPage):
        def show(self, event: Event) -> None:
            super().show(event)
            if isinstance(event, StepDone) and event.step == step:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(script, "TrainingPage", Pressing)


def test_config_has_the_values_of_the_guide():
    config = load_script().Config
    assert {name: getattr(config, name) for name in GUIDE} == GUIDE
    assert config.WARMUP_STEPS is None
    assert config.TARGET_MODULES == "all"


def test_it_leaves_the_files_of_the_guide_and_says_what_to_type_next(script, tmp_path, capsys):
    assert script.main() == 0
    assert [name for name in OUTPUTS if not (tmp_path / name).exists()] == []
    shown = capsys.readouterr().out
    assert "Pairs    24: 20 to learn from, 4 held out" in shown
    assert 'phinetune ask . "your question"' in shown
    assert "phinetune pack ." in shown


def test_every_value_of_config_is_used(script, tmp_path):
    given = {
        "OUTPUT_DIR": "elsewhere",
        "QUESTION_COLUMN": "Question",
        "ANSWER_COLUMN": "Answer",
        "PROMPT_TEMPLATE": "User: {question}\nAssistant: {answer}",
        "MAX_LENGTH": 77,
        "NUM_EPOCHS": 1,
        "BATCH_SIZE": 5,
        "GRADIENT_ACCUMULATION_STEPS": 3,
        "LEARNING_RATE": 3e-4,
        "WARMUP_STEPS": 1,
        "WEIGHT_DECAY": 0.02,
        "EARLY_STOPPING_PATIENCE": 7,
        "EVAL_STEPS": 2,
        "SAVE_STEPS": 2,
        "SEED": 7,
        "MIRROR_DIR": str(tmp_path / "mirror"),
        "LORA_R": 4,
        "LORA_ALPHA": 9,
        "LORA_DROPOUT": 0.1,
        "TARGET_MODULES": ["q_proj", "fc1"],
    }
    untouched = {"MODEL_NAME", "DATASET_PATH", "RESUME"}
    assert {name for name in vars(script.Config) if name.isupper()} == set(given) | untouched
    for name, value in given.items():
        setattr(script.Config, name, value)
    assert script.main() == 0
    assert (tmp_path / "mirror" / "model" / "adapter_model.safetensors").is_file()
    used = settings_of(tmp_path / "elsewhere")
    data, lora, train = used["data"], used["lora"], used["train"]
    assert (data["question"], data["answer"]) == ("Question", "Answer")
    assert data["template"] == given["PROMPT_TEMPLATE"]
    assert (data["max_length"], data["seed"], train["seed"]) == (77, 7, 7)
    assert (train["epochs"], train["batch_size"], train["grad_accum"]) == (1, 5, 3)
    assert (train["learning_rate"], train["warmup_steps"], train["weight_decay"]) == (3e-4, 1, 0.02)
    assert (train["patience"], train["eval_steps"], train["save_steps"]) == (7, 2, 2)
    assert (lora["r"], lora["alpha"], lora["dropout"]) == (4, 9, 0.1)
    assert lora["target_modules"] == ["q_proj", "fc1"]


def test_running_it_again_replaces_the_earlier_result(script, tmp_path, capsys):
    assert script.main() == 0
    script.Config.NUM_EPOCHS = 1
    assert script.main() == 0
    assert settings_of(tmp_path)["train"]["epochs"] == 1
    assert [folder.name for folder in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-3"]
    assert "going on" not in capsys.readouterr().out


@pytest.mark.parametrize("has_earlier_model", [False, True])
def test_after_ctrl_c_it_goes_on_when_it_is_run_again(script, tmp_path, capsys, monkeypatch, has_earlier_model):
    if has_earlier_model:
        assert script.main() == 0
    with monkeypatch.context() as patch:
        press_ctrl_c_after(script, 2, patch)
        assert script.main() == 130
    assert "Stopped after step 2. Nothing is lost" in capsys.readouterr().out
    assert (tmp_path / "checkpoints" / "checkpoint-2").is_dir()
    assert script.main() == 0
    assert "going on after step 2" in capsys.readouterr().out
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


def test_a_changed_config_does_not_go_on_by_itself(script, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        press_ctrl_c_after(script, 2, patch)
        assert script.main() == 130
    script.Config.LEARNING_RATE = 1e-3
    assert script.main() == 1
    assert "RESUME = False in Config begins anew" in capsys.readouterr().err
    script.Config.RESUME = False
    assert script.main() == 0
    assert "going on" not in capsys.readouterr().out


def test_without_a_sheet_it_says_so(tmp_path):
    result = subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: There is no file dataset.xlsx.")
    assert "Traceback" not in result.stdout + result.stderr


def test_without_a_sheet_it_says_so_before_torch_is_loaded(tmp_path):
    code = (
        "import runpy, sys\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as left: assert left.code == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "There is no file dataset.xlsx" in done.stderr


def test_without_phinetune_it_says_how_to_install_it(tmp_path):
    bare = [sys.executable, "-I", "-S", SCRIPT]
    result = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "pip install phinetune" in result.stderr
    assert "Traceback" not in result.stderr
