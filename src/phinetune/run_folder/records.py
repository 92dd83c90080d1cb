"""The records of a run are written by us and read by us; in between they lie in a folder that anybody may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phinetune.errors import PhinetuneError, RunError
from phinetune.run_folder.paths import RunFolder


@contextmanager
def damage_in_records(folder: RunFolder) -> Iterator[None]:
    """A value of another kind than a run writes, met in reading its records, as a RunError that names the folder."""
    for file in folder.figures:
        if file.exists() and not file.is_file():  # reading a pipe would never end
            raise RunError(f"{file} is no file.", "Remove it, or copy the folder again from where it was trained.")
    try:
        yield
    except PhinetuneError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunError(
            f"The records in {folder.visuals} are damaged: {type(error).__name__}, {str(error)[:200]}.",
            "Copy the folder again from where it was trained; the model itself is not touched.",
        ) from error
