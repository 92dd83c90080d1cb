"""Ctrl-C and SIGTERM during training: the first finishes the step and saves, a second leaves at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from phinetune.events import Event, Finished, Started


class Interrupt:
    """Watches a run's events: before training has started there is nothing to save, and Ctrl-C leaves at once.

    Pass `watch` every event, and `requested` as `stop_requested`. `say` shows a message.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self._requested = False
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        return self._requested

    def watch(self, event: Event) -> None:
        if isinstance(event, Started):
            self._before = {n: signal.signal(n, self._handle) for n in (signal.SIGINT, signal.SIGTERM)}
        elif isinstance(event, Finished):
            self.__exit__()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._requested = True
        signal.signal(number, signal.default_int_handler)
        self._say("Finishing this step, then saving. Ctrl-C again leaves at once, without saving.")
