"""Settings in words: all of them said, found by any name a person may use, and the page in docs/ made from the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import phinetune
from phinetune.cli import main
from phinetune.errors import SettingsError
from phinetune.settings import SHORT_NAMES, Settings, names
from phinetune.settings.document import document
from phinetune.settings.explain import find, pages

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_setting_has_a_page_and_no_page_lacks_a_word():
    assert [page.name for page in pages()] == names()
    assert len(pages()) > 30
    for page in pages():
        for text in (page.summary, page.more, page.less, page.when):
            assert text.endswith("."), (page.name, text)
        assert page.default
        assert page.allowed
        assert page.more != page.less


def test_default_bounds_and_flag_are_those_of_the_declaration():
    (rate,) = find("train.learning_rate")
    assert (rate.default, rate.allowed, rate.flag) == ("0.0002", "a number above 0 and below 1 or auto", "--lr")
    assert rate.presets == {"--preset quality": "0.0001", "--model smollm2-135m": "0.001"}
    assert find("lora.r")[0].allowed == "a whole number from 1 to 1024"
    assert find("train.device")[0].allowed == "auto, cpu, cuda or mps"
    assert find("target_modules")[0].allowed == "a text or a list of texts"
    assert find("warmup")[0].default == "left out"
    assert find("weight_decay")[0].flag == ""
    for page in pages():
        group, _, leaf = page.name.rpartition(".")
        declared = getattr(getattr(Settings(), group) if group else Settings(), leaf)
        assert page.default in ("left out", str(declared).replace("\n", "\\n"), f"{declared}", _plain(declared))


def _plain(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("lr", ["train.learning_rate"]),
        ("--lr", ["train.learning_rate"]),
        ("Learning Rate", ["train.learning_rate"]),
        ("learning-rate", ["train.learning_rate"]),
        ("lora.r", ["lora.r"]),
        ("r", ["lora.r"]),
        ("rank", ["lora.r"]),
        ("lora_r", ["lora.r"]),
        ("--sheet", ["data.sheet"]),
        ("length", ["data.max_length"]),
        ("warm", ["train.warmup_steps"]),
        ("seed", ["data.seed", "train.seed", "generate.seed"]),
        ("steps", ["train.warmup_steps", "train.eval_steps", "train.save_steps"]),
        ("generate", ["generate.temperature", "generate.top_p", "generate.max_new_tokens", "generate.seed"]),
        ("model", ["model"]),
        ("early stopping", ["train.patience"]),
        ("mixed precision", ["train.dtype"]),
        ("Mixed Precision (FP16)", ["train.dtype"]),
        ("fp16", ["train.dtype"]),
        ("quantization", ["train.dtype"]),
        ("gradient accumulation", ["train.grad_accum"]),
        ("effective batch size", ["train.batch_size", "train.grad_accum"]),
        ("scheduler", ["train.learning_rate", "train.warmup_steps"]),
        ("optimizer", ["train.learning_rate", "train.weight_decay"]),
        ("warmup", ["train.warmup_steps"]),
        ("warmup steps", ["train.warmup_steps"]),
        ("batch size", ["train.batch_size"]),
        ("weight decay", ["train.weight_decay"]),
        ("dropout", ["lora.dropout"]),
        ("LoRA alpha", ["lora.alpha"]),
        ("LoRA Rank (r)", ["lora.r"]),
        ("alpha", ["lora.alpha"]),
        ("target modules", ["lora.target_modules"]),
        ("epochs", ["train.epochs"]),
        ("number of epochs", ["train.epochs"]),
        ("max sequence length", ["data.max_length"]),
        ("gradient clipping", ["train.max_grad_norm"]),
        ("gradient checkpointing", ["train.gradient_checkpointing"]),
    ],
)
def test_a_setting_is_found_by_any_name_a_person_may_use(asked, found):
    assert [page.name for page in find(asked)] == found


def test_no_other_name_hides_a_setting_that_is_called_so():
    ends = {page.name.rpartition(".")[2] for page in pages()} | set(SHORT_NAMES)
    others = [other for page in pages() for other in page.also]
    assert len(others) > 50
    assert not {other.lower().replace(" ", "_") for other in others} & ends


@pytest.mark.parametrize("short", SHORT_NAMES)
def test_every_flag_leads_to_its_setting(short):
    assert set(SHORT_NAMES[short]) <= {page.name for page in find(short)}


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("dropuot", "lora.dropout"),
        ("lerning_rate", "train.learning_rate"),
        ("epoch s", "epochs"),
        ("erly stopping", "train.patience"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(asked, meant):
    with pytest.raises(SettingsError, match=meant):
        phinetune.explain(asked)


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(SettingsError, match=r"There is no setting zzz\.") as caught:
        phinetune.explain("zzz")
    assert "phinetune explain lists" in caught.value.hint


def test_the_page_in_docs_is_up_to_date():
    assert DOCS.read_text(encoding="utf-8") == document(), "python -m phinetune.settings.document > docs/settings.md"


def _run(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0), capsys.readouterr().out


def test_the_command_lists_all_or_explains_one(capsys):
    code, listed = _run(capsys, "explain")
    assert code == 0
    assert all(name in listed for name in names())
    code, one = _run(capsys, "explain", "rank")
    assert code == 0
    for part in ("lora.r", "Default", "16", "--lora-r", "Higher", "Lower", "When"):
        assert part in one, part
    assert "train.epochs" not in one
    code, several_words = _run(capsys, "explain", "early", "stopping")
    assert code == 0
    assert "train.patience" in several_words
    assert "early stopping" in several_words
    code, as_json = _run(capsys, "explain", "lr", "--json")
    assert json.loads(as_json)[0]["name"] == "train.learning_rate"
    assert len(json.loads(_run(capsys, "explain", "--json")[1])) == len(names())
    code, wrong = _run(capsys, "explain", "dropuot", "--json")
    assert code == 1
    assert "lora.dropout" in json.loads(wrong)["error"]


def test_it_loads_no_torch():
    code = (
        "import sys\nfrom phinetune.cli import main\n"
        "try: main(['explain', 'lr'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train.learning_rate" in done.stdout
