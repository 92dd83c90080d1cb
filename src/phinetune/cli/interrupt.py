"""Ctrl-C and SIGTERM during `train`: the first finishes the step and saves, a second leaves at once.

loading the model      leaves at once, nothing is lost
training               finishes the step, saves, leaves; a second one leaves at once, without saving (on a GPU, when
                       the checkpoint that is on its way is written)
writing the results    leaves at once; the last checkpoint is there
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from phinetune.events import Event, Finished, MirrorAwaited, RolledBack, Saved, Started

_BEFORE = "Stopped before training began."
_DURING = "Stopped at once, without saving."
_AFTER = "Stopped before everything was written."
_COPYING = "Stopped before the mirror was complete."
_COPYING_DONE = "Stopped before the mirror was complete; the run itself is done."
_GO_ON = "The same command with --resume goes on from there."
# Ctrl-Break is what Windows sends to a group of processes; SIGTERM exists there, and nobody sends it.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))


class Interrupt:
    """Watches a run's events to know what an interruption would lose. Leaving at once is exit code 130.

    Pass `watch` every event, and `requested` as `stop_requested`. `say` shows a message.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self._requested = False
        self._may_finish = False
        self._state = _BEFORE
        self._saved_step = 0
        self._is_done = False
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # A shell starts background jobs with Ctrl-C ignored, and nohup means it too.
            if (before := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                self._before[number] = before
                signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            safe = f" checkpoint-{self._saved_step} is safe. {_GO_ON}" if self._saved_step else ""
            self._say(f"\n{self._state}{safe}")
            raise SystemExit(130)

    def requested(self) -> bool:
        return self._requested

    def watch(self, event: Event) -> None:
        match event:
            case Started(step=step):
                self._may_finish, self._state, self._saved_step = True, _DURING, step
            case Saved(step=step):
                self._saved_step = step
            case RolledBack(to_step=step):  # later checkpoints are removed
                self._saved_step = step
            case Finished(stopped=stopped):
                self._may_finish, self._state, self._is_done = False, _AFTER, stopped != "interrupted"
            case MirrorAwaited() if self._is_done:
                self._state, self._saved_step = _COPYING_DONE, 0
            case MirrorAwaited():
                self._state = _COPYING
            case _:
                pass

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._may_finish and not self._requested:
            self._requested = True
            with suppress(RuntimeError):  # the signal came in the middle of printing
                self._say("Finishing this step, then saving. Ctrl-C again leaves at once, without saving.")
            return
        signal.signal(number, signal.SIG_DFL)  # should leaving take its time, a third one does not
        raise KeyboardInterrupt
