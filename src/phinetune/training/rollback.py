"""That a run went back to an earlier checkpoint, on the disk before it goes on from there.

    checkpoints/rollback.json   {"format": 1, "sha256": "…", "progress": {"step": 6, "rollbacks": 1, …}}

Its progress is what `Progress.learn_from` takes over, and `step` where the run went back to. Checkpoints up to there
that have gone back less often are gone on from with it, later ones not at all; a checkpoint saved since then knows it
by itself. So a run that is killed after the file was renamed goes on as one that went back, before that as one
that did not yet.
"""

from __future__ import annotations

import hashlib
import json

from phinetune.run_folder import RunFolder, write_json
from phinetune.training.progress import Progress, from_json, to_json

_FORMAT = 1


def write_rollback(folder: RunFolder, rollback: Progress) -> None:
    """Raises RunError when the disk does not take it."""
    progress = to_json(rollback)
    write_json(folder.rollback_json, {"format": _FORMAT, "sha256": _checksum(progress), "progress": progress})


def read_rollback(folder: RunFolder) -> Progress | None:
    """What is noted; None where a run never went back. Raises ValueError or OSError when it is damaged."""
    if not folder.rollback_json.is_file():
        return None
    stored = json.loads(folder.rollback_json.read_text(encoding="utf-8"))
    if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
        raise ValueError("it is of another version of phinetune")
    if _checksum(stored.get("progress")) != stored.get("sha256"):
        raise ValueError("it is not as it was written")
    return from_json(stored["progress"])


def _checksum(progress: object) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()
