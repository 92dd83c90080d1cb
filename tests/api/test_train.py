"""The whole line on a toy: a sheet goes in, a tuned model comes out, and plain libraries can use it."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import shutil
import socket

import pytest
import torch
import toys
from allocator import FailingAllocator, run_out
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import phinetune
from model.gguf_fixtures import Kind, write_gguf
from phinetune import PhinetuneError
from phinetune.errors import ModelError, RunError, SettingsError, SheetError, TrainingError
from phinetune.events import (
    Finished,
    ModelLoaded,
    RateChosen,
    RateTried,
    RolledBack,
    SheetRead,
    Started,
    StepDone,
    Warned,
)
from phinetune.model import lora
from phinetune.run_folder import RunFolder


def _train(sheet, base, out, **options):
    return phinetune.train(sheet, model=str(base), out=out, **{"epochs": 2, "lr": 1e-2} | options)


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

    run = _train(sheet, toy_base, tmp_path / "run", epochs=1, on_event=on_event)
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
    run = _train(toy_sheet, toy_base, tmp_path, epochs=1, adapter_format="bin")
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


def test_events_tell_the_story_in_order(toy_base, toy_sheet, tmp_path):
    events = []
    _train(toy_sheet, toy_base, tmp_path, on_event=events.append)
    kinds = [type(event) for event in events]
    assert [k for k in kinds if k in (SheetRead, ModelLoaded, Started, Finished)] == [
        SheetRead,
        ModelLoaded,
        Started,
        Finished,
    ]
    assert [e.code for e in events if isinstance(e, Warned)] == ["few_pairs"]


def test_an_interrupted_run_goes_on_and_ends_like_an_uninterrupted_one(toy_base, toy_sheet, tmp_path):
    whole = _train(toy_sheet, toy_base, tmp_path / "whole")
    seen = []
    part = _train(toy_sheet, toy_base, tmp_path / "part", on_event=seen.append, stop_requested=lambda: len(seen) > 7)
    assert part.stopped == "interrupted"
    assert not part.folder.is_finished
    with pytest.raises(RunError, match="did not finish"):
        _train(toy_sheet, toy_base, tmp_path / "part")
    rest = _train(toy_sheet, toy_base, tmp_path / "part", resume=True)
    for name in ("adapter_model.safetensors", "phinetune.json"):
        assert (rest.folder.model / name).read_bytes() == (whole.folder.model / name).read_bytes()

    def figures(run):
        rows = csv.DictReader(run.folder.metrics_csv.open())
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    assert figures(rest) == figures(whole)
    assert 0 < part.steps < rest.steps


def test_lr_auto_searches_once_and_a_resume_keeps_what_was_found(toy_base, toy_sheet, tmp_path):
    events = []
    part = _train(
        toy_sheet, toy_base, tmp_path, lr="auto", epochs=4, on_event=events.append,
        stop_requested=lambda: sum(isinstance(event, StepDone) for event in events) >= 2,
    )  # fmt: skip
    assert part.stopped == "interrupted"
    [chosen] = [event for event in events if isinstance(event, RateChosen)]
    again = []
    _train(toy_sheet, toy_base, tmp_path, lr="auto", epochs=4, resume=True, on_event=again.append)
    assert not [event for event in again if isinstance(event, RateChosen | RateTried)]
    whole = [event.learning_rate for event in (*events, *again) if isinstance(event, StepDone)]
    assert max(whole) == pytest.approx(chosen.learning_rate, rel=0.2)
    config = json.loads((tmp_path / "training_visuals" / "training_config.json").read_text())
    assert config["settings"]["train"]["learning_rate"] == config["learning_rate_chosen"] == chosen.learning_rate


def test_a_learning_rate_that_is_none_is_a_clear_error(toy_base, toy_sheet, tmp_path):
    for wrong in ("fast", 0, 1.5):
        with pytest.raises(SettingsError, match=r"train\.learning_rate"):
            _train(toy_sheet, toy_base, tmp_path, lr=wrong)


def test_a_resume_with_another_setting_is_refused_with_the_difference(toy_base, toy_sheet, tmp_path):
    seen = []
    _train(toy_sheet, toy_base, tmp_path, on_event=seen.append, stop_requested=lambda: len(seen) > 6)
    with pytest.raises(RunError, match=r"lora.r: 16 before, 8 now"):
        _train(toy_sheet, toy_base, tmp_path, resume=True, lora_r=8)


def test_a_resume_with_another_seed_says_that_and_nothing_of_the_sheet(toy_base, toy_sheet, tmp_path):
    seen = []
    _train(toy_sheet, toy_base, tmp_path, on_event=seen.append, stop_requested=lambda: len(seen) > 6)
    with pytest.raises(RunError) as refused:
        _train(toy_sheet, toy_base, tmp_path, resume=True, seed=7)
    said = [line.strip() for line in refused.value.message.splitlines()[1:]]
    assert said == ["--seed: 42 before, 7 now"]


def test_a_finished_run_is_not_overwritten_unless_asked(toy_base, toy_sheet, tmp_path):
    first = _train(toy_sheet, toy_base, tmp_path, epochs=1)
    weights = (first.folder.model / "adapter_model.safetensors").read_bytes()
    with pytest.raises(RunError, match="already holds a tuned model"):
        _train(toy_sheet, toy_base, tmp_path, epochs=1, seed=5)
    assert (first.folder.model / "adapter_model.safetensors").read_bytes() == weights
    _train(toy_sheet, toy_base, tmp_path, epochs=1, seed=5, overwrite=True)
    assert (first.folder.model / "adapter_model.safetensors").read_bytes() != weights


def test_a_model_folder_that_is_not_ours_is_never_touched(toy_base, toy_sheet, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(RunError, match="not a tuned model of ours"):
            _train(toy_sheet, toy_base, tmp_path, **options)
    assert (tmp_path / "model" / "thesis.txt").read_text() == "years of work"


def test_a_cut_answer_is_warned_about(toy_base, tmp_path):
    sheet = toys.write_sheet(tmp_path / "s.xlsx", [*toys.PAIRS, ("Long?", "word " * 90)])
    events = []
    _train(sheet, toy_base, tmp_path / "out", epochs=1, max_length=100, on_event=events.append)
    [cut] = [e for e in events if isinstance(e, Warned) and e.code == "answers_cut"]
    assert "1 answer is longer" in cut.message
    assert "(row 8)" in cut.message


def test_one_question_alone_trains_without_validation_and_says_so(toy_base, tmp_path):
    sheet = toys.write_sheet(tmp_path / "s.xlsx", [("Who?", "Me."), ("who", "Me too.")])
    events = []
    run = _train(sheet, toy_base, tmp_path / "out", on_event=events.append)
    assert run.eval_loss is None
    assert "no_validation" in [e.code for e in events if isinstance(e, Warned)]
    assert json.loads(run.folder.metrics_json.read_text())["best_eval_loss"] is None


def test_the_whole_run_touches_no_network(toy_base, toy_sheet, tmp_path, monkeypatch):
    from huggingface_hub import constants

    tried = []

    def refuse(*target):
        tried.append(target)  # a library may swallow the error
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read at import: the libraries think they are online
    run = _train(toy_sheet, toy_base, tmp_path, epochs=1)
    phinetune.ask(run, "Who?", max_new_tokens=2)
    assert not tried
    with pytest.raises(PhinetuneError, match="cannot be reached"):
        phinetune.train(toy_sheet, model="org/model", out=tmp_path / "hub")
    assert tried


@pytest.mark.parametrize(("make", "fused"), [(toys.phi, True), (toys.phi, False), (toys.llama, False)])
def test_a_gguf_file_is_trained_and_asked_and_may_move(toy_sheet, tmp_path, make, fused):
    file = tmp_path / "base.Q8_0.gguf"
    stored = write_gguf(file, make(), toys.tokenizer(), kind=Kind.Q8_0, fused=fused)
    run = _train(toy_sheet, file, tmp_path / "run")
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


def test_an_architecture_whose_layers_mix_the_pairs_of_a_row_is_refused(toy_sheet, tmp_path):
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    config = GPTNeoConfig(
        vocab_size=512, hidden_size=32, num_layers=2, attention_types=[[["global"], 2]], num_heads=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    base = toys.save(tmp_path / "base", GPTNeoForCausalLM(config))
    with pytest.raises(PhinetuneError, match="would let one pair of a row see another"):
        _train(toy_sheet, base, tmp_path / "run")


def test_a_resume_passes_over_a_damaged_checkpoint_and_says_so(toy_base, toy_sheet, tmp_path):
    seen = []
    _train(toy_sheet, toy_base, tmp_path, on_event=seen.append, stop_requested=lambda: len(seen) > 12, epochs=6)
    folders = sorted((tmp_path / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    assert len(folders) > 1
    (folders[-1] / "state.json").write_text("{}")
    events = []
    _train(toy_sheet, toy_base, tmp_path, resume=True, on_event=events.append, epochs=6)
    [said] = [e.message for e in events if isinstance(e, Warned) and e.code == "damaged_checkpoint"]
    assert folders[-1].name in said
    assert folders[-2].name in said


def test_a_run_that_does_not_fit_says_how_much_it_takes_and_what_to_change(toy_base, toy_sheet, tmp_path):
    said = []
    with FailingAllocator() as allocator:

        def on_event(event):
            if isinstance(event, StepDone | Warned):
                said.append(event)
                allocator.fail_in = 5

        with pytest.raises(TrainingError, match=r"does not fit in the memory .* needs about 0\.\d GB") as caught:
            _train(toy_sheet, toy_base, tmp_path, on_event=on_event)
    assert "--max-length" in caught.value.hint
    assert [e.code for e in said if isinstance(e, Warned)][-1] == "out_of_memory"


def test_a_run_that_ran_out_of_memory_ends_in_a_model_all_the_same(toy_base, toy_sheet, tmp_path):
    with FailingAllocator() as allocator:

        def on_event(event):
            if isinstance(event, StepDone) and event.step == 2:
                allocator.fail_in = 5

        run = _train(toy_sheet, toy_base, tmp_path, on_event=on_event)
    assert allocator.failures == 1
    assert run.stopped == "finished"
    assert run.folder.is_finished


def test_a_base_model_that_does_not_fit_is_told_with_its_size(toy_base, toy_sheet, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: run_out())
    with pytest.raises(ModelError, match=r"does not fit in memory: its weights alone take 0\.0 GB") as caught:
        _train(toy_sheet, toy_base, tmp_path)
    assert "smaller --model" in caught.value.hint


@pytest.fixture(scope="module")
def failed_run(toy_base, toy_sheet, tmp_path_factory):
    """A learning rate that no halving saves in fp16: real overflow, nothing is injected."""
    out, events = tmp_path_factory.mktemp("failed"), []
    with pytest.raises(TrainingError, match="became unstable: .* after going back twice already") as caught:
        _train(toy_sheet, toy_base, out, lr=0.9, dtype="fp16", epochs=20, batch_size=4, on_event=events.append)
    return out, events, caught.value


def test_a_run_that_became_unstable_went_back_twice_and_said_so(failed_run):
    _, events, error = failed_run
    assert [e.code for e in events if isinstance(e, Warned)].count("rolled_back") == 2
    assert [e.learning_rate_factor for e in events if isinstance(e, RolledBack)] == [0.5, 0.25]
    assert "--lr at an eighth of its value" in error.hint  # a quarter has just failed
    assert "phinetune report" in error.hint


def test_a_run_that_became_unstable_leaves_what_explains_it(failed_run):
    out, _, _ = failed_run
    assert not RunFolder(out).is_finished
    figures = json.loads(RunFolder(out).metrics_json.read_text())
    assert (figures["stopped"], figures["rollbacks"]) == ("failed", 2)
    first = phinetune.diagnose(out)[0]
    assert (first.name, first.severity) == ("unstable", "warning")
    page = phinetune.report(out).read_text()
    assert "became unstable" in page
    assert "no tuned model" in page


def test_what_an_unstable_run_keeps_is_sound(failed_run):
    out, _, error = failed_run
    folder = RunFolder(out)
    steps = folder.checkpoint_steps()
    for step in steps:
        weights = lora.read_weights(folder.checkpoint(step))
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    kept = re.search(r"checkpoints/checkpoint-(\d+)", error.message)
    assert kept is None or int(kept[1]) in steps


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


def test_losses_are_finite_in_half_precision_as_an_older_gpu_would_train(toy_base, toy_sheet, tmp_path):
    exact = _train(toy_sheet, toy_base, tmp_path / "a")
    half = _train(toy_sheet, toy_base, tmp_path / "b", dtype="fp16")
    assert math.isfinite(half.eval_loss)
    assert half.eval_loss == pytest.approx(exact.eval_loss, rel=0.02)
