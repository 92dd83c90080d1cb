"""Ctrl-C and SIGTERM during training: the first finishes the step and saves, a second leaves at once."""

from __future__ import annotations

import signal
from types import FrameType

from phinetune.events import Event, Started


class Interrupt:
    """Watches a run's events: before training has started there is nothing to save, and Ctrl-C leaves at once.

    Pass `watch` every event, and `requested` as `stop_requested`.
    """

    def __init__(self) -> None:
        self._requested = False

    def requested(self) -> bool:
        return self._requested

    def watch(self, event: Event) -> None:
        if isinstance(event, Started):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._requested = True
        signal.signal(number, signal.default_int_handler)
