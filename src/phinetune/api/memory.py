"""Memory refused outside a step, where nothing smaller can be tried: what a person is told.

reading the sheet                          ─► there was no memory to read it
loading the base, encoding, attaching      ─► how many GB the weights take, and what to change
training                                   ─► the newest good checkpoint, and --resume
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from phinetune.errors import DoesNotFitError, PhinetuneError
from phinetune.model.load import base_does_not_fit
from phinetune.model.out_of_memory import is_out_of_memory, release_memory
from phinetune.settings import Settings
from phinetune.training.checkpoint import Checkpoints


@contextmanager
def memory_told(tell: Callable[[], PhinetuneError]) -> Iterator[None]:
    """A refusal of memory inside becomes the error that `tell` makes, when what was held has been given back."""
    try:
        yield
    except PhinetuneError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    release_memory()
    raise tell()


@contextmanager
def safe_told(checkpoints: Checkpoints) -> Iterator[None]:
    """What has no memory inside says what is safe; it is not known where it is raised."""
    try:
        yield
    except DoesNotFitError as error:
        raise DoesNotFitError(error.message, f"{error.hint} {checkpoints.what_is_safe()}") from error


def no_memory_to_read(sheet: Path) -> DoesNotFitError:
    return DoesNotFitError(f"There was no memory to read {sheet.name}.", "Close other programs and try again.")


def no_memory_to_begin(
    settings: Settings, dtype: torch.dtype, device: torch.device, checkpoints: Checkpoints | None
) -> PhinetuneError:
    """`checkpoints` are those of the run that is gone on with, if one is."""
    told = base_does_not_fit(settings.model, dtype, device)
    if checkpoints is not None:
        told.hint += f" {checkpoints.what_is_safe()}"
    return told


def no_memory_to_go_on(settings: Settings, checkpoints: Checkpoints | None = None) -> DoesNotFitError:
    """`checkpoints` are those of this run, where what is safe is not told further out."""
    hint = "Close other programs that use it."
    if settings.train.batch_size > 1:
        same = settings.train.examples_per_step
        hint += f" --batch-size 1 --grad-accum {same} takes the same steps in less memory."
    if checkpoints is not None:
        hint += f" {checkpoints.what_is_safe()}"
    return DoesNotFitError("There was no memory left for the run to go on.", hint)
