"""The files that `verify` is given, looked at before anything is computed: what is each, and can it be asked?"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import gguf

from phinetune.api.ask import is_merged
from phinetune.api.merge import number_format
from phinetune.artifacts.quantize import kind_of_file
from phinetune.errors import RunError, neighbour
from phinetune.model.device import dtype_name
from phinetune.model.gguf_base import gguf_note
from phinetune.model.gguf_config import read_config
from phinetune.model.gguf_file import open_gguf
from phinetune.model.load import find, folder_config
from phinetune.run_folder import RECIPE, RunFolder
from phinetune.settings import EMBEDDED_MODEL

_WROTE = "Name what `phinetune merge` or `phinetune gguf` wrote."


@dataclass(frozen=True)
class NamedForm:
    """A merged folder, a .gguf file, or an adapter alone on the .gguf file `base`.

    `kind` is the packing of a .gguf file or the number format of a folder; of an adapter alone its base decides.
    """

    path: Path
    kind: str
    base: Path | None = None


def look_at(path: Path, base_model: str, base_file: Path | None) -> NamedForm:
    """What `path` is. `base_model` is that of the run, `base_file` the .gguf file that is named for adapters alone.

    Raises RunError for a path that holds nothing to compare and for an adapter alone without what it needs, ModelError
    for a file that is damaged or of a kind that is not read here. No weights are read and nothing is fetched.
    """
    _refuse_missing(path)
    if path.is_dir():
        return NamedForm(path, _number_format(path))
    if gguf_note(path, gguf.Keys.General.TYPE) != "adapter":
        read_config(open_gguf(path))
        return NamedForm(path, kind_of_file(path))
    if find_spec("xllamacpp") is None:
        raise RunError(
            f"{path} is an adapter alone, which only llama.cpp can ask, and that is not installed.",
            "Install it with: pip install 'phinetune[serve]'",
        )
    base = _base_of_adapter(path, base_model, base_file)
    return NamedForm(path, kind_of_file(base), base)


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        near = neighbour(path)
        raise RunError(f"There is no file or folder {path}.", f"Did you mean {near}?" if near else _WROTE)


def _number_format(folder: Path) -> str:
    if RunFolder(folder).is_finished or (folder / "adapter_config.json").is_file():
        raise RunError(
            f"{folder} is a run and not a merged folder.", "To hold two runs against each other, merge that one first."
        )
    if not (folder / RECIPE).is_file() or not is_merged(folder):
        raise RunError(f"{folder} holds no merged model.", _WROTE)
    folder_config(folder)
    return dtype_name(number_format(folder, "auto"))


def _base_of_adapter(path: Path, base_model: str, base_file: Path | None) -> Path:
    if base_file is None:
        # A name on the hub is a folder, which would be fetched to learn that.
        there = base_model == EMBEDDED_MODEL or Path(base_model).expanduser().is_file()
        base_file = find(base_model) if there else None
    else:
        _refuse_missing(base_file)
    if base_file is None or not base_file.is_file():
        raise RunError(
            f"{path} is an adapter alone, and its base model is not a .gguf file here.",
            "Say where that is: --base-file base.gguf",
        )
    if gguf_note(base_file, gguf.Keys.General.TYPE) == "adapter":
        raise RunError(f"{base_file} is an adapter alone, and not a base model.", "Name another with --base-file.")
    return base_file
