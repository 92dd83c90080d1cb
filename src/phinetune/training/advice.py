"""Which settings to take for a planned run, and why, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phinetune.model.footprint import Footprint
from phinetune.model.hardware import Dtype
from phinetune.model.row_plan import RowPlan
from phinetune.training.planning import (
    Scene,
    Steps,
    Time,
    count_steps,
    largest_that_fits,
    memory_of,
    rows_of,
    with_dtype,
)

_LONG_RUN = 2 * 3600  # seconds
_FEW_STEPS = 20
_ROUND_TO = 64  # tokens


@dataclass(frozen=True)
class Advice:
    """`setting` and the value to give it, the flags to type ("" when nothing has to be), and the reason."""

    setting: str
    value: str
    flags: str
    reason: str


def advise(scene: Scene, steps: Steps, memory: Footprint, time: Time) -> tuple[Advice, ...]:
    """Batch and accumulation, recomputing, max_length and number format, and what else stands out."""
    best = largest_that_fits(scene)
    return (
        *_batch(scene, steps, memory, best),
        _recompute(scene, steps, memory, best),
        _number_format(scene, best is not None),
        *_epochs(scene, steps, time),
    )


def advise_length(scene: Scene, max_length: int) -> Advice:
    """Which max_length cuts nothing, or that the present one does."""
    work = scene.workload
    if not work.cut:
        longest = max(pair.tokens for pair in (*work.train, *work.validation))
        return Advice(
            "max_length",
            str(max_length),
            "",
            f"it cuts nothing: the longest pair has {longest:,} tokens. Rows are not padded, so a lower one saves "
            "nothing.",
        )
    enough = -(-work.longest_uncut // _ROUND_TO) * _ROUND_TO
    answers = "1 answer is" if work.cut == 1 else f"{work.cut} answers are"
    return Advice(
        "max_length",
        str(enough),
        f"--max-length {enough}",
        f"{answers} cut at {max_length} tokens, and the model would not learn how they finish; the longest pair has "
        f"{work.longest_uncut:,}. It takes more memory: plan again with it.",
    )


def _batch(scene: Scene, steps: Steps, memory: Footprint, best: tuple[Steps, Footprint] | None) -> Iterator[Advice]:
    settings = scene.settings
    per_step = settings.examples_per_step
    if best is None:
        yield Advice("model", "a smaller one", "", _too_large(scene))
        return
    good, its_memory = best
    pairs = good.plan.pairs_per_row
    value = f"{pairs} x {per_step // pairs}"
    if memory.total > scene.room:
        yield Advice(
            "batch_size x grad_accum",
            value,
            f"--batch-size {pairs} --grad-accum {per_step // pairs}",
            f"as it is set, the largest row of {steps.largest_row:,} tokens does not fit; with {pairs} "
            f"pair{'s' * (pairs > 1)} at once it takes {_gb(its_memory.total)}. The step is the same.",
        )
    elif steps.plan.pairs_per_row == per_step:
        yield Advice(
            "batch_size x grad_accum",
            f"{settings.batch_size} x {settings.grad_accum}",
            "",
            f"memory allows all {per_step} pairs of a step in one row ({steps.largest_row:,} tokens at most), which "
            "training does by itself: larger products run faster, and the step is the same.",
        )
    elif pairs > steps.plan.pairs_per_row and not good.plan.recompute:
        yield Advice(
            "batch_size x grad_accum",
            value,
            f"--batch-size {pairs} --grad-accum {per_step // pairs}",
            f"{pairs} pairs at once still fit ({_gb(its_memory.total)}), and larger products run faster. "
            "The step is the same.",
        )
    else:
        yield Advice(
            "batch_size x grad_accum",
            f"{settings.batch_size} x {settings.grad_accum}",
            "",
            f"{steps.plan.pairs_per_row} pairs at once fit; the step is the same however it is cut.",
        )


def _too_large(scene: Scene) -> str:
    smallest = memory_of(scene, count_steps(scene, RowPlan(1, recompute=True)))
    text = (
        f"even one pair at a time, recomputed, takes {_gb(smallest.total)} of the {_gb(scene.room)} that a run may "
        f"fill here; the weights alone are {_gb(smallest.weights)}."
    )
    return text + " A smaller model, a lower --max-length or a device with more memory is needed."


def _recompute(scene: Scene, steps: Steps, memory: Footprint, best: tuple[Steps, Footprint] | None) -> Advice:
    name = "gradient_checkpointing"
    if best is None or best[0].plan.recompute:
        return Advice(
            name,
            "true",
            "--set train.gradient_checkpointing=true",
            "activations do not fit otherwise: they are computed twice instead of kept, which takes about a third longer.",
        )
    if steps.plan.recompute:
        return Advice(
            name,
            "false",
            "--set train.gradient_checkpointing=false",
            f"activations fit ({_gb(best[1].total)} in all), and computing them twice takes about a third longer.",
        )
    return Advice(name, "auto", "", f"not needed: activations take {_gb(memory.activations)} and fit.")


def _number_format(scene: Scene, fits: bool) -> Advice:
    device, dtype = scene.device, scene.dtype
    natural: Dtype = device.dtype
    if dtype == natural:
        return Advice("dtype", dtype, "", _why(natural, device.has_bf16, device.kind))
    if natural == "fp32":
        reason = "this device computes bf16 and fp16 no faster, or imitates them; they only save memory."
        if not fits:
            reason = "what the device computes itself, if it fits."
        return Advice("dtype", natural, "--dtype fp32", reason)
    smaller = with_dtype(scene, natural)
    total = memory_of(smaller, count_steps(smaller, rows_of(smaller))).total
    return Advice(
        "dtype", natural, f"--dtype {natural}", f"{_why(natural, device.has_bf16, device.kind)} It needs {_gb(total)}."
    )


def _why(dtype: Dtype, has_bf16: bool, kind: str) -> str:
    if dtype == "bf16":
        return (
            "the hardware multiplies it, several times faster than fp32, in half the memory; its range needs no care."
        )
    if dtype == "fp16":
        return "this GPU has no bf16; fp16 runs on its matrix units, and the loss is scaled so that gradients survive."
    if kind == "cpu" and not has_bf16:
        return "this CPU has no bf16 arithmetic and would imitate it, a hundred times slower."
    return "nothing shorter is computed faster here."


def _epochs(scene: Scene, steps: Steps, time: Time) -> Iterator[Advice]:
    settings = scene.settings
    if steps.total < _FEW_STEPS and settings.grad_accum > 1:
        yield Advice(
            "grad_accum",
            "1",
            "--grad-accum 1",
            f"only {steps.total} steps, which change a model little; with fewer pairs a step there are more.",
        )
    if time.total is not None and time.total > _LONG_RUN:
        yield Advice(
            "limit",
            "50",
            "--limit 50",
            "this is a long run: try it on the first 50 pairs before, or on a GPU, or with a smaller model.",
        )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
