"""A run is a folder. `paths` is the only place that knows what lies where in it; `atomic` writes there, whole or not
at all; `copies` copies and proves the copy; `lock` keeps a second run out; `records` tells of what does not fit.
"""

from __future__ import annotations

from phinetune.run_folder.anew import begin_anew
from phinetune.run_folder.atomic import (
    atomic_file,
    atomic_folder,
    discard,
    remove_leftovers,
    together,
    write_bytes,
    write_json,
    write_text,
)
from phinetune.run_folder.copies import copy_file, copy_folder, sha256
from phinetune.run_folder.lock import InUseError, locked
from phinetune.run_folder.paths import RECIPE, RunFolder, find_model, open_finished, require_own
from phinetune.run_folder.records import damage_in_records

__all__ = [
    "RECIPE",
    "InUseError",
    "RunFolder",
    "atomic_file",
    "atomic_folder",
    "begin_anew",
    "copy_file",
    "copy_folder",
    "damage_in_records",
    "discard",
    "find_model",
    "locked",
    "open_finished",
    "remove_leftovers",
    "require_own",
    "sha256",
    "together",
    "write_bytes",
    "write_json",
    "write_text",
]
