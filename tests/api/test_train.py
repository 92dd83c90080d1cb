"""The whole line on a toy: a sheet goes in, a tuned model comes out, and plain libraries can use it."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import socket

import pytest
import torch
import toys
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from whole_runs import train

import phinetune
from model.gguf_fixtures import Kind, write_gguf
from phinetune import PhinetuneError
from phinetune.errors import ModelError, RunError, SettingsError, SheetError
from phinetune.events import (
    SheetRead,
)


def test_every_output_of_the_guide_is_there(toy_run):
    names = {str(p.relative_to(toy_run.folder.root)) for p in toy_run.folder.root.rglob("*") if p.is_file()}
    expected = {
        "model/adapter_config.json",
        "model/adapter_model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "model/special_tokens_map.json",
        "model/README.md",
        "model/phinetune.json",
        "training_visuals/training_curves.png",
        "training_visuals/report.html",
        "training_visuals/data_findings.json",
        "training_visuals/loss_comparison.png",
        "training_visuals/training_metrics.json",
        "training_visuals/training_metrics.csv",
        "training_visuals/training_config.json",
    }
    assert expected == {name for name in names if not name.startswith("checkpoints/")}
    assert "checkpoints/pairs.jsonl" in names
    assert any(name.startswith("checkpoints/checkpoint-") for name in names)


def test_the_toy_learns(toy_run):
    assert toy_run.stopped == "finished"
    assert toy_run.eval_loss < 0.8 * toy_run.first_eval_loss
    assert toy_run.real_tokens_per_s > 0


def test_figures_agree_with_each_other(toy_run):
    figures = json.loads(toy_run.folder.metrics_json.read_text())
    rows = list(csv.DictReader(toy_run.folder.metrics_csv.open()))
    steps = [row for row in rows if row["train_loss"]]
    assert len(steps) == toy_run.steps == figures["steps"]
    assert sum(int(row["tokens"]) for row in steps) == figures["tokens"]
    best = min((float(r["eval_loss"]), int(r["step"])) for r in rows if r["eval_loss"] and r["step"] != "0")
    assert best == (figures["best_eval_loss"], figures["best_step"]) == (toy_run.eval_loss, toy_run.best_step)
    assert figures["trainable_parameters"] == toy_run.trainable_parameters
    assert figures["train_pairs"] + figures["validation_pairs"] == 30


def test_the_config_says_what_it_takes_to_do_the_run_again(toy_run, toy_sheet):
    config = json.loads(toy_run.folder.config_json.read_text())
    assert config["settings"]["train"]["learning_rate"] == 1e-2
    assert config["data_file"]["name"] == toy_sheet.name
    assert len(config["data_file"]["sha256"]) == 64
    assert set(config["versions"]) == {"phinetune", "torch", "transformers", "peft"}


@pytest.mark.parametrize("change", [lambda sheet: sheet.unlink(), lambda sheet: toys.write_sheet(sheet, toys.PAIRS)])
def test_a_sheet_that_changes_once_it_was_read_is_recorded_as_it_was_read(toy_base, toy_sheet, tmp_path, change):
    sheet = tmp_path / "faq.xlsx"
    sheet.write_bytes(toy_sheet.read_bytes())

    def on_event(event):
        if isinstance(event, SheetRead):
            change(sheet)

    run = train(sheet, toy_base, tmp_path / "run", epochs=1, on_event=on_event)
    recorded = json.loads(run.folder.config_json.read_text())["data_file"]
    assert recorded == {"name": "faq.xlsx", "sha256": hashlib.sha256(toy_sheet.read_bytes()).hexdigest()}


def test_plain_peft_and_transformers_load_the_model_and_give_the_same_logits(toy_run, toy_base):
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32), str(toy_run.folder.model)
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(toy_run.folder.model)
    ours = phinetune.open_model(toy_run, dtype="fp32")
    ids = tokenizer("### Question: Who keeps the lighthouse?\n\n### Answer:", return_tensors="pt").input_ids
    assert ids[0].tolist() == ours.encoder.prompt_ids("Who keeps the lighthouse?")
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids).logits, plain(ids).logits)


def test_the_model_measures_the_same_by_hand_as_the_run_reported(toy_run, toy_sheet):
    """Held-out loss recomputed with plain padded transformers code, from the files alone."""
    from phinetune.sheet.pairs import find_pairs
    from phinetune.sheet.split import split

    model = phinetune.open_model(toy_run, dtype="fp32")
    total, count = 0.0, 0
    for pair in split(find_pairs(toy_sheet).pairs, 0.1, 42).validation:
        tokenizer = model.encoder.tokenizer
        prompt = tokenizer(f"### Question: {pair.question}\n\n### Answer:").input_ids
        answer = [*tokenizer(f" {pair.answer}").input_ids, tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model.model(torch.tensor([prompt + answer])).logits[0].double()
        total -= float(logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None]).sum())
        count += len(answer)
    assert total / count == pytest.approx(toy_run.eval_loss, rel=1e-4)


def test_the_guides_bin_format(toy_base, toy_sheet, tmp_path):
    run = train(toy_sheet, toy_base, tmp_path, epochs=1, adapter_format="bin")
    assert (run.folder.model / "adapter_model.bin").is_file()
    (run.folder.model / "adapter_model.safetensors").unlink()  # it stands beside: this is what older tools see
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(toy_base), str(run.folder.model))
    with pytest.raises(ModelError, match=r"in pickle form .* can carry code") as refused:
        phinetune.ask(run, "Who?")
    assert "--allow-bin" in refused.value.hint
    assert phinetune.open_model(run, allow_bin=True).ask("Who?", greedy=True, max_new_tokens=3) is not None
    moved = shutil.copytree(toy_base, tmp_path / "moved")
    assert phinetune.ask(run, "Who?", model=str(moved), allow_bin=True, max_new_tokens=3) is not None
    assert phinetune.answer_sheet(run, toy_sheet, tmp_path / "a.csv", max_new_tokens=3, allow_bin=True).answers
    assert phinetune.verify(run, limit=2, allow_bin=True)[0].same == 2


def test_a_learning_rate_that_is_none_is_a_clear_error(toy_base, toy_sheet, tmp_path):
    for wrong in ("fast", 0, 1.5):
        with pytest.raises(SettingsError, match=r"train\.learning_rate"):
            train(toy_sheet, toy_base, tmp_path, lr=wrong)


def test_a_finished_run_is_not_overwritten_unless_asked(toy_base, toy_sheet, tmp_path):
    first = train(toy_sheet, toy_base, tmp_path, epochs=1)
    weights = (first.folder.model / "adapter_model.safetensors").read_bytes()
    with pytest.raises(RunError, match="already holds a tuned model"):
        train(toy_sheet, toy_base, tmp_path, epochs=1, seed=5)
    assert (first.folder.model / "adapter_model.safetensors").read_bytes() == weights
    train(toy_sheet, toy_base, tmp_path, epochs=1, seed=5, overwrite=True)
    assert (first.folder.model / "adapter_model.safetensors").read_bytes() != weights


def test_a_model_folder_that_is_not_ours_is_never_touched(toy_base, toy_sheet, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(RunError, match="not a tuned model of ours"):
            train(toy_sheet, toy_base, tmp_path, **options)
    assert (tmp_path / "model" / "thesis.txt").read_text() == "years of work"


def test_the_whole_run_touches_no_network(toy_base, toy_sheet, tmp_path, monkeypatch):
    from huggingface_hub import constants

    tried = []

    def refuse(*target):
        tried.append(target)  # a library may swallow the error
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read at import: the libraries think they are online
    run = train(toy_sheet, toy_base, tmp_path, epochs=1)
    phinetune.ask(run, "Who?", max_new_tokens=2)
    assert not tried
    with pytest.raises(PhinetuneError, match="cannot be reached"):
        phinetune.train(toy_sheet, model="org/model", out=tmp_path / "hub")
    assert tried


@pytest.mark.parametrize(("make", "fused"), [(toys.phi, True), (toys.phi, False), (toys.llama, False)])
def test_a_gguf_file_is_trained_and_asked_and_may_move(toy_sheet, tmp_path, make, fused):
    file = tmp_path / "base.Q8_0.gguf"
    stored = write_gguf(file, make(), toys.tokenizer(), kind=Kind.Q8_0, fused=fused)
    run = train(toy_sheet, file, tmp_path / "run")
    assert run.eval_loss < run.first_eval_loss
    plain = PeftModel.from_pretrained(stored, str(run.folder.model)).eval()
    ours = phinetune.open_model(run, dtype="fp32")
    ids = torch.tensor([ours.encoder.prompt_ids("Who keeps the lighthouse?")])
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)
    moved = file.rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(PhinetuneError, match="There is no model at") as caught:
        phinetune.open_model(run)
    assert "--model" in caught.value.hint
    assert phinetune.open_model(run, model=str(moved), dtype="fp32").ask("Who?", greedy=True) == ours.ask(
        "Who?", greedy=True
    )


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"template": "Q: {question}"}, SettingsError, "answer"),
        ({"target_modules": "o_proj"}, SettingsError, "no layer called o_proj"),
        ({"device": "cuda"}, SettingsError, "finds none here"),
        ({"answer": "Solution"}, SheetError, "Solution"),
        ({"model": "nowhere/at/all"}, PhinetuneError, "no model at nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(toy_base, toy_sheet, tmp_path, options, kind, says):
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(kind, match=says):
        phinetune.train(toy_sheet, out=tmp_path / "out", **{"model": str(toy_base)} | options)
    assert not (tmp_path / "out").exists()
