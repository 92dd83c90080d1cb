from __future__ import annotations

from dataclasses import replace

from phinetune.model.find_shape import KNOWN
from phinetune.model.hardware import pick
from phinetune.model.shape import adapter_shape, read_shape
from phinetune.settings import TrainSettings
from phinetune.training.advice import advise, advise_length
from phinetune.training.planned_time import time_of
from phinetune.training.planning import PairTokens, Scene, Workload, count_steps, memory_of, rows_of


def _scene(name="microsoft/phi-2", device="t4", tokens=40, pairs=400, dtype=None, **settings) -> Scene:
    shape = read_shape(KNOWN[name], name)
    work = (PairTokens(tokens, tokens // 2),) * pairs
    here = pick(device)
    return Scene(
        shape=shape,
        adapter=adapter_shape(shape, 16, "all"),
        workload=Workload(work, work[:40], cut=0, longest_uncut=tokens, is_exact=True),
        settings=TrainSettings(**settings),
        device=here,
        dtype=dtype or here.dtype,
    )


def _advice(scene):
    steps = count_steps(scene, rows_of(scene))
    found = advise(scene, steps, memory_of(scene, steps), time_of(scene, steps))
    return {each.setting: each for each in found}


def test_a_good_setting_needs_nothing_typed():
    advice = _advice(_scene(device="h100"))
    assert [each.flags for each in advice.values()] == [""] * len(advice)
    assert set(advice) == {"batch_size x grad_accum", "gradient_checkpointing", "dtype"}
    assert all(each.reason for each in advice.values())


def test_a_batch_that_does_not_fit_is_cut_and_the_step_stays():
    scene = _scene(tokens=512, batch_size=64, grad_accum=1, gradient_checkpointing=False)
    advice = _advice(scene)["batch_size x grad_accum"]
    batch, _, accum = advice.value.partition(" x ")
    assert int(batch) * int(accum) == 64
    assert advice.flags == f"--batch-size {batch} --grad-accum {accum}"
    assert "does not fit" in advice.reason
    as_advised = replace(
        scene, settings=TrainSettings(batch_size=int(batch), grad_accum=int(accum), gradient_checkpointing=False)
    )
    assert memory_of(as_advised, count_steps(as_advised, rows_of(as_advised))).total <= scene.room


def test_where_nothing_fits_another_model_is_named_that_does():
    advice = _advice(_scene("mistralai/Mistral-7B-v0.1"))
    assert advice["model"].flags == "--model microsoft/phi-2"
    assert "the weights alone are 14.5 GB" in advice["model"].reason
    assert "gradient_checkpointing" not in advice


def test_fp32_on_a_gpu_is_advised_against():
    advice = _advice(_scene(dtype="fp32"))["dtype"]
    assert (advice.value, advice.flags) == ("fp16", "--dtype fp16")


def test_needless_recomputing_is_advised_against():
    advice = _advice(_scene(gradient_checkpointing=True))["gradient_checkpointing"]
    assert advice.flags == "--set train.gradient_checkpointing=false"


def test_cut_answers_get_the_length_that_keeps_them():
    scene = _scene()
    assert advise_length(scene, 512).flags == ""
    cut = replace(scene, workload=replace(scene.workload, cut=3, longest_uncut=700))
    assert advise_length(cut, 512).flags == "--max-length 704"
    assert "3 answers are cut" in advise_length(cut, 512).reason


def test_a_handful_of_steps_is_noticed():
    assert _advice(_scene(pairs=32, epochs=1))["grad_accum"].value == "1"
