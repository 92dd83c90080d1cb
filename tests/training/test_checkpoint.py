"""Checkpoints that were damaged in every way, and what a resume makes of them."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
import toys
from safetensors.torch import load_file, save_file

from phinetune.errors import RunError
from phinetune.events import Saved, StepDone, Validated, Warned
from phinetune.model import lora
from phinetune.run_folder import RunFolder, sha256
from phinetune.settings import LoraSettings
from phinetune.training import checkpoint
from phinetune.training.checkpoint import CHECKSUMS, Checkpoints, damage
from phinetune.training.progress import Progress, from_json, to_json


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A toy after one, two and three steps, with a checkpoint of each; the second is the best."""
    root = tmp_path_factory.mktemp("run")
    model = lora.attach(toys.phi(), LoraSettings(r=2, dropout=0.0), "toy", 0)
    optimizer = torch.optim.AdamW([p for _, p in lora.trainable(model)], lr=1e-2)
    checkpoints = Checkpoints(RunFolder(root), {"model": "toy"}, keep=5)
    history = []
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        optimizer.step()
        history += [StepDone(step, step / 2, 1.5, 1e-2, 0.5, 8, 0.1), Validated(step, step / 2, loss, loss < 2, 8, 0.1)]
        checkpoints.save(model, optimizer, Progress(step=step, best_step=min(step, 2), history=list(history)))
    return root


@pytest.fixture
def checkpoints(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return Checkpoints(RunFolder(tmp_path / "run"), {"model": "toy"}, keep=5)


def _resume(checkpoints, step):
    model = lora.attach(toys.phi(), LoraSettings(r=2, dropout=0.0), "toy", 0)
    optimizer = torch.optim.AdamW([p for _, p in lora.trainable(model)], lr=1e-2)
    return checkpoints.resume(step, model, optimizer), model


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _lengthen(path):
    path.write_bytes(path.read_bytes() + b"garbage")


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "optimizer.safetensors", "state.json", "adapter_config.json"]
)
@pytest.mark.parametrize(
    ("hurt", "says"),
    [
        (_flip, "is not as it was written"),
        (_cut, "is not as"),
        (_lengthen, "is not as"),
        (lambda p: p.unlink(), "is missing"),
    ],
)
def test_every_kind_of_damage_to_every_file_is_found_and_named(checkpoints, name, hurt, says):
    hurt(checkpoints.folder.checkpoint(3) / name)
    step, wrong = checkpoints.newest_good()
    assert step == 2
    assert list(wrong) == [3]
    assert wrong[3].startswith(name)
    assert says in wrong[3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "does not name its files"),
        ("{}", "does not name its files"),
        ('{"state.json": "1"}', "does not name its files"),
        ("\udcff", "cannot be read"),
    ],
)
def test_damaged_checksums_are_damage(checkpoints, text, says):
    (checkpoints.folder.checkpoint(3) / CHECKSUMS).write_bytes(text.encode(errors="surrogateescape"))
    assert says in damage(checkpoints.folder.checkpoint(3))
    (checkpoints.folder.checkpoint(3) / CHECKSUMS).unlink()
    assert damage(checkpoints.folder.checkpoint(3)) == "checksums.json is missing"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("format"), "another version of phinetune (format None"),
        (lambda s: s.update(format=99), "another version of phinetune (format 99"),
        (lambda s: s.update(run="toy"), "no record of the run"),
        (lambda s: s.update(progress=[]), "no history of a run"),
        (lambda s: s["progress"].update(step="3"), "step"),
        (lambda s: s["progress"].update(history=[["StepDone", {"step": 1}]]), "epoch"),
        (lambda s: s["progress"].update(history=[["Nonsense", {}]]), "Nonsense"),
    ],
)
def test_a_state_of_other_types_or_another_version_is_named_though_its_checksum_holds(checkpoints, change, says):
    path = checkpoints.folder.checkpoint(3)
    state = json.loads((path / "state.json").read_text())
    change(state)
    (path / "state.json").write_text(json.dumps(state))
    sums = json.loads((path / CHECKSUMS).read_text()) | {"state.json": checkpoint.sha256(path / "state.json")}
    (path / CHECKSUMS).write_text(json.dumps(sums))
    assert damage(path).startswith("state.json")
    assert says in damage(path)
    assert checkpoints.newest_good()[0] == 2


def test_a_checkpoint_that_is_removed_while_it_is_looked_at_is_a_damaged_one(checkpoints, monkeypatch):
    true_sum = checkpoint.sha256

    def and_then_removed(path):
        found = true_sum(path)
        if path.parent.name == "checkpoint-3":
            path.unlink()
        return found

    monkeypatch.setattr(checkpoint, "sha256", and_then_removed)
    step, wrong = checkpoints.newest_good()
    assert (step, wrong) == (2, {3: "state.json cannot be read: No such file or directory"})


