"""How much goes through the model at once, and less of it when memory runs out.

    training     16 pairs a row ─► 8 ─► 4 ─► 2 ─► 1 ─► 1, recomputing ─► DoesNotFitError with the GB that it takes
                 each as recorded graphs, where a GPU has them, ─► without
    validation   2048 tokens a row ─► 1024 ─► … ─► one pair a row ─► DoesNotFitError
    copies       once more without gradients and caches ─► DoesNotFitError: see there what is done without

A checkpoint that is written beside the training (saving.py) is tried once: the next one comes.

A step that did not fit is done again from its start, with the same dropout seed and no gradient left of the first try.
It stays the same step: the same pairs, every answer token weighing the same. Its gradient differs by the rounding of
another order of sums, and where the adapter has dropout, by which numbers are dropped: those are drawn row by row.
From there on the run is, bit for bit, the one that takes the smaller rows by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from peft import PeftModel

from phinetune.errors import DoesNotFitError, ModelError, SettingsError
from phinetune.events import Warned
from phinetune.model import lora
from phinetune.model.attend import attention_kind
from phinetune.model.device import total_memory_bytes
from phinetune.model.footprint import Computing, Row, step_footprint
from phinetune.model.graphs import GraphedRows
from phinetune.model.out_of_memory import is_out_of_memory, release_memory
from phinetune.model.rows import RowLoss
from phinetune.model.shape import adapter_shape, read_shape
from phinetune.tokens.encode import Example
from phinetune.training.progress import Progress
from phinetune.training.step import drop_gradients

VALIDATION_ROW = 2048  # tokens; enough to fill the device, little enough to fit where a training step fits

Result = TypeVar("Result")
Tried = Generator[Warned, None, Result]


class Room:
    """What fits, as far as the run has learned; kept in its progress, so that a resume need not learn it again."""

    def __init__(
        self,
        model: PeftModel,
        train: Sequence[Example],
        held_out: Sequence[Example],
        progress: Progress,
        pairs_per_row: int,
    ) -> None:
        self._model = model
        self._longest = max((*train, *held_out), key=lambda example: len(example.ids))
        self._held_out_tokens = sum(len(example.ids) for example in held_out)
        self._progress = progress
        self._planned = pairs_per_row
        self._graphs: GraphedRows | None = None
        self._gave_up_graphs = False  # when memory last ran out
        if progress.recompute:
            self._recompute()

    def watch(self, row_loss: RowLoss) -> None:
        """Know the graphs that rows go by, if they do: what these hold can be given back."""
        if isinstance(row_loss, GraphedRows):
            self._graphs = row_loss
            row_loss.records = not self._progress.without_graphs

    @property
    def pairs_per_row(self) -> int:
        return min(self._planned, self._progress.pairs_per_row or self._planned)

    @property
    def validation_row(self) -> int:
        return self._progress.validation_row or VALIDATION_ROW

    def for_step(self, step: int, compute: Callable[[int], Result]) -> Tried[Result]:
        """`compute(pairs a row)`, with fewer of them until it fits. Raises DoesNotFitError when nothing does."""
        while (done := self._try(lambda: compute(self.pairs_per_row))) is None:
            pairs = self.pairs_per_row
            if self._gave_up_graphs:
                self._record(False)
                how = "without a shortcut for short rows that takes memory of its own"
            elif pairs > 1:
                self._progress.pairs_per_row = pairs // 2
                self._record(True)
                how = f"with {_pairs(pairs // 2)} at a time instead of {pairs}"
            elif not self._progress.recompute:
                self._recompute()
                how = "with intermediate results computed twice instead of kept"
            else:
                raise does_not_fit(self._model, self._longest)
            yield self._say(
                "out_of_memory",
                f"Step {step} did not fit in memory. It is done again {how}, and so are the steps after it: "
                "slower, with the same result up to rounding.",
            )
        return done[0]

    def for_validation(self, compute: Callable[[int], Result]) -> Tried[Result]:
        """`compute(tokens a row)`, with fewer of them until it fits. Raises DoesNotFitError when nothing does."""
        while (done := self._try(lambda: compute(self.validation_row))) is None:
            if self._gave_up_graphs:
                continue
            if self.validation_row <= len(self._longest.ids):  # every long pair is a row of its own already
                raise does_not_fit(self._model, self._longest)
            self._progress.validation_row = min(self.validation_row, self._held_out_tokens) // 2
            yield self._say(
                "out_of_memory_validation",
                "Measuring the held-out pairs did not fit in memory. It is done again in rows of "
                f"{self.validation_row} tokens; the loss is the same up to rounding.",
            )
        return done[0]

    def for_copy(self, what: str, copy: Callable[[], Result]) -> Result:
        """`copy()`, and once more without gradients where it did not fit. Raises DoesNotFitError, which says `what`
        there was no memory for, when that does not either.
        """
        for _ in range(2):
            if (done := self._try(copy)) is not None:
                return done[0]
        raise DoesNotFitError(f"There was no memory left to {what}.", "Close other programs that use it.")

    def _say(self, code: str, message: str) -> Warned:
        said = Warned(code, message)
        self._progress.history.append(said)
        return said

    def _try(self, compute: Callable[[], Result]) -> tuple[Result] | None:
        """What it gives, or None when memory ran out; then the try is undone, and what it held is given back."""
        try:
            return (compute(),)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Only here is the error gone, and with it the traceback that holds the tensors of the failed try.
        drop_gradients([parameter for _, parameter in lora.trainable(self._model)])
        self._gave_up_graphs = self._graphs is not None and self._graphs.give_up()
        release_memory()
        return None

    def _record(self, records: bool) -> None:
        if self._graphs is not None:
            self._graphs.records = records
            self._progress.without_graphs = not records

    def _recompute(self) -> None:
        self._progress.recompute = True
        self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def does_not_fit(model: PeftModel, longest: Example) -> DoesNotFitError:
    device = next(model.parameters()).device
    needs = needed_bytes(model, longest)
    amount = f"needs about {needs / 1e9:.1f} GB" if needs else "is too much"
    tokens = len(longest.ids)
    return DoesNotFitError(
        f"The run does not fit in the memory of this device: even one pair at a time, the longest having {tokens} "
        f"tokens, {amount}, of {total_memory_bytes(device) / 1e9:.1f} GB that it has for everything.",
        "Close other programs that use it and try again; or begin in another folder (--out) with "
        f"--max-length {max(8, tokens // 2)}, a smaller --model, or --device cpu if this is a GPU. "
        "`phinetune plan` says beforehand what fits.",
    )


def needed_bytes(model: PeftModel, longest: Example) -> int | None:
    """The least that training takes: the longest pair alone, recomputing; None for a model that is not counted."""
    base, config = model.get_base_model(), model.peft_config["default"]
    device = next(model.parameters()).device
    try:
        shape = read_shape(base.config.to_dict(), "the model")
        adapter = adapter_shape(shape, config.r, sorted(config.target_modules))
    except (ModelError, SettingsError):
        return None
    attention = attention_kind(device, base.dtype, shape.head_dim)
    computing = Computing(base.dtype.itemsize, device.type != "cpu", attention, recompute=True)
    row = Row((len(longest.ids),), longest.answer_tokens)
    return step_footprint(shape, adapter, row, computing).total


def _pairs(count: int) -> str:
    return f"{count} pair{'s' * (count != 1)}"
