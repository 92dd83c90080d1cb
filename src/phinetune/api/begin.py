"""How a run takes its folder: alone, without harm to what is there, and from the newest checkpoint that is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from phinetune.errors import RunError
from phinetune.events import Event, Restored, Warned
from phinetune.run_folder import InUseError, RunFolder, locked, remove_leftovers
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.mirror import Mirror, NoMirror, restore
from phinetune.training.same_run import AnotherRunError, other_machine

OnEvent = Callable[[Event], None]


@contextmanager
def claimed(
    folder: RunFolder, mirror: RunFolder | None, *, resume: bool, overwrite: bool, on_event: OnEvent
) -> Iterator[None]:
    """Hold the run folder, and the mirror, for this run alone.

    Raises RunError when another run holds one, something of the person's would be replaced, or there is no mirror.
    """
    with ExitStack() as held:
        if not held.enter_context(locked(folder)):
            on_event(
                Warned(
                    "no_lock",
                    f"The drive of {folder.root.resolve()} cannot lock files: see to it that no second run uses it.",
                )
            )
        with _reading(folder):
            _refuse_to_replace(folder, resume, overwrite)
        if mirror is not None:
            _claim_mirror(held, folder, mirror, resume, overwrite)
        for place in (folder.root, folder.checkpoints, folder.visuals):
            remove_leftovers(place)
        yield


def go_on_from(
    checkpoints: Checkpoints, mirror: RunFolder | None, overwrite: bool, on_event: OnEvent
) -> tuple[int | None, bool]:
    """The checkpoint to go on from, fetched from the mirror where that has a newer one, None to begin anew; and whether
    what the mirror holds is of another run, to be replaced.

    Raises RunError when all are damaged, or belong to a run that was started differently.
    """
    folder = checkpoints.folder
    step, wrong = checkpoints.newest_good()
    mirror_anew = False
    if step is not None:
        checkpoints.state(step)  # of this run, or an error, before anything is fetched to lie beside it
    if mirror is not None:
        step, mirror_anew = _fetch(checkpoints, mirror, step, overwrite, on_event)
    if step is None:
        _refuse_to_lose(folder, wrong, overwrite, "--out")
        on_event(Warned("no_checkpoint", "There is no checkpoint to go on from, so the run begins anew."))
        return None, True
    if damaged := {bad: how for bad, how in wrong.items() if bad > step}:
        listed = "; ".join(f"checkpoint-{bad} is damaged ({how})" for bad, how in damaged.items())
        on_event(Warned("damaged_checkpoint", f"{listed}; going on from checkpoint-{step} instead."))
    if damage := checkpoints.rollback_damage():
        note = checkpoints.folder.rollback_json
        said = f"{note}, which tells that the run went back to an earlier checkpoint at half the learning rate, cannot "
        on_event(Warned("damaged_rollback", f"{said}be used: {damage}. It goes on as if it had not."))
    if differs := other_machine(checkpoints.state(step).run, checkpoints.run):
        on_event(
            Warned(
                "other_machine",
                f"The run began where numbers are computed differently: {differs}. "
                "The result is the same up to rounding, not bit for bit.",
            )
        )
    return step, mirror_anew


def start_mirror(folder: RunFolder, mirror: RunFolder | None, *, anew: bool) -> Mirror | NoMirror:
    return NoMirror() if mirror is None else Mirror(folder, mirror, anew=anew)


def _refuse_to_replace(folder: RunFolder, resume: bool, overwrite: bool) -> None:
    """Make sure that nothing of the person's is in the way. Raises RunError when something is."""
    model = folder.model
    if model.exists() and not folder.is_finished and (not model.is_dir() or any(model.iterdir())):
        raise RunError(
            f"{model} is or holds something that is not a tuned model of ours; it would be replaced.",
            "Choose another folder with --out.",
        )
    if resume or overwrite:
        return
    if folder.is_finished:
        raise RunError(
            f"{folder.root.resolve()} already holds a tuned model.",
            "Choose another folder with --out, or replace it with --overwrite.",
        )
    if folder.checkpoint_steps():
        raise RunError(
            f"{folder.root.resolve()} holds the checkpoints of a run that did not finish.",
            "Go on with it: the same command and --resume. Or begin anew with --overwrite.",
        )


