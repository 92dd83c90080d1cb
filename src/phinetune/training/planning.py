"""A run before it is run: pairs in tokens, a model's shape and a device go in; steps, memory, time and disk come out.

    lengths ─► rows of every step (the run's own order) ─► largest rows ─► Footprint
                                                        └► tokens of all steps ─► FLOP ─► seconds

Nothing is loaded. Rows, steps and validations are those that training takes: the same functions decide them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from phinetune.model.footprint import Computing, Footprint, Row, footprint
from phinetune.model.hardware import ITEMSIZE, SECONDS_A_LAYER, Device, Dtype, is_measured, peak, rate, step_flop
from phinetune.model.row_plan import RowPlan, bytes_of_a_row, choose_rows
from phinetune.model.shape import AdapterShape, ModelShape
from phinetune.settings import TrainSettings
from phinetune.tokens.order import StepOrder
from phinetune.training.schedule import SEARCH_HELD_OUT, SEARCH_TRIES, short_run
from phinetune.training.schedule import plan as plan_schedule

_LARGEST_ROWS = 6  # that are weighed exactly; the one with most tokens is not always the one that keeps most
# Shares of a device's memory that a run may fill. On a CPU the system and other programs want some, too.
ROOM_CPU, ROOM_GPU = 0.90, 0.95
_TOKENIZER_BYTES = 4_000_000
_VISUALS_BYTES = 1_000_000


@dataclass(frozen=True)
class PairTokens:
    """One pair: all its tokens, and those of them that are the answer."""

    tokens: int
    answer: int


@dataclass(frozen=True)
class Workload:
    """What the run learns from and is measured on, as cut to max_length. `is_exact`: counted, not estimated.

    `filled`: pairs whose question leaves no room for an answer, which training refuses.
    """

    train: tuple[PairTokens, ...]
    validation: tuple[PairTokens, ...]
    cut: int
    longest_uncut: int
    is_exact: bool
    filled: int = 0


@dataclass(frozen=True)
class Scene:
    """Everything that a plan follows from."""

    shape: ModelShape
    adapter: AdapterShape
    workload: Workload
    settings: TrainSettings
    device: Device
    dtype: Dtype

    @property
    def room(self) -> int:
        """Bytes that the run may take of the device."""
        return int(self.device.memory * (ROOM_CPU if self.device.kind == "cpu" else ROOM_GPU))


@dataclass(frozen=True)
class Steps:
    """How the run goes through the pairs. `rows`: the largest ones of all `passes`, which have `row_lengths` different
    numbers of tokens. Tokens are those of all steps."""

    total: int
    per_epoch: int
    validations: int
    plan: RowPlan
    rows: tuple[Row, ...]
    row_lengths: int
    passes: int
    tokens: int
    answer_tokens: int

    @property
    def largest_row(self) -> int:
        return max(row.tokens for row in self.rows)


@dataclass(frozen=True)
class Time:
    """Seconds of the training steps, of the validations and of the search for a learning rate; None where no rate is
    known. `basis` says what it is.
    """

    training: float | None
    validation: float | None
    search: float | None
    tokens_per_s: float | None
    basis: str

    @property
    def total(self) -> float | None:
        if self.training is None or self.validation is None or self.search is None:
            return None
        return self.training + self.validation + self.search


def rows_of(scene: Scene) -> RowPlan:
    """What `model.memory.plan_rows` decides in the run itself."""
    settings, shape = scene.settings, scene.shape
    if settings.gradient_checkpointing != "auto":
        return RowPlan(settings.batch_size, recompute=settings.gradient_checkpointing)
    itemsize = ITEMSIZE[scene.dtype]

    def needs(tokens: int) -> int:
        return bytes_of_a_row(
            tokens, hidden=shape.hidden, layers=shape.layers, vocabulary=shape.vocabulary, itemsize=itemsize
        )

    lengths = [pair.tokens for pair in (*scene.workload.train, *scene.workload.validation)]
    room = scene.device.memory - shape.parameters * itemsize - scene.adapter.parameters * 4
    return choose_rows(lengths, settings.batch_size, settings.examples_per_step, room, needs)


def count_steps(scene: Scene, plan: RowPlan) -> Steps:
    """Walk through all steps of the run in its own order, and note the largest rows."""
    pairs, settings = scene.workload.train, scene.settings
    order = StepOrder(len(pairs), settings.examples_per_step, settings.seed)
    schedule = plan_schedule(settings, order.steps_per_epoch)
    rows: dict[Row, None] = {}
    lengths: set[int] = set()
    passes = tokens = answer_tokens = 0
    for epoch in range(math.ceil(schedule.total_steps / order.steps_per_epoch)):
        left = schedule.total_steps - epoch * order.steps_per_epoch
        for indices in order.epoch(epoch)[:left]:
            for start in range(0, len(indices), plan.pairs_per_row):
                members = [pairs[index] for index in indices[start : start + plan.pairs_per_row]]
                row = Row(tuple(sorted(pair.tokens for pair in members)), sum(pair.answer for pair in members))
                passes += 1
                tokens += row.tokens
                answer_tokens += row.answer_tokens
                rows[row] = None
                lengths.add(row.tokens)
        rows = dict.fromkeys(_largest(list(rows)))
    validations = 0
    if scene.workload.validation:
        validations = 1 + sum(schedule.validates_at(step) for step in range(1, schedule.total_steps + 1))
    return Steps(
        total=schedule.total_steps,
        per_epoch=schedule.steps_per_epoch,
        validations=validations,
        plan=plan,
        rows=tuple(rows),
        row_lengths=len(lengths),
        passes=passes,
        tokens=tokens,
        answer_tokens=answer_tokens,
    )


def _largest(rows: Sequence[Row]) -> list[Row]:
    by: Sequence[Callable[[Row], int]] = (lambda row: row.tokens, lambda row: sum(n * n for n in row.lengths))
    return [row for key in by for row in sorted(rows, key=key, reverse=True)[:_LARGEST_ROWS]]


def memory_of(scene: Scene, steps: Steps) -> Footprint:
    longest = max((*scene.workload.train, *scene.workload.validation), key=lambda pair: pair.tokens)
    computing = Computing(
        itemsize=ITEMSIZE[scene.dtype],
        on_gpu=scene.device.kind != "cpu",
        attention=scene.device.attention(scene.dtype),
        recompute=steps.plan.recompute,
    )
    alone = Row((longest.tokens,), longest.answer)
    return footprint(scene.shape, scene.adapter, steps.rows, alone, computing, steps.row_lengths)


def time_of(scene: Scene, steps: Steps, measured_tokens_per_s: float | None = None) -> Time:
    """The time of the run; loading and downloading the model are not in it.

    `measured_tokens_per_s` are of real steps of this run on this machine, and take the table's place.
    """
    flop = step_flop(scene.shape, scene.adapter, steps.tokens, steps.answer_tokens, recompute=steps.plan.recompute)
    if measured_tokens_per_s is not None:
        training: float | None = steps.tokens / measured_tokens_per_s
        basis = "measured here on steps of this run"
    else:
        flop_per_s = rate(scene.device, scene.shape, scene.dtype)
        training = None if flop_per_s is None else flop / flop_per_s
        if training is not None and scene.device.kind == "cuda":
            training = max(training, steps.passes * scene.shape.layers * SECONDS_A_LAYER)
        basis = _basis(scene)
    if training is None:
        return Time(None, None, None, None, "no rate is known for this device; --measure finds it")
    held_out = sum(pair.tokens for pair in scene.workload.validation)
    once = training / steps.tokens * held_out / (3 if steps.plan.recompute else 2)  # forth alone
    search = _search(scene, training, once) if scene.settings.learning_rate == "auto" else 0.0
    return Time(training, steps.validations * once, search, steps.tokens / training, basis)


def _search(scene: Scene, training: float, validation: float) -> float:
    """Seconds of --lr auto with all its tries."""
    work, whole = scene.workload, scene.settings.epochs
    pairs, epochs = short_run(len(work.train), whole)
    judged = min(1, SEARCH_HELD_OUT / max(1, len(work.validation)))
    a_run = training * pairs * epochs / (len(work.train) * whole) + math.ceil(epochs) * validation * judged
    return SEARCH_TRIES * a_run


def _basis(scene: Scene) -> str:
    device = scene.device
    if device.peak is not None:
        return (
            f"an estimate, not measured: {device.utilisation:.0%} of the {peak(device, scene.dtype) / 1e12:.0f} "
            f"TFLOP/s in {scene.dtype} that {device.name} reaches at most; it may be off by a factor of two"
        )
    if not is_measured(device, scene.dtype):
        return "an estimate: this CPU imitates bf16, a hundred times slower than it computes fp32"
    runs = "by runs measured on two cores"
    return runs if device.cores == 2 else f"{runs}, stretched to {device.cores}: an estimate"


def disk_of(scene: Scene, download_bytes: int) -> dict[str, int]:
    """Bytes that come onto the disk: the model if it is not here yet, checkpoints, the tuned model, pictures.

    A checkpoint is the adapter and AdamW's two moments, all in fp32; kept are the latest ones and the best.
    """
    adapter = scene.adapter.parameters * 4
    formats = 2 if scene.settings.adapter_format == "bin" else 1
    return {
        "download": download_bytes,
        "checkpoints": (scene.settings.keep_checkpoints + 1) * 3 * adapter,
        "tuned model": formats * adapter + _TOKENIZER_BYTES,
        "pictures": _VISUALS_BYTES,
    }


def largest_that_fits(scene: Scene) -> tuple[Steps, Footprint] | None:
    """The most pairs a row that fit, kept rather than recomputed where there is a choice; None where nothing does."""
    per_step = scene.settings.examples_per_step
    sizes = [size for size in range(per_step, 0, -1) if per_step % size == 0]
    for recompute in (False, True):
        for size in sizes:
            steps = count_steps(scene, RowPlan(size, recompute))
            memory = memory_of(scene, steps)
            if memory.total <= scene.room:
                return steps, memory
    return None


def with_dtype(scene: Scene, dtype: Dtype) -> Scene:
    return replace(scene, dtype=dtype)
