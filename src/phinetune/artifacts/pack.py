"""A finished run -> one zip file to download or hand on.

faq.zip   model/              adapter, tokenizer, model card
          training_visuals/   pictures and figures
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from phinetune.run_folder import RunFolder, atomic_file, open_finished, require_own

_WEIGHTS = {".safetensors", ".bin", ".gguf"}  # do not get smaller, so no time is spent on trying


def pack(folder: RunFolder, to: Path) -> Path:
    """Write `model/` and `training_visuals/` of a finished run to the zip file `to`, replacing it if it exists.

    Hidden files (what a killed process left, what a desktop strews), checkpoints, and what quotes the sheet stay out.
    The same files make the same bytes. Raises RunError when the run is not finished or one of its files is a link to
    somewhere else.
    """
    run = open_finished(folder.root)
    left_out = {file.resolve() for file in (to, *run.tells_of_the_sheet)}
    members = [
        file for top in (run.model, run.visuals) for file in _files(top, run.root) if file.resolve() not in left_out
    ]
    with atomic_file(to) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for file in members:
            # The fixed date is the earliest a zip can hold, and what ZipInfo takes when none is given.
            entry = zipfile.ZipInfo(file.relative_to(run.root).as_posix())
            entry.external_attr = 0o644 << 16
            entry.file_size = file.stat().st_size
            entry.compress_type = zipfile.ZIP_STORED if file.suffix in _WEIGHTS else zipfile.ZIP_DEFLATED
            with file.open("rb") as source, archive.open(entry, "w") as target:
                while block := source.read(1 << 20):
                    target.write(block)
    return to


def _files(top: Path, root: Path) -> Iterator[Path]:
    """The files below `top` in order of their names, without hidden ones and what lies in hidden folders."""
    require_own(top, root)
    for place, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            require_own(Path(place, name), root)
        for name in sorted(files):
            file = Path(place, name)
            if name.startswith("."):
                continue
            require_own(file, root)
            if file.is_file():  # a pipe or a socket is nothing to pack
                yield file