def _refuse_to_lose(folder: RunFolder, wrong: dict[int, str], overwrite: bool, option: str) -> None:
    """Raises RunError when a resume that finds nothing whole here would remove what is damaged, or replace a model."""
    if wrong:
        raise RunError(
            f"No checkpoint in {folder.checkpoints} can be gone on from:\n  "
            + "\n  ".join(f"checkpoint-{bad}: {how}" for bad, how in wrong.items()),
            "Begin anew with --overwrite and without --resume, which removes them.",
        )
    if folder.is_finished and not overwrite:
        raise RunError(
            f"{folder.root.resolve()} holds a tuned model and no checkpoint to go on from.",
            f"Choose another folder with {option}, or replace it: add --overwrite.",
        )


def _claim_mirror(held: ExitStack, folder: RunFolder, mirror: RunFolder, resume: bool, overwrite: bool) -> None:
    ours, theirs = folder.root.resolve(), mirror.root.resolve()
    if ours == theirs:
        raise RunError(
            f"--mirror and --out are the same folder, {theirs}.", "Name a folder on another disk with --mirror."
        )
    if _is_part_of(ours, theirs) or _is_part_of(theirs, ours):
        raise RunError(
            f"--mirror {theirs} and --out {ours} lie in one another, where one would replace the other.",
            "Name a folder on another disk with --mirror.",
        )
    if not _is_folder(theirs.parent):
        raise RunError(
            f"There is no folder {theirs.parent} to keep the mirror in.",
            "If it is on a drive that is mounted first, as Google Drive is in Colab, mount it and try again.",
        )
    try:
        held.enter_context(locked(mirror))
    except InUseError:
        raise
    except RunError:
        pass  # the first copy says what is wrong with the drive; the run itself does not need it
    # A drive that is silent now may hold somebody's model when it answers again: unasked, no run begins with it.
    with suppress(OSError) if resume or overwrite else _reading(mirror):
        _refuse_to_replace(mirror, resume, overwrite)


def _how_far(checkpoints: Checkpoints, step: int) -> tuple[int, int]:
    """A run that went back is further than before it did, whatever step it went back to."""
    return checkpoints.state(step).progress.rollbacks, step


def _fetch(
    checkpoints: Checkpoints, mirror: RunFolder, own: int | None, overwrite: bool, on_event: OnEvent
) -> tuple[int | None, bool]:
    """The step to go on from, which is `own` or that of a newer checkpoint, copied back from the mirror; and whether
    what the mirror holds is to be replaced.

    Raises RunError when the mirror is of another run, or has nothing whole and there is nothing else.
    """
    there = Checkpoints(mirror, checkpoints.run, checkpoints.keep)
    try:
        step, wrong = there.newest_good()
        if step is None:
            _refuse_to_lose(mirror, wrong if own is None else {}, overwrite, "--mirror")
            return own, mirror.is_finished
    except OSError as error:
        if own is None:
            raise _unreadable(mirror, error) from error
        return own, False
    try:
        there.state(step)
    except AnotherRunError as error:
        if own is None:
            raise
        if overwrite:  # asked for, and broken off before the first copy replaced what was there
            return own, True
        raise RunError(
            f"The mirror is not of this run. {error.message}",
            "Name another folder with --mirror, or replace what is in this one: --resume with --overwrite.",
        ) from error
    if own is not None and _how_far(checkpoints, own) >= _how_far(there, step):
        return own, False
    restore(mirror, step, checkpoints.folder)
    on_event(Restored(step, str(mirror.root)))
    return step, False


@contextmanager
def _reading(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: RunFolder, error: OSError) -> RunError:
    return RunError(
        f"{folder.root} cannot be read: {error.strerror or error}.",
        "If it is on a drive that is mounted first, mount it and try again. Or choose another folder.",
    )


def _is_part_of(path: Path, root: Path) -> bool:
    """Whether it lies in a folder that the run at `root` replaces as a whole, or clears."""
    run = RunFolder(root)
    return any(path.is_relative_to(place) for place in (run.model, run.model_before, run.checkpoints, run.visuals))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