@pytest.mark.parametrize("name", ["state.json", "optimizer.safetensors"])
def test_a_checkpoint_that_is_removed_before_it_is_gone_on_from_is_a_clear_error(checkpoints, name):
    (checkpoints.folder.checkpoint(3) / name).unlink()
    with pytest.raises(RunError, match="checkpoint-3 cannot be read any more: .*No such file"):
        _resume(checkpoints, 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
@pytest.mark.parametrize("name", ["optimizer.safetensors", "state.json", CHECKSUMS])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(checkpoints, name):
    file = checkpoints.folder.checkpoint(3) / name
    file.unlink()
    os.mkfifo(file)
    assert damage(checkpoints.folder.checkpoint(3)) == f"{name} is missing"


@pytest.mark.parametrize("change", ["missing", "size"])
def test_moments_of_other_weights_are_refused_though_their_checksum_holds(checkpoints, change):
    path = checkpoints.folder.checkpoint(3)
    moments = load_file(path / "optimizer.safetensors")
    name = next(name for name in moments if name.endswith("/exp_avg"))
    if change == "size":
        moments[name] = torch.zeros(3)
    else:
        del moments[name]
    save_file(moments, path / "optimizer.safetensors")
    sums = json.loads((path / CHECKSUMS).read_text())
    (path / CHECKSUMS).write_text(json.dumps(sums | {"optimizer.safetensors": sha256(path / "optimizer.safetensors")}))
    assert damage(path) is None
    with pytest.raises(RunError, match="does not fit the adapter beside it") as refused:
        _resume(checkpoints, 3)
    assert name in refused.value.message


def test_what_a_desktop_strews_into_a_checkpoint_is_no_damage(checkpoints):
    (checkpoints.folder.checkpoint(3) / ".DS_Store").write_text("x")
    assert checkpoints.newest_good() == (3, {})


def test_damaged_checkpoints_do_not_push_good_ones_out(checkpoints):
    """With the newest damaged and only so many kept, the next save must not count the damaged one."""
    _flip(checkpoints.folder.checkpoint(3) / "state.json")
    _resume(checkpoints, 2)
    assert checkpoints.folder.checkpoint_steps() == [1, 2]


def test_a_checkpoint_that_is_not_on_the_disk_as_it_was_written_costs_no_older_one(checkpoints, monkeypatch):
    resumed, model = _resume(checkpoints, 3)
    optimizer = torch.optim.AdamW([p for _, p in lora.trainable(model)], lr=1e-2)
    true_sum = checkpoint.sha256

    def loses_data_after_renaming(path):
        if path.parent.name == "checkpoint-4":
            _cut(path)
        return true_sum(path)

    monkeypatch.setattr(checkpoint, "sha256", loses_data_after_renaming)
    resumed.progress.step = 4
    one = Checkpoints(checkpoints.folder, checkpoints.run, keep=1)
    with pytest.raises(RunError, match="what is on the disk is not what was written"):
        one.save(model, optimizer, resumed.progress)
    assert checkpoints.folder.checkpoint_steps() == [1, 2, 3]
    monkeypatch.undo()
    one.save(model, optimizer, resumed.progress)
    assert checkpoints.folder.checkpoint_steps() == [2, 4]  # the best, and the latest


def test_a_checkpoint_that_is_being_read_is_not_dropped(checkpoints):
    resumed, model = _resume(checkpoints, 3)
    optimizer = torch.optim.AdamW([p for _, p in lora.trainable(model)], lr=1e-2)
    resumed.progress.step = 4
    Checkpoints(checkpoints.folder, checkpoints.run, 1, lambda: {1}).save(model, optimizer, resumed.progress)
    assert checkpoints.folder.checkpoint_steps() == [1, 2, 4]


def test_the_best_adapter_comes_back_with_a_resume(checkpoints):
    resumed, _ = _resume(checkpoints, 3)
    assert resumed.warning is None
    best = lora.read_weights(checkpoints.folder.checkpoint(2))
    assert all(torch.equal(best[name], resumed.best[name]) for name in best)


def test_when_the_best_checkpoint_is_lost_the_best_of_the_others_is_the_best_and_that_is_said(checkpoints):
    _flip(checkpoints.folder.checkpoint(2) / "adapter_model.safetensors")
    resumed, _ = _resume(checkpoints, 3)
    assert (resumed.progress.best_step, resumed.progress.best_eval_loss) == (3, 2.0)
    assert "checkpoint-2, the best so far, is damaged or gone; the best that is left is that of step 3" in (
        resumed.warning.message
    )


def test_progress_survives_json_exactly():
    history = [
        StepDone(1, 0.1 + 0.2, 1 / 3, 1e-5, 0.25, 10, 0.5),
        Validated(1, 0.5, 2.5, True, 10, 0.1),
        Saved(1, "somewhere", True),
        Warned("code", "message"),
    ]
    progress = Progress(step=1, best_step=1, best_eval_loss=2.5, loss_scale=65536.0, history=history)
    assert from_json(json.loads(json.dumps(to_json(progress)))) == progress
