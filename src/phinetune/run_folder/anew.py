"""A new run in a folder that held another: nothing of the earlier one may stay beside the new one's files."""

from __future__ import annotations

from contextlib import suppress

from phinetune.errors import RunError
from phinetune.run_folder.atomic import discard, remove_leftovers
from phinetune.run_folder.paths import RunFolder


def begin_anew(folder: RunFolder) -> bool:
    """Put an earlier model aside and remove the earlier checkpoints and figures; whether there was a model.

    The model goes first: whenever this is broken off, no model is left that could be taken for that of the checkpoints
    beside it. Raises RunError when something cannot be moved or removed.
    """
    had_model = folder.is_finished
    try:
        if had_model:
            if folder.model_before.exists():
                discard(folder.model_before)
            folder.model.replace(folder.model_before)
        remove_leftovers(folder.checkpoints)
        for step in folder.checkpoint_steps():
            discard(folder.checkpoint(step))
        for file in (folder.pairs, folder.rollback_json, *folder.figures):
            file.unlink(missing_ok=True)
        if folder.checkpoint_steps():
            raise OSError(f"the checkpoints in {folder.checkpoints} cannot be removed")
    except OSError as error:
        if had_model and not folder.model.exists():
            with suppress(OSError):
                folder.model_before.replace(folder.model)
        raise RunError(
            f"What is in {folder.root.resolve()} cannot be replaced: {error.strerror or error}.",
            "Choose another folder with --out.",
        ) from error
    return had_model
