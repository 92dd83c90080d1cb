"""Checkpoints that are written while training goes on.

    on a GPU    step ─► copy in memory ─► next steps …
                                      └► thread: checkpoint-N, read back ─► saved, or not
    on a CPU    step ─► checkpoint-N, read back ─► saved, or not ─► next step

A checkpoint of Phi-2 takes 1.2 s to write and to prove: as long as 40 steps of a short run on an H200, whose processor
has time for it. On a CPU the cores that would write are those that train.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel

from phinetune.errors import DoesNotFitError, PhinetuneError, RunError
from phinetune.events import Saved
from phinetune.model.out_of_memory import is_out_of_memory
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.progress import Progress


def has_time_beside(device: torch.device) -> bool:
    """Whether the processor has time to write while the device trains."""
    return device.type == "cuda"


@dataclass
class Saver:
    """Saves one checkpoint at a time: `begin`, then `finish`."""

    checkpoints: Checkpoints
    beside: bool
    _saving: tuple[Saved, Future[Path]] | None = field(default=None, init=False)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"), init=False)

    def begin(self, saved: Saved, model: PeftModel, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Save the run as it is now; `saved` is what is to be told when it is done. No other may be on its way.

        Raises as Checkpoints.write, where it is written at once.
        """
        assert self._saving is None
        if self.beside:
            snapshot = self.checkpoints.snapshot(model, optimizer, progress, copy=True)
            done = self._pool.submit(self.checkpoints.write, model, snapshot)
        else:
            done = Future()
            done.set_result(self.checkpoints.save(model, optimizer, progress))
        self._saving = saved, done

    def finish(self, *, wait: bool) -> tuple[Saved, PhinetuneError | None] | None:
        """What was saved, or why it could not be. None where nothing is on its way, or, unless `wait`, not yet done."""
        if self._saving is None or not (wait or self._saving[1].done()):
            return None
        (saved, done), self._saving = self._saving, None
        try:
            done.result()
        except (RunError, DoesNotFitError) as error:
            return saved, error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            said = f"There was no memory left to save checkpoint-{saved.step}."
            return saved, DoesNotFitError(said, "Close other programs that use it.")
        return saved, None

    def close(self) -> None:
        """Wait for what is on its way, well or not."""
        self._pool.shutdown()
