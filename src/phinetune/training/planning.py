"""A run before it is run: pairs in tokens, a model's shape and a device go in; steps, memory and disk come out.

    lengths ─► rows of every step (the run's own order) ─► largest rows ─► Footprint
                                                        └► tokens of all steps ─► planned_time.py

Nothing is loaded. Rows, steps and validations are those that training takes: the same functions decide them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from phinetune.model.footprint import Computing, Footprint, Row, footprint
from phinetune.model.graph_sizes import Size, may_record, size_of
from phinetune.model.hardware import ITEMSIZE, Device, Dtype
from phinetune.model.row_plan import RowPlan, bytes_of_a_row, choose_rows
from phinetune.model.shape import AdapterShape, ModelShape
from phinetune.settings import TrainSettings
from phinetune.tokens.order import StepOrder
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
    numbers of tokens. Tokens are those of all steps. `saves`: checkpoints at most, as every validated step may be the
    best; `graphs`: sizes of rows that are recorded on a GPU."""

    total: int
    per_epoch: int
    validations: int
    saves: int
    plan: RowPlan
    rows: tuple[Row, ...]
    row_lengths: int
    passes: int
    tokens: int
    answer_tokens: int
    graphs: tuple[Size, ...]

    @property
    def largest_row(self) -> int:
        return max(row.tokens for row in self.rows)


def rows_of(scene: Scene) -> RowPlan:
    """What `model.memory.plan_rows` decides in the run itself."""
    settings = scene.settings
    if settings.gradient_checkpointing != "auto":
        return RowPlan(settings.batch_size, recompute=settings.gradient_checkpointing)
    lengths = [pair.tokens for pair in (*scene.workload.train, *scene.workload.validation)]
    weights = scene.shape.parameters * ITEMSIZE[scene.dtype]
    room = scene.device.memory - weights - scene.adapter.parameters * 4
    return choose_rows(
        lengths, settings.batch_size, settings.examples_per_step, room, lambda tokens: _kept_for(scene, tokens)
    )


def count_steps(scene: Scene, plan: RowPlan) -> Steps:
    """Walk through all steps of the run in its own order, and note the largest rows."""
    pairs, settings = scene.workload.train, scene.settings
    order = StepOrder(len(pairs), settings.examples_per_step, settings.seed)
    schedule = plan_schedule(settings, order.steps_per_epoch)
    rows: dict[Row, None] = {}
    lengths: set[int] = set()
    sizes: dict[Size, None] = {}
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
                sizes[size_of(row.lengths, row.answer_tokens, is_training=True)] = None
        rows = dict.fromkeys(_largest(list(rows)))
    every_step = range(1, schedule.total_steps + 1)
    validated = [step for step in every_step if scene.workload.validation and schedule.validates_at(step)]
    return Steps(
        total=schedule.total_steps,
        per_epoch=schedule.steps_per_epoch,
        validations=1 + len(validated) if validated else 0,
        saves=len({*validated, *filter(schedule.saves_at, every_step)}),
        plan=plan,
        rows=tuple(rows),
        row_lengths=len(lengths),
        passes=passes,
        tokens=tokens,
        answer_tokens=answer_tokens,
        graphs=tuple(size for size in sizes if _records(scene, size, plan)),
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


def held_by_graphs(scene: Scene, steps: Steps) -> int:
    """Bytes of a GPU that recorded graphs keep for the next of their rows, beside what the run needs at its peak.

    They are the run's own, and no other program gets them until it ends: what their largest row keeps for its way back,
    however many there are. Phi-2 on an H200 held 3.6 GB after 9 graphs of rows of 549 tokens and 4.3 after 19, by this
    rule 3.4; 15 after 10 and after 16 of 4,245, by this rule 17 (benchmarks/results.md).
    """
    return max((_kept_for(scene, size.tokens) for size in steps.graphs), default=0)


def _records(scene: Scene, size: Size, plan: RowPlan) -> bool:
    """Whether the run records a graph of this size; `model.graphs.GraphedRows` decides in the same way."""
    if scene.device.kind != "cuda" or scene.device.attention(scene.dtype) != "flash":
        return False
    room = scene.device.memory - scene.shape.parameters * ITEMSIZE[scene.dtype]
    return may_record(size.tokens, _kept_for(scene, size.tokens), room, recompute=plan.recompute)


def _kept_for(scene: Scene, tokens: int) -> int:
    shape = scene.shape
    return bytes_of_a_row(
        tokens,
        hidden=shape.hidden,
        layers=shape.layers,
        vocabulary=shape.vocabulary,
        itemsize=ITEMSIZE[scene.dtype],
    )


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
