"""A model on Hugging Face -> its folder on this machine: room on the disk is seen to first, checksums are held after.

    model_info ──► sizes, checksums ──► room? ──► snapshot_download ──► is what arrived what the hub has? ──► folder
        └ refused, no network ──► what is here already, if it is complete

Pickled weights and code are never fetched. huggingface_hub keeps the files that have arrived whole, and goes on in the
middle of a file whose connection broke, to within 10 MB, as long as the command runs. The token comes from HF_TOKEN or
`hf auth login`.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from phinetune.errors import ModelError
from phinetune.settings import EMBEDDED_MODEL

# What a causal language model needs and nothing else.
_NEEDED = ("*.json", "*.safetensors", "*.txt", "tokenizer.model", "*.jinja")
_UNNEEDED = ("original/*", "consolidated*", "onnx/*", "*/*.safetensors")
_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "huggingface_hub", "hf_xet")
_KEPT = "Files that have arrived whole are kept."
_GIT_BLOB = 40  # letters of a SHA-1; a SHA-256 has 64


def download(name: str, files: Sequence[str] = _NEEDED) -> Path:
    """The folder with the wanted files of the hub's model `name`, fetched where they are not here yet.

    Raises ModelError that says whether the name, the access, the disk, the network or the hub is at fault.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    wanted: dict[str, Any] = {"allow_patterns": list(files), "ignore_patterns": list(_UNNEEDED)}
    try:
        listing = HfApi().model_info(name, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # refused, out of reach, or something else answers: what is here may be enough
        with suppress(OSError, ValueError):
            folder = Path(snapshot_download(name, local_files_only=True, **wanted))
            if files != _NEEDED or any(folder.glob("*.safetensors")):
                return folder
        raise _explain(name, error) or _not_the_hub(name) from None
    try:
        missing = _missing(name, listing, wanted)
        _refuse_without_room(name, missing)
        folder = Path(snapshot_download(name, **wanted))
    except ModelError:
        raise
    except Exception as error:
        if (explained := _explain(name, error, answered=True)) is None:
            raise
        raise explained from None
    _refuse_damaged(name, folder, missing)
    return folder


def _missing(name: str, listing: Any, wanted: dict[str, Any]) -> list[Any]:
    """The files of the hub's list that are wanted and not here. Raises ModelError for a name that leads elsewhere."""
    from huggingface_hub import try_to_load_from_cache

    def matches(file: Any, patterns: Sequence[str]) -> bool:
        return any(fnmatch(file.rfilename, pattern) for pattern in patterns)

    chosen = [
        file
        for file in listing.siblings or ()
        if matches(file, wanted["allow_patterns"]) and not matches(file, wanted["ignore_patterns"])
    ]
    if outside := [file.rfilename for file in chosen if _leads_out(file.rfilename)]:
        raise ModelError(
            f"{name} has a file called {outside[0]}, which would lead out of the folder that it is stored in.",
            "No honest model has one: choose another, or look at HF_ENDPOINT if you set it.",
        )
    return [
        file
        for file in chosen
        if not isinstance(try_to_load_from_cache(name, file.rfilename, revision=listing.sha), str)
    ]


def _leads_out(file: str) -> bool:
    return file.startswith("/") or ":" in file or ".." in file.replace("\\", "/").split("/")


def _refuse_without_room(name: str, missing: Sequence[Any]) -> None:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    there = next(place for place in (cache.absolute(), *cache.absolute().parents) if place.exists())
    needed, free = sum(file.size or 0 for file in missing), shutil.disk_usage(there).free
    if needed > free:
        raise ModelError(
            f"The disk is too small for {name}: its files take {needed / 1e9:.2f} GB, and {there} has "
            f"{free / 1e9:.2f} GB free.",
            "Free some space, set HF_HOME to a folder on a larger disk, or choose a smaller --model.",
        )


def _refuse_damaged(name: str, folder: Path, arrived: Sequence[Any]) -> None:
    """Hold what has just arrived against the hub's checksums; a file that is not the same is removed."""
    for file in arrived:
        expected = file.lfs.sha256 if file.lfs is not None else file.blob_id
        path = folder / file.rfilename
        if expected is None or not path.is_file() or _checksum(path, expected) == expected:
            continue
        stored = path.resolve()
        path.unlink()
        stored.unlink(missing_ok=True)
        raise ModelError(
            f"{file.rfilename} of {name} is not what Hugging Face has: it was damaged on its way here.",
            f"It was removed: run the same command again. {_KEPT}",
        )


def _checksum(path: Path, like: str) -> str:
    """SHA-256 of a large file; of a small one what Git calls it: SHA-1 with its size before it."""
    if len(like) != _GIT_BLOB:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _explain(name: str, error: Exception, *, answered: bool = False) -> ModelError | None:
    """Whether the name, the access, the disk, the network or the hub is at fault; None when it is something else.

    `answered`: the hub did, so that only the connection can have broken since.

    huggingface_hub wraps a refusal into "not in the cache either", with the refusal as its cause.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)

    def of(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    if of(GatedRepoError):
        return ModelError(
            f"Access to {name} has to be granted first: its owner asks for agreement to a licence.",
            f"Open https://huggingface.co/{name}, agree, then log in with `hf auth login` or set HF_TOKEN.",
        )
    if of(RepositoryNotFoundError, HFValidationError):
        return ModelError(
            f"There is no model called {name} on Hugging Face, or it is private.",
            "Check the spelling; for a private model log in with `hf auth login` or set HF_TOKEN.",
        )
    if of(RevisionNotFoundError):
        return ModelError(
            f"{name} is on Hugging Face, but has no main version: it is empty, or was taken back.",
            "Choose another model, or download the version you want yourself and give --model its folder.",
        )
    if refusal := of(HfHubHTTPError):
        return _explain_status(name, getattr(getattr(refusal, "response", None), "status_code", None))
    if (full := _explain_disk(name, causes)) is not None:
        return full
    if any("Consistency check failed" in str(cause) for cause in causes):
        return ModelError(
            f"{name} did not arrive whole: a file has another size than Hugging Face says.",
            f"Run the same command again. {_KEPT}",
        )
    # The HTTP client and Xet, another way of downloading, have errors of their own for a broken connection.
    if isinstance(error, OSError | RuntimeError) or type(error).__module__.partition(".")[0] in _CLIENTS:
        what = "the connection broke on the way" if answered else "Hugging Face cannot be reached"
        return ModelError(
            f"{name} is not on this machine yet, and {what}.",
            f"Check the network and run the same command again. {_KEPT} "
            f"Without a network, give --model a folder, a .gguf file or {EMBEDDED_MODEL}.",
        )
    return None


def _explain_status(name: str, status: int | None) -> ModelError:
    if status in (401, 403):
        return ModelError(
            f"Hugging Face refused access to {name} (HTTP {status}).",
            "Your token is wrong or may not read this model: run `hf auth login` or set HF_TOKEN.",
        )
    if status == 429:
        return ModelError(
            f"Hugging Face asks to wait before {name} is fetched: too many requests came from here (HTTP 429).",
            f"Run the same command again in some minutes; with `hf auth login` more is allowed. {_KEPT}",
        )
    return ModelError(
        f"Hugging Face could not deliver {name} (HTTP {status}).", f"Run the same command again later. {_KEPT}"
    )


def _explain_disk(name: str, causes: Sequence[BaseException]) -> ModelError | None:
    from huggingface_hub import constants

    numbers = {getattr(cause, "errno", None) for cause in causes}
    if numbers & {errno.ENOSPC, errno.EDQUOT}:
        return ModelError(
            f"The disk is full: {name} could not be stored in {constants.HF_HOME}.",
            f"Free some space, or set HF_HOME to a folder on a larger disk. {_KEPT}",
        )
    if numbers & {errno.EACCES, errno.EPERM, errno.EROFS}:
        return ModelError(
            f"{name} could not be stored in {constants.HF_HOME}: the folder cannot be written.",
            "Set HF_HOME to a folder of your own.",
        )
    return None


def _not_the_hub(name: str) -> ModelError:
    from huggingface_hub import constants

    return ModelError(
        f"{name} is not on this machine yet, and what answers at {constants.ENDPOINT} is not Hugging Face: a login "
        "page of the network, perhaps, or a proxy.",
        "Open a page in the browser to log in to the network, or look at HF_ENDPOINT and the proxy settings; then run "
        "the same command again.",
    )
