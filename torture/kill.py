"""Kill a training run at every kind of instant, go on with --resume, and compare with a run that nobody killed.

    python torture/kill.py            150 runs or so on a toy model, some minutes on one core
    python torture/kill.py --short    a few of each kind
    python torture/kill.py --full     the embedded SmolLM2-135M, fewer instants

A run survives when its adapter, its figures without the measured seconds, its pictures and its checkpoints have the
same bytes as those of the undisturbed run, every step stands once in the table, and nothing half-written is left.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from _row import Row, parser, report, row_of
from _toy import differences, make_base, make_sheet, what_counts
from _wound import run, warm_up
from pictures import Pictures, drawn_once

KILLED = -signal.SIGKILL
ADAPTER = "adapter_model.safetensors"
IN_SHORT = {
    ("step", "between"),
    ("torn", "checkpoint"),
    ("replace", "model"),
}
OLD_SEED, NEW_SEED = 7, 42
BAD_STEPS = (1, 2, 3, 6, 11, 12, 13, 16)  # with a checkpoint after 3, 5, 6 and so on: back to the beginning, and to 10


@dataclass(frozen=True)
class Course:
    """One training that is to be hurt: its command, and where everything lies."""

    folder: Path
    command: tuple[str, ...]
    log: Path
    bad_steps: tuple[int, ...] = ()
    drawn: Pictures | None = None

    def train(self, out: Path, *flags: str, wound: str | None = None, trace: Path | None = None) -> int:
        code = run([*self.command, "--out", str(out), *flags], self.log, wound, trace, bad_steps=self.bad_steps)
        if code == 0 and wound is None and self.drawn is not None:
            self.drawn.remember(out)
        return code

    def said(self) -> str:
        """The end of what the last runs printed, for a failure."""
        return " / ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:])[-400:]


def main() -> int:
    options = parser("Kill a training run everywhere and go on with it.")
    options.add_argument("--seed", type=int, default=0, help="of the choice of instants")
    chosen = options.parse_args()
    pick = random.Random(chosen.seed)
    warm_up()
    drawn = drawn_once() if chosen.short else None  # two thirds of a run on the toy; at length, every run draws its own
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        course = _course(folder, drawn, full=chosen.full)
        trace = folder / "trace.json"
        if course.train(folder / "whole", trace=trace) != 0:
            print(course.said(), file=sys.stderr)
            return 1
        expected = what_counts(folder / "whole")
        points = json.loads(trace.read_text())
        few = chosen.short or chosen.full
        rows = [
            _killed_once(
                course, expected, _choose(points, 1 if few else 6, pick, only=IN_SHORT if chosen.short else None)
            ),
            _killed_while_overwriting(course, expected, 1 if few else 20, pick),
            _vanished_machine(course, expected, 1 if few else 20, pick),
            _killed_around_going_back(course, 1 if few else 40, pick),
        ]
        if not chosen.short:
            rows.append(_killed_often(course, expected, points, 2 if chosen.full else 12, pick))
            rows.append(_killed_by_the_clock(course, expected, 2 if chosen.full else 12, pick))
    return report(rows, as_json=chosen.json)


def _course(folder: Path, drawn: Pictures | None, *, full: bool) -> Course:
    sheet = make_sheet(folder)
    model = "smollm2-135m" if full else make_base(folder)
    sizes = ("--epochs", "2" if full else "3", "--lr", "0.001" if full else "0.01", "--batch-size", "2")
    rhythm = ("--grad-accum", "2", "--set", "train.save_steps=3", "--set", "train.eval_steps=5")
    return Course(folder, ("train", str(sheet), "--model", model, *sizes, *rhythm), folder / "log.txt", drawn=drawn)


def _choose(
    points: list[tuple[str, str]], most: int, pick: random.Random, only: set[tuple[str, str]] | None = None
) -> list[tuple[str, str]]:
    """At most so many of every kind of point in every phase, or in `only` these, drawn at random."""
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for point, doing in points:
        kind = (point.partition(":")[0], doing)
        if only is None or kind in only:
            kinds.setdefault(kind, []).append((point, doing))
    return [each for members in kinds.values() for each in pick.sample(members, min(most, len(members)))]


def _killed_once(course: Course, expected: dict[str, str], wounds: list[tuple[str, str]]) -> Row:
    def attempts() -> Iterator[str]:
        for number, (point, doing) in enumerate(wounds):
            out = course.folder / f"once-{number}"
            code = course.train(out, wound=point)
            yield f"{point} ({doing}): " + _resumed_if_killed(course, expected, out, code)

    phases = len({doing for _, doing in wounds})
    return row_of(f"killed at one of {len(wounds)} points in {phases} phases, then --resume", attempts())


def _killed_often(
    course: Course, expected: dict[str, str], points: list[tuple[str, str]], times: int, pick: random.Random
) -> Row:
    """Killed, and killed again in each of three attempts to go on, however far they come."""

    def attempts() -> Iterator[str]:
        for number in range(times):
            out = course.folder / f"often-{number}"
            wounds = [pick.choice(points)[0] for _ in range(4)]
            for place, wound in enumerate(wounds):
                course.train(out, *(["--resume"] if place else []), wound=wound)
            yield f"{', '.join(wounds)}: " + _resumed(course, expected, out)

    return row_of("killed four times in a row, then --resume", attempts())


def _killed_by_the_clock(course: Course, expected: dict[str, str], times: int, pick: random.Random) -> Row:
    """The command itself in a process of its own, imports included, killed from outside."""
    command = [sys.executable, "-m", "phinetune", *course.command]

    def attempts() -> Iterator[str]:
        start = time.monotonic()
        with course.log.open("a") as log:
            subprocess.run([*command, "--out", str(course.folder / "timed")], stdout=log, stderr=log, check=True)
            whole = time.monotonic() - start
            for number in range(times):
                out, seconds = course.folder / f"clock-{number}", pick.uniform(0.02, 1.0) * whole
                process = subprocess.Popen([*command, "--out", str(out)], stdout=log, stderr=log)
                try:
                    process.wait(seconds)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                yield f"after {seconds:.2f} s: " + _resumed(course, expected, out)

    return row_of("killed by the clock in a process of its own, then --resume", attempts())


def _killed_while_overwriting(course: Course, expected: dict[str, str], times: int, pick: random.Random) -> Row:
    """--overwrite of a finished run with another seed: never the old model beside the new checkpoints."""
    old = course.folder / "old"
    course.train(old, "--seed", str(OLD_SEED))
    course.train(
        shutil.copytree(old, course.folder / "over"), "--overwrite", trace=(trace := course.folder / "over.json")
    )
    points = json.loads(trace.read_text())
    making_room = [point for point, doing in points if doing in ("making room", "pairs", "model")]

    def attempts() -> Iterator[str]:
        for number in range(times):
            point = pick.choice([point for point, _ in points] if number % 2 else making_room)
            out = course.folder / f"over-{number}"
            shutil.copytree(old, out)
            course.train(out, "--overwrite", wound=point)
            wrong = [mixed] if (mixed := _mixture(out, old, course.folder / "whole")) else []
            if course.train(out, "--resume") == 1:  # checkpoints of the old run are left: it says so and stops
                course.train(out, "--overwrite")
            yield f"{point}: " + "; ".join(wrong + differences(expected, out))
            shutil.rmtree(out)

    return row_of("killed while replacing another run with --overwrite", attempts())


def _killed_around_going_back(course: Course, times: int, pick: random.Random) -> Row:
    """A run that skips two steps and goes back twice, once to its beginning: every point of going back, and others."""
    bad = replace(course, bad_steps=BAD_STEPS)
    trace = bad.folder / "bad.json"
    bad.train(bad.folder / "bad", trace=trace)
    expected = what_counts(bad.folder / "bad")
    points = json.loads(trace.read_text())
    back = [point for point, doing in points if doing == "going back"]
    others = [point for point, doing in points if doing not in ("going back", "reading", "loading")]
    figures = json.loads((bad.folder / "bad" / "training_visuals" / "training_metrics.json").read_text())

    def attempts() -> Iterator[str]:
        said = {name: figures[name] for name in ("rollbacks", "skipped_steps")}
        yield "undisturbed: " + ("" if said == {"rollbacks": 2, "skipped_steps": 2} else f"{said}")
        for number in range(times):
            point = pick.choice(others if number % 2 else back)
            out = bad.folder / f"bad-{number}"
            code = bad.train(out, wound=point)
            yield f"{point}: " + _resumed_if_killed(bad, expected, out, code)

    return row_of("killed in a run that skips steps and goes back twice, then --resume", attempts())


def _vanished_machine(course: Course, expected: dict[str, str], times: int, pick: random.Random) -> Row:
    """Killed at some instant, and its folder is gone: on from the mirror alone."""
    mirror = course.folder / "mirror"
    trace = course.folder / "mirrored.json"
    course.train(course.folder / "mirrored", "--mirror", str(mirror), trace=trace)
    points = json.loads(trace.read_text())
    copying = [point for point, doing in points if doing in ("mirror", "restoring")]

    def attempts() -> Iterator[str]:
        yield "undisturbed, the run: " + "; ".join(differences(expected, course.folder / "mirrored"))
        yield "undisturbed, the mirror: " + "; ".join(_but_for_checkpoints(expected, mirror))
        for number in range(times):
            shutil.rmtree(mirror, ignore_errors=True)
            out = course.folder / f"gone-{number}"
            wound = pick.choice(copying if number % 2 else [point for point, _ in points])
            code = course.train(out, "--mirror", str(mirror), wound=wound)
            shutil.rmtree(out, ignore_errors=True)
            if code == 0:
                yield f"{wound}: "  # the thread took another turn and the point was not passed
                continue
            again = course.train(out, "--mirror", str(mirror), "--resume")
            wrong = _but_for_checkpoints(expected, out) + _but_for_checkpoints(expected, mirror)
            yield f"{wound}: " + "; ".join([*([f"exit {again}: {course.said()}"] if again else []), *wrong])

    return row_of("killed and its folder gone, then --resume from --mirror", attempts())


def _mixture(out: Path, old: Path, new: Path) -> str:
    """Whether the model and the checkpoints beside it are of two runs."""
    if not (adapter := out / "model" / ADAPTER).exists():
        return ""
    weights = adapter.read_bytes()
    whose = next((run for run in (old, new) if (run / "model" / ADAPTER).read_bytes() == weights), None)
    states = [json.loads(path.read_text())["run"] for path in out.glob("checkpoints/checkpoint-*/state.json")]
    if whose is None:
        return "the model is neither the old nor the new one"
    seeds = {state["train.seed"] for state in states}
    return (
        "" if seeds <= {OLD_SEED if whose == old else NEW_SEED} else "a model of one run beside checkpoints of another"
    )


def _but_for_checkpoints(expected: dict[str, str], root: Path) -> list[str]:
    """What is not as expected; a mirror, and a run that was fetched from it, have fewer checkpoints."""
    return [wrong for wrong in differences(expected, root) if not wrong.startswith("checkpoints/checkpoint-")]


def _resumed_if_killed(course: Course, expected: dict[str, str], out: Path, code: int) -> str:
    """As `_resumed`. On a GPU, where a thread writes checkpoints, a run may come to its end past the point."""
    if code == KILLED:
        return _resumed(course, expected, out)
    return "; ".join(differences(expected, out)) if code == 0 and torch.cuda.is_available() else f"not killed: {code}"


def _resumed(course: Course, expected: dict[str, str], out: Path) -> str:
    """Go on with a run until it ends by itself; "" when it then is as expected."""
    code = course.train(out, "--resume")
    wrong = differences(expected, out)
    shutil.rmtree(out, ignore_errors=True)
    return f"exit {code}: {course.said()}" if code else "; ".join(wrong)


if __name__ == "__main__":
    sys.exit(main())
