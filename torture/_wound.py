"""A training run in a process of its own, and what happens to it: a wound, the point at which it kills itself; or a
fault, a kind of write that fails.

    step:4        when the 4th optimizer step begins
    replace:7     before the 7th rename; fsync:9 before the 9th flush
    torn:9        the same, with the file that is to be flushed cut in half, as a power cut leaves it

A run may have bad steps besides: they come out without numbers, as long as the run has not gone back for them.

Nothing of this is in the product: the wound is made in the child, by wrapping what it calls.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Functions of the product whose calls are points of their own: module, name, point.
PHASES = (
    ("phinetune.api.tuning", "read_sheet", "reading"),
    ("phinetune.api.tuning", "load_base", "loading"),
    ("phinetune.training.parts", "step_gradients", "step"),
    ("phinetune.training.parts", "validation_loss", "validation"),
)
# What is being done, told by the innermost function of these on the stack, by its qualified name.
DOING = {
    "read_sheet": "reading",
    "load_base": "loading",
    "begin_anew": "making room",
    "keep_pairs": "pairs",
    "Checkpoints._drop_old": "pruning",
    "Checkpoints.write": "checkpoint",
    "write_rollback": "going back",
    "Checkpoints.resume": "resuming",
    "Mirror._copy": "mirror",
    "restore": "restoring",
    "MetricsLog.write": "figures",
    "write_visuals": "visuals",
    "write_model": "model",
    "report_on": "report",
    "locked": "lock",
}


@dataclass(frozen=True)
class Fault:
    """Writing fails with this error number in this phase, at its second write, or from then on everywhere; `mark` is
    made when it does."""

    phase: str
    number: int
    forever: bool
    mark: Path


class Wound:
    """Counts what happens; kills at `point`, and otherwise leaves the list of all points in `trace`."""

    def __init__(
        self, point: str | None, trace: Path | None, fault: Fault | None = None, bad_steps: tuple[int, ...] = ()
    ) -> None:
        self._bad_steps = bad_steps
        self._fault, self._writes, self._failing = fault, 0, False
        kind, _, number = (point or "").partition(":")
        self._kind, self._number = kind, int(number or 0)
        self._seen: dict[str, int] = {}
        self._points: list[tuple[str, str]] = []
        self._trace = trace

    def install(self) -> None:
        for module, name, kind in PHASES:
            place = sys.modules[module]
            setattr(place, name, self._before(kind, getattr(place, name)))
        if self._bad_steps:
            _make_bad(self._bad_steps)
        os.replace = self._before("replace", os.replace)
        os.unlink = self._before("unlink", os.unlink)
        os.rmdir = self._before("rmdir", os.rmdir)
        fsync = os.fsync

        def torn(handle: int) -> None:
            self._pass("torn", lambda: _cut_in_half(handle))
            self._pass("fsync")
            fsync(handle)

        os.fsync = torn
        plain_open = io.open

        def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if set(mode) & set("wax+"):
                self._pass("open")
            return plain_open(file, mode, *rest, **named)

        io.open = builtins.open = opened

    def close(self) -> None:
        if self._trace is not None:
            self._trace.write_text(json.dumps(self._points))

    def _before(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            self._pass(kind)
            return function(*args, **named)

        return wrapped

    def _pass(self, kind: str, then: Callable[[], None] = lambda: None) -> None:
        if self._fault is not None and kind in ("replace", "fsync", "open"):
            self._fail(self._fault)
        self._seen[kind] = count = self._seen.get(kind, 0) + 1
        if self._trace is not None:
            self._points.append((f"{kind}:{count}", _doing()))
        if kind == self._kind and count == self._number:
            then()
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # a signal to oneself may arrive a moment later: go no further

    def _fail(self, fault: Fault) -> None:
        here = _doing() == fault.phase
        self._writes += here
        if self._failing or (here and self._writes == 2):
            self._failing = fault.forever
            os.close(os.open(fault.mark, os.O_CREAT))
            raise OSError(fault.number, os.strerror(fault.number))


def _make_bad(steps: tuple[int, ...]) -> None:
    """Let these steps be skipped. Three in a row lead back, and are sound when they are done again."""
    from phinetune.events import RolledBack, StepDone, StepSkipped
    from phinetune.training import parts

    real = parts.reason_to_skip

    def reason_to_skip(history: list[Any], train_loss: float, grad_norm: float) -> Any:
        step = 1 + next((event.step for event in reversed(history) if isinstance(event, StepDone | StepSkipped)), 0)
        went_back = any(isinstance(event, RolledBack) and event.to_step < step <= event.step for event in history)
        return "not_finite" if step in steps and not went_back else real(history, train_loss, grad_norm)

    parts.reason_to_skip = reason_to_skip


def _cut_in_half(handle: int) -> None:
    path = Path(f"/proc/self/fd/{handle}")
    if path.is_file():
        os.truncate(path, path.stat().st_size // 2)


def _doing() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        if (found := DOING.get(frame.f_code.co_qualname)) and "phinetune" in frame.f_code.co_filename:
            return found
        frame = frame.f_back
    return "between"


def run(
    arguments: list[str],
    log: Path,
    wound: str | None = None,
    trace: Path | None = None,
    fault: Fault | None = None,
    bad_steps: tuple[int, ...] = (),
) -> int:
    """`phinetune ARGUMENTS` in a forked child, which has everything imported already; its exit code, -9 when killed.

    `log` gets what it prints, `trace` the points it passed.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _child(arguments, log, Wound(wound, trace, fault, bad_steps))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _child(arguments: list[str], log: Path, wound: Wound) -> int:
    from phinetune.cli import main

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    try:
        wound.install()
        main(arguments)
    except SystemExit as left:
        return int(left.code or 0)
    except BaseException:  # of the torture itself, too: nothing else would show it
        traceback.print_exc()
        raise
    finally:
        wound.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def warm_up() -> None:
    """Import what a run needs, so that a child begins at once. Compute nothing: threads do not survive a fork."""
    import matplotlib.backends.backend_agg  # noqa: F401
    import peft  # noqa: F401
    import transformers.models.auto
    import transformers.models.llama.modeling_llama
    import transformers.models.phi.modeling_phi  # noqa: F401

    import phinetune.api.tuning
    import phinetune.cli.train  # noqa: F401
