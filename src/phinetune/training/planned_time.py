"""How long a planned run takes: its steps, and what stands around them.

    begin ─► steps, of which some record a graph ─► validations ─► checkpoints      seconds of each, summed

In a short run on a fast GPU what stands around the steps is most of it: 140 steps of Phi-2 took an H200 7 s of 14, and
of these 2 to record graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

from phinetune.model.footprint import CHECKED_TOKENS
from phinetune.model.hardware import ITEMSIZE, SECONDS_A_LAYER, is_measured, peak, rate, step_flop
from phinetune.training.planning import Scene, Steps

# Measured with Phi-2 and its 32 layers on an H200 (benchmarks/results.md): 0.26 s for a graph, 0.13 s for each of 8
# validations; the check before the first step took 7.1 s, and 2.1 where its kernels had been compiled before.
_SECONDS_TO_RECORD_A_LAYER = 8e-3
_SECONDS_TO_VALIDATE_A_LAYER = 4e-3
_SECONDS_TO_CHECK_ON_GPU = 7.0
# A checkpoint of it, 283 MB, takes 1.2 s: computing the sums, writing, and reading back. On a GPU training waits for a
# copy in memory alone, or where the one before is not yet done (training/saving.py).
_CHECKPOINT_BYTES_A_SECOND = 236e6
_COPIED_BYTES_A_SECOND = 3e9
_WEIGHTS_BYTES_A_SECOND = 1e9  # from a fast disk, or one that was read before; an estimate
_STARTING = 10.0  # seconds to import torch, transformers and peft (up to 9 on a busy processor), and to draw pictures
# The check goes through two pairs by transformers' and PEFT's own layers, which take twice the time, and by ours.
_PASSES_OF_CHECK = 3
_ASKED_AT_THE_END = 100  # pairs at most; see training/recall.py


@dataclass(frozen=True)
class Time:
    """Seconds: to begin (load, and check the fast way), of the training steps, of the graphs recorded in them, of the
    validations and what is asked at the end, of the checkpoints; None where no rate is known. `basis` says how sure
    it is.
    """

    begin: float | None
    training: float | None
    recording: float | None
    validation: float | None
    checkpoints: float | None
    tokens_per_s: float | None
    basis: str

    @property
    def total(self) -> float | None:
        parts = (self.begin, self.training, self.recording, self.validation, self.checkpoints)
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def time_of(scene: Scene, steps: Steps, measured_tokens_per_s: float | None = None) -> Time:
    """The time of the run, from starting the program to the tuned model; downloading the base model is not in it.

    `measured_tokens_per_s` are of real steps of this run on this machine, and take the table's place.
    """
    layers, on_gpu = scene.shape.layers, scene.device.kind == "cuda"
    flop = step_flop(scene.shape, scene.adapter, steps.tokens, steps.answer_tokens, recompute=steps.plan.recompute)
    if measured_tokens_per_s is not None:
        training = steps.tokens / measured_tokens_per_s
        basis = "measured here on steps of this run"
    else:
        flop_per_s = rate(scene.device, scene.shape, scene.dtype)
        if flop_per_s is None:
            unknown = "no rate is known for this device; --measure finds it"
            return Time(None, None, None, None, None, None, unknown)
        training = flop / flop_per_s
        if on_gpu:
            training = max(training, steps.passes * layers * SECONDS_A_LAYER)
        basis = _basis(scene)
    a_token = training / steps.tokens
    forth = a_token / (3 if steps.plan.recompute else 2)  # alone, without the way back
    once = forth * sum(pair.tokens for pair in scene.workload.validation)
    if on_gpu and scene.workload.validation:
        once = max(once, layers * _SECONDS_TO_VALIDATE_A_LAYER)
    recording = len(steps.graphs) * layers * _SECONDS_TO_RECORD_A_LAYER
    return Time(
        begin=_begin(scene, a_token),
        training=training,
        recording=recording,
        validation=steps.validations * once + forth * _tokens_at_the_end(scene),
        checkpoints=_checkpoints(scene, steps, training + recording),
        tokens_per_s=1 / a_token,
        basis=basis,
    )


def _begin(scene: Scene, a_token: float) -> float:
    """Seconds to start, to load the weights, and to check the fast way on the shortest and the longest pair."""
    load = scene.shape.parameters * ITEMSIZE[scene.dtype] / _WEIGHTS_BYTES_A_SECOND
    lengths = [pair.tokens for pair in scene.workload.train]
    check = _PASSES_OF_CHECK * a_token * sum(min(CHECKED_TOKENS, tokens) for tokens in (min(lengths), max(lengths)))
    return _STARTING + load + (_SECONDS_TO_CHECK_ON_GPU if scene.device.kind == "cuda" else check)


def _checkpoints(scene: Scene, steps: Steps, training: float) -> float:
    """Seconds that `training`, as long as it is, waits for them. Weights and two moments, in fp32."""
    size = scene.adapter.parameters * 12
    whole = size / _CHECKPOINT_BYTES_A_SECOND
    if scene.device.kind != "cuda":
        return steps.saves * whole
    not_yet_done = max(0.0, whole - training / steps.saves)
    return whole + (steps.saves - 1) * (size / _COPIED_BYTES_A_SECOND + not_yet_done)


def _tokens_at_the_end(scene: Scene) -> float:
    """Of the training pairs that the last state and the kept one are asked, and of the held-out ones that end."""
    asked = 0.0
    for pairs, times in ((scene.workload.train, 2), (scene.workload.validation, 1)):
        share = min(1.0, _ASKED_AT_THE_END / max(1, len(pairs)))
        asked += times * share * sum(pair.tokens for pair in pairs)
    return asked


def _basis(scene: Scene) -> str:
    device = scene.device
    if device.peak is not None:
        measured = "H200" in device.name
        return (
            f"an estimate{'' if measured else ', not measured'}: {device.utilisation:.0%} of the "
            f"{peak(device, scene.dtype) / 1e12:.0f} TFLOP/s in {scene.dtype} that {device.name} reaches at most, and "
            f"what stands around the steps as {'it' if measured else 'an H200'} took it in one run of Phi-2; it may "
            "be off by a factor of two"
        )
    if not is_measured(device, scene.dtype):
        return "an estimate: this CPU imitates bf16, a hundred times slower than it computes fp32"
    runs = "by runs measured on two cores"
    return runs if device.cores == 2 else f"{runs}, stretched to {device.cores}: an estimate"
