"""How a run takes its folder: alone, without harm to what is there, and from what is whole."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import toys
from whole_runs import ADAPTER, codes, train_by_fours, weights

import phinetune
from phinetune.errors import RunError
from phinetune.events import Restored, StepDone, Warned
from phinetune.run_folder import RunFolder, locked


def test_a_second_run_into_the_folder_is_refused_and_the_first_is_not_disturbed(toy_base, toy_sheet, tmp_path, whole):
    refused = []

    def meanwhile(event):
        if isinstance(event, StepDone) and event.step == 3:
            for options in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(RunError, match=f"process {os.getpid()} on") as caught:
                    train_by_fours(toy_sheet, toy_base, tmp_path, **options)
                refused.append(caught.value)

    phinetune.train(
        toy_sheet, model=str(toy_base), out=tmp_path, epochs=2, lr=1e-2, batch_size=2, grad_accum=2, on_event=meanwhile
    )
    assert len(refused) == 3
    assert weights(tmp_path) == whole
    assert not list(tmp_path.rglob(".lock"))


def test_report_and_training_keep_out_of_each_others_way(toy_run, tmp_path):
    shutil.copytree(toy_run.folder.root, tmp_path / "run")
    with locked(RunFolder(tmp_path / "run")), pytest.raises(RunError, match="Another phinetune is writing"):
        phinetune.report(tmp_path / "run")
    assert phinetune.report(tmp_path / "run").is_file()


def test_resume_of_a_finished_run_without_checkpoints_does_not_replace_its_model(toy_base, toy_sheet, tmp_path):
    train_by_fours(toy_sheet, toy_base, tmp_path)
    before = weights(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(RunError, match="holds a tuned model and no checkpoint") as refused:
        train_by_fours(toy_sheet, toy_base, tmp_path, resume=True, seed=3)
    assert "--overwrite" in refused.value.hint
    assert weights(tmp_path) == before


def test_an_overwriting_run_keeps_the_earlier_model_aside_until_its_own_is_there(toy_base, toy_sheet, tmp_path):
    train_by_fours(toy_sheet, toy_base, tmp_path, seed=7)
    earlier = weights(tmp_path)
    _, events = train_by_fours(toy_sheet, toy_base, tmp_path, overwrite=True, stop_after=2)
    assert "model_put_aside" in codes(events)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "model.before" / ADAPTER).read_bytes() == earlier
    assert not (tmp_path / "training_visuals" / "comparison.json").exists()
    train_by_fours(toy_sheet, toy_base, tmp_path, resume=True)
    assert not (tmp_path / "model.before").exists()
    assert weights(tmp_path) != earlier


def test_the_same_pairs_in_another_file_are_the_same_run(toy_base, toy_sheet, tmp_path, whole):
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", stop_after=3)
    pairs = [(f"{q} ({i})", a) for i, (q, a) in enumerate(toys.PAIRS * 5)]
    text = "Answer,Question\n" + "".join(f'"{answer}","{question}"\n' for question, answer in pairs)
    (tmp_path / "saved again.csv").write_text(text)
    train_by_fours(
        tmp_path / "saved again.csv", toy_base, tmp_path / "run", resume=True, question="Question", answer="Answer"
    )
    assert weights(tmp_path / "run") == whole


def test_other_pairs_are_another_run_and_refused_before_the_model_is_loaded(toy_base, toy_sheet, tmp_path):
    train_by_fours(toy_sheet, toy_base, tmp_path, stop_after=3)
    events = []
    with pytest.raises(RunError) as refused:
        phinetune.train(
            toy_sheet, model=str(toy_base), out=tmp_path, epochs=2, lr=2e-2, batch_size=2, grad_accum=2, limit=20,
            resume=True, on_event=events.append,
        )  # fmt: skip
    for said in ("--lr: 0.01 before, 0.02 now", "--limit: not given before, 20 now", "pairs to learn from: 27 before"):
        assert said in str(refused.value)
    assert "ModelLoading" not in [type(event).__name__ for event in events]


def test_other_weights_at_the_same_place_are_another_run(toy_base, toy_sheet, tmp_path):
    base = shutil.copytree(toy_base, tmp_path / "base")
    train_by_fours(toy_sheet, base, tmp_path / "run", stop_after=3)
    toys.save(base, toys.phi(seed=5))
    events = []
    with pytest.raises(RunError) as refused:
        phinetune.train(
            toy_sheet, model=str(base), out=tmp_path / "run", epochs=2, lr=1e-2, batch_size=2, grad_accum=2,
            resume=True, on_event=events.append,
        )  # fmt: skip
    assert f"weights of the base model {base}: " in str(refused.value)
    assert "ModelLoading" not in [type(event).__name__ for event in events]


def test_the_same_model_at_another_place_is_the_same_run(toy_base, toy_sheet, tmp_path, whole, monkeypatch):
    """As on another machine, which fetches the run from its mirror."""
    shutil.copytree(toy_base, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    train_by_fours(toy_sheet, "base", tmp_path / "run", stop_after=3, mirror=tmp_path / "mirror")
    shutil.move("base", "moved")
    shutil.rmtree(tmp_path / "run")
    _, events = train_by_fours(toy_sheet, tmp_path / "moved", tmp_path / "run", resume=True, mirror=tmp_path / "mirror")
    assert any(isinstance(event, Restored) for event in events)
    assert weights(tmp_path / "run") == whole


def test_what_changes_memory_or_disk_and_not_the_result_may_change(toy_base, toy_sheet, tmp_path):
    train_by_fours(toy_sheet, toy_base, tmp_path, stop_after=3)
    changed = {"batch_size": 1, "grad_accum": 4, "device": "cpu", "patience": 5, "adapter_format": "bin"}
    changed["keep"] = "last"
    dotted = {"train.keep_checkpoints": 1, "train.save_steps": 2, "train.gradient_checkpointing": True}
    run, _ = train_by_fours(toy_sheet, toy_base, tmp_path, resume=True, **changed, **dotted)
    assert run.stopped == "finished"
    assert run.kept_step == run.steps


def test_a_run_that_began_on_another_machine_goes_on_and_says_that_rounding_differs(toy_base, toy_sheet, tmp_path):
    train_by_fours(toy_sheet, toy_base, tmp_path, stop_after=3)
    _rewrite_state(
        tmp_path / "checkpoints" / "checkpoint-3", lambda state: state["run"].update({"machine.torch": "1.0"})
    )
    run, events = train_by_fours(toy_sheet, toy_base, tmp_path, resume=True)
    [said] = [e.message for e in events if isinstance(e, Warned) and e.code == "other_machine"]
    assert "torch was 1.0 and is " in said
    assert run.stopped == "finished"


def test_when_nothing_is_whole_every_damage_is_named_and_nothing_is_touched(toy_base, toy_sheet, tmp_path):
    train_by_fours(toy_sheet, toy_base, tmp_path, stop_after=9)
    folders = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert len(folders) > 1
    for folder in folders:
        (folder / "optimizer.safetensors").write_bytes(b"rotten")
    with pytest.raises(RunError) as refused:
        train_by_fours(toy_sheet, toy_base, tmp_path, resume=True)
    for folder in folders:
        assert f"{folder.name}: optimizer.safetensors is not as it was written" in refused.value.message
    assert "--overwrite and without --resume" in refused.value.hint
    assert sorted((tmp_path / "checkpoints").glob("checkpoint-*")) == folders


def test_a_file_where_the_model_goes_is_a_clear_error(toy_base, toy_sheet, tmp_path):
    (tmp_path / "model").write_text("notes of mine")
    with pytest.raises(RunError, match="model is or holds something that is not a tuned model"):
        train_by_fours(toy_sheet, toy_base, tmp_path)
    assert (tmp_path / "model").read_text() == "notes of mine"


def _rewrite_state(checkpoint, change) -> None:
    from phinetune.run_folder import sha256

    state = json.loads((checkpoint / "state.json").read_text())
    change(state)
    (checkpoint / "state.json").write_text(json.dumps(state))
    sums = json.loads((checkpoint / "checksums.json").read_text()) | {"state.json": sha256(checkpoint / "state.json")}
    (checkpoint / "checksums.json").write_text(json.dumps(sums))
