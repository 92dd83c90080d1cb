"""Which settings to take for a planned run, and why, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from phinetune.model.find_shape import KNOWN
from phinetune.model.footprint import Footprint
from phinetune.model.hardware import Dtype
from phinetune.model.row_plan import RowPlan
from phinetune.model.shape import adapter_shape, read_shape
from phinetune.training.planned_time import Time
from phinetune.training.planning import (
    Scene,
    Steps,
    count_steps,
    largest_that_fits,
    memory_of,
    rows_of,
    with_dtype,
)

_LONG_RUN = 2 * 3600  # seconds
_FEW_STEPS = 20
_LONG_PAIRS = 200  # tokens
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
        *(_choose_another(scene) if best is None else (_batch(scene, steps, memory, *best),)),
        *(() if best is None else (_recompute(steps, memory, best),)),
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
    if work.filled:
        questions = "1 question fills" if work.filled == 1 else f"{work.filled} questions fill"
        return Advice(
            "max_length",
            str(enough),
            f"--max-length {enough}",
            f"{questions} the {max_length} tokens and leave no room for an answer: training refuses the sheet. The "
            f"longest pair has {work.longest_uncut:,}. It takes more memory: plan again with it, or shorten the text.",
        )
    answers = "1 answer is" if work.cut == 1 else f"{work.cut} answers are"
    return Advice(
        "max_length",
        str(enough),
        f"--max-length {enough}",
        f"{answers} cut at {max_length} tokens, and the model would not learn how they finish; the longest pair has "
        f"{work.longest_uncut:,}. It takes more memory: plan again with it.",
    )


def _batch(scene: Scene, steps: Steps, memory: Footprint, good: Steps, its_memory: Footprint) -> Advice:
    settings, pairs = scene.settings, good.plan.pairs_per_row
    per_step = settings.examples_per_step
    setting, together = "batch_size x grad_accum", f"{pairs} pair{'s' * (pairs > 1)} at once"
    change = (f"{pairs} x {per_step // pairs}", f"--batch-size {pairs} --grad-accum {per_step // pairs}")
    as_it_is = (f"{settings.batch_size} x {settings.grad_accum}", "")
    if memory.total > scene.room and pairs != steps.plan.pairs_per_row:
        reason = (
            f"as it is set, the largest row of {steps.largest_row:,} tokens does not fit; with {together} it takes "
        )
        return Advice(setting, *change, f"{reason}{_gb(its_memory.total)}. The step is the same.")
    if steps.plan.pairs_per_row == per_step:
        return Advice(
            setting,
            *as_it_is,
            f"memory allows all {per_step} pairs of a step in one row ({steps.largest_row:,} tokens at most), which "
            "training does by itself: larger products run faster, and the step is the same.",
        )
    if pairs > steps.plan.pairs_per_row and not good.plan.recompute:
        reason = (
            f"{together} still fit ({_gb(its_memory.total)}), and larger products run faster. The step is the same."
        )
        return Advice(setting, *change, reason)
    return Advice(setting, *as_it_is, f"{steps.plan.pairs_per_row} at once is what fits; the step is the same.")


def _choose_another(scene: Scene) -> Iterator[Advice]:
    """Where nothing helps: the largest well-known model that would fit."""
    least = memory_of(scene, count_steps(scene, RowPlan(1, recompute=True)))
    reason = (
        f"even one pair at a time, recomputed, takes {_gb(least.total)} of the {_gb(scene.room)} that a run may fill "
        f"here; the weights alone are {_gb(least.weights)}."
    )
    shapes = {name: read_shape(config, name) for name, config in KNOWN.items()}
    for name, shape in sorted(shapes.items(), key=lambda known: -known[1].parameters):
        other = replace(scene, shape=shape, adapter=adapter_shape(shape, scene.adapter.r, "all"))
        if shape.parameters < scene.shape.parameters and (best := largest_that_fits(other)) is not None:
            yield Advice("model", name, f"--model {name}", f"{reason} {name} fits with {_gb(best[1].total)}.")
            return
    yield Advice("device", "one with more memory", "", f"{reason} No well-known model fits either.")


def _recompute(steps: Steps, memory: Footprint, best: tuple[Steps, Footprint]) -> Advice:
    name = "gradient_checkpointing"
    if best[0].plan.recompute:
        return Advice(
            name,
            "true",
            "--set train.gradient_checkpointing=true",
            "activations do not fit otherwise: they are computed twice instead of kept, about a third slower.",
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
        return "the hardware multiplies it, several times faster than fp32, and it takes half the memory."
    if dtype == "fp16":
        return "this GPU has no bf16; it multiplies fp16 fast, and the loss is scaled so that gradients survive."
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
            "this is a long run: try it on the first 50 pairs before, or on a GPU, or with a smaller model or fewer "
            f"epochs.{_shorter(scene)}",
        )


def _shorter(scene: Scene) -> str:
    """Rows are not padded, so shorter pairs save time only where there are long ones."""
    pairs = scene.workload.train
    mean = sum(pair.tokens for pair in pairs) / len(pairs)
    if mean <= _LONG_PAIRS:
        return ""
    return f" Pairs have {mean:.0f} tokens on average: shorter answers, or --max-length 256 that cuts them, save time."


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
