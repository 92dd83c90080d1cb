"""A verified copy of a run in another folder, a mounted drive for one, made beside the training and not in its way.

    Saved ──► submit(step) ──► thread: checkpoint, and the best one ──► mirror/checkpoints/
    the end ─► finish()    ──► model, pictures, pairs               ──► mirror/model/ …

The mirror is a run folder like the other: it can be asked, and gone on from. When the drive is slower than the
training, the newest checkpoint waits and an older one that waited is dropped.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from phinetune.errors import RunError
from phinetune.events import Event, MirrorAwaited, Mirrored, Warned
from phinetune.run_folder import RunFolder, begin_anew, copy_file, copy_folder, discard, remove_leftovers
from phinetune.training.checkpoint import CHECKSUMS, best_step, damage

_STALLED = 300.0  # seconds without a block written, after which the end of a run waits no longer
_PATIENT = 1.0  # seconds of waiting before a person is told


class _DamagedAtHomeError(RunError):
    """A checkpoint that was whole when it was saved, and no longer is."""

    def __init__(self, step: int, wrong: str | None) -> None:
        super().__init__(f"checkpoint-{step} has been damaged since it was saved ({wrong})")


class Mirror:
    """Copies what is submitted, in a thread of its own. A copy that fails is said once, and the next one is tried.

    `anew`: what the mirror holds is of another run, and is replaced at the first copy.
    """

    def __init__(self, source: RunFolder, target: RunFolder, *, anew: bool) -> None:
        self._source, self._target, self._anew = source, target, anew
        self._changed = threading.Condition()
        self._waiting: tuple[int, bool] | None = None  # step, with the model
        self._closing = False
        self._left = False
        self._in_use: frozenset[int] = frozenset()
        self._news: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._said: set[str] = set()
        self._failure = ""
        self._last_write = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        # Waited for once at most, and not when a person wants to leave at once.
        if not self._closing and (kind is None or issubclass(kind, Exception)):
            self._close(lambda: None)
        with self._changed:  # the mirror is let go of next, and may be another run's: a copy under way is broken off
            self._waiting, self._closing, self._left = None, True, True
            self._changed.notify()
        self._thread.join(_PATIENT)

    def in_use(self) -> frozenset[int]:
        """Steps whose checkpoints are being read."""
        return self._in_use

    def idle(self) -> bool:
        """Whether everything that was submitted has been dealt with."""
        with self._changed:
            return self._waiting is None and not self._in_use

    def submit(self, step: int, *, with_model: bool = False) -> None:
        with self._changed:
            if self._waiting is not None and not with_model:
                self._say_once("mirror_slow", "is slower than the checkpoints come: only the newest are copied there")
            self._waiting = (step, with_model)
            self._changed.notify()

    def news(self) -> list[Event]:
        """What happened since the last call."""
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def finish(self, step: int, *, with_model: bool, on_event: Callable[[Event], None]) -> None:
        """Copy the last checkpoint, and with it the model and all else, and wait for it."""
        self.submit(step, with_model=with_model)
        self._close(lambda: on_event(MirrorAwaited(str(self._target.root))))
        if self._thread.is_alive():
            self._failure = "no answer from the drive"
        for event in self.news():
            on_event(event)
        if self._failure:
            on_event(
                Warned(
                    "mirror_incomplete",
                    f"The copy in {self._target.root} is not complete ({self._failure}). "
                    f"Everything is in {self._source.root.resolve()}.",
                )
            )

    def _close(self, tell: Callable[[], None]) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._last_write = time.monotonic()
        self._thread.join(_PATIENT)
        if self._thread.is_alive():
            tell()
        while self._thread.is_alive() and time.monotonic() - self._last_write < _STALLED:
            self._thread.join(0.2)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closing)
                if self._waiting is None:
                    return
                (step, with_model), self._waiting = self._waiting, None
                self._in_use = frozenset({step})
            try:
                if self._copy(step, with_model):
                    self._failure = ""
                    self._news.put(Mirrored(step, str(self._target.root), with_model))
                else:
                    self._failure = f"checkpoint-{step} was gone before its turn came"
            except Exception as error:  # also MemoryError: whatever it is, it ends neither the thread nor the run
                said = error.message if isinstance(error, RunError) else getattr(error, "strerror", None) or str(error)
                self._failure = (said or type(error).__name__).rstrip(".")
                self._say_once("mirror_failed", f"got no copy: {self._failure}. The next checkpoint is tried again")
            finally:
                self._in_use = frozenset()

    def _copy(self, step: int, with_model: bool) -> bool:
        """Whether it was copied: a checkpoint that a newer one has replaced meanwhile is not.

        A finished model is copied in any case: its last checkpoint may not have been saved.
        """
        self._go_on()
        self._target.root.mkdir(exist_ok=True)
        if self._anew:
            begin_anew(self._target)
            self._anew = False
        for place in (self._target.root, self._target.checkpoints, self._target.visuals):
            remove_leftovers(place)
        trouble: RunError | None = None
        try:
            if not self._copy_with_best(step) and not with_model:
                return False
        except _DamagedAtHomeError as error:
            if not with_model:
                raise
            self._say_once("mirror_without_checkpoint", f"has the model, and not its last checkpoint: {error.message}")
        except RunError as error:  # the drive may have room for the model all the same
            if not with_model:
                raise
            trouble = error
        files = [self._source.pairs]
        if with_model:
            copy_folder(self._source.model, self._target.model, self._wrote)
            if self._target.model_before.exists():
                discard(self._target.model_before)
            files += self._source.figures
        for file in files:
            if file.is_file():
                copy_file(file, self._target.root / file.relative_to(self._source.root), self._wrote)
        if trouble is not None:
            raise trouble
        return True

    def _copy_with_best(self, step: int) -> bool:
        """Let the mirror have this checkpoint and the best one, and no others. False when this one is gone."""
        if (best := best_step(self._source.checkpoint(step))) is None:
            if not self._source.checkpoint(step).is_dir():
                return False
            raise _DamagedAtHomeError(step, damage(self._source.checkpoint(step)))
        if best not in (0, step):
            try:
                self._copy_checkpoint(best)
            except _DamagedAtHomeError as error:
                self._say_once("mirror_without_best", f"gets no copy of the best checkpoint: {error.message}")
        if not self._copy_checkpoint(step):
            return False
        self._copy_rollback()
        for old in self._target.checkpoint_steps():
            if old not in (best, step):
                self._go_on()
                discard(self._target.checkpoint(old))
        return True

    def _copy_rollback(self) -> None:
        """Before a checkpoint that was gone back from is removed: without both, the mirror would not know of it."""
        if (note := self._source.rollback_json).is_file():
            copy_file(note, self._target.rollback_json, self._wrote)

    def _copy_checkpoint(self, step: int) -> bool:
        source, target = self._source.checkpoint(step), self._target.checkpoint(step)
        if _same(source, target) and damage(target) is None:
            return True
        if target.is_dir() and source.is_dir() and (wrong := damage(source)):
            raise _DamagedAtHomeError(step, wrong)  # what the mirror has may be the only one that is whole
        try:
            copy_folder(source, target, self._wrote)
        except RunError:
            if source.is_dir():
                raise
            return False
        if wrong := damage(target):  # and the copy is proven, so that it was damaged before
            discard(target)
            raise _DamagedAtHomeError(step, wrong)
        return True

    def _wrote(self, _bytes: int) -> None:
        self._go_on()
        self._last_write = time.monotonic()

    def _go_on(self) -> None:
        if self._left:
            raise RunError("The run was left.")

    def _say_once(self, code: str, what: str) -> None:
        if code not in self._said:
            self._said.add(code)
            self._news.put(Warned(code, f"The mirror {self._target.root} {what}."))


class NoMirror:
    """For a run without one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def in_use(self) -> frozenset[int]:
        return frozenset()

    def submit(self, step: int, *, with_model: bool = False) -> None:
        pass

    def news(self) -> list[Event]:
        return []

    def finish(self, step: int, *, with_model: bool, on_event: Callable[[Event], None]) -> None:
        pass


def restore(mirror: RunFolder, step: int, folder: RunFolder) -> None:
    """Copy a checkpoint of the mirror back, and the best one with it, which goes first: killed between the two, the
    older is there and the newer is fetched at the next start. That the run went back goes last. Raises RunError when
    the copy fails.
    """
    for each in sorted({best_step(mirror.checkpoint(step)) or step, step}):
        source = mirror.checkpoint(each)
        if damage(source) is None:
            copy_folder(source, folder.checkpoint(each))
    if mirror.rollback_json.is_file():
        copy_file(mirror.rollback_json, folder.rollback_json)


def _same(source: Path, copy: Path) -> bool:
    """Whether the copy is of this very checkpoint, and not of one that was made in its place later."""
    try:
        return (source / CHECKSUMS).read_bytes() == (copy / CHECKSUMS).read_bytes()
    except OSError:
        return False
