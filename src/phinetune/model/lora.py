"""The LoRA adapter: which layers get one, attaching it, and its weights. The files are PEFT's."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from phinetune.errors import ModelError, SettingsError
from phinetune.model.adapter_config import read_adapter_config
from phinetune.model.out_of_memory import is_out_of_memory
from phinetune.settings import LoraSettings

# PEFT 0.21 reads an attribute that transformers 5.23 has renamed; nothing that a user could act on.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)

WEIGHTS = "adapter_model.safetensors"
PICKLED_WEIGHTS = "adapter_model.bin"


def linear_layers(model: torch.nn.Module) -> dict[str, list[str]]:
    """Names of the linear layers in the model's blocks, by role, in the model's order.

    Phi-2 -> {"q_proj": ["model.layers.0.self_attn.q_proj", ...], ..., "fc2": [...]}. The head that makes logits
    is not in a block and so never listed.
    """
    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)) and re.search(r"\.\d+\.", name):
            found.setdefault(name.rpartition(".")[2], []).append(name)
    return found


def target_modules(model: torch.nn.Module, wanted: str | list[str]) -> list[str]:
    """The layer names that get an adapter: a preset (all, attention, minimal) or names given by hand.

    Raises SettingsError that lists the names which exist when one given by hand matches nothing: PEFT alone
    trains whatever subset happens to match and says nothing.
    """
    layers = linear_layers(model)
    if wanted == "all":
        return list(layers)
    attention = [name for name, paths in layers.items() if re.search(r"attn|attention", paths[0])]
    if wanted == "attention":
        return attention
    if wanted == "minimal":
        return [n for n in attention if n in ("q_proj", "v_proj")] or attention[:1]
    names = [wanted] if isinstance(wanted, str) else wanted
    names = [part.strip() for name in names for part in name.split(",") if part.strip()]
    unknown = [name for name in names if name not in layers]
    if unknown or not names:
        raise SettingsError(
            f"This model has no layer called {', '.join(unknown) or '(nothing)'}.",
            f"Its layers are {', '.join(layers)}; or say all, attention or minimal.",
        )
    return list(dict.fromkeys(names))


def attach(model: PreTrainedModel, settings: LoraSettings, base_name: str, seed: int) -> PeftModel:
    """The model with a fresh adapter in fp32 on the chosen layers, everything else frozen.

    `base_name` is what the saved adapter names as its base. The adapter starts as no change at all (B = 0).
    """
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target_modules(model, settings.target_modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
    )
    model.name_or_path = base_name  # PEFT records this name, which is otherwise the folder it was loaded from
    torch.manual_seed(seed)
    return get_peft_model(model, config)


def trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """(trainable, total) parameters; total counts tied weights once and leaves the adapter out."""
    adapter = sum(parameter.numel() for _, parameter in trainable(model))
    return adapter, sum(parameter.numel() for parameter in model.parameters()) - adapter


def saved_bytes(model: PeftModel) -> int:
    """What the weights of the adapter take on a disk."""
    return sum(parameter.nbytes for _, parameter in trainable(model))


def save(model: PeftModel, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """adapter_config.json and the weights as safetensors, as PEFT writes and reads them.

    `weights` are those of `trainable(model)` by name, where others than its present ones are to be saved.
    """
    [config] = model.peft_config.values()
    if isinstance(config.target_modules, set):  # whose order would be another in every process
        config.target_modules = sorted(config.target_modules)
    # save_embedding_layers="auto" would ask the hub whether the vocabulary was resized; we never resize it.
    with _without_a_card(model):
        model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)


@contextmanager
def _without_a_card(model: PeftModel) -> Iterator[None]:
    """PEFT's own, filled from a template, takes a third of the time of saving a small adapter; card.py writes ours."""
    model.create_or_update_model_card = lambda _folder: None
    try:
        yield
    finally:
        del model.create_or_update_model_card


def pickle_weights(folder: Path) -> None:
    """Write adapter_model.bin beside the safetensors file, for tools that read only that."""
    torch.save(load_file(folder / WEIGHTS), folder / PICKLED_WEIGHTS)


def load_weights(model: PeftModel, folder: Path, *, allow_bin: bool = False) -> None:
    """Put the saved adapter weights of `folder` into the model's adapter.

    Raises ModelError when they do not fit: another base model or other layers.
    """
    _put(model, folder, read_weights(folder, allow_bin=allow_bin))


def _put(model: PeftModel, folder: Path, weights: dict[str, torch.Tensor]) -> None:
    _check(model, folder, weights)
    put_weights(model, weights)


def _check(model: PeftModel, folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """The weights are those of the model's adapter, every one of them, and numbers."""
    if differing := _differences(_weights(model), weights):
        raise ModelError(
            f"The adapter in {folder} does not fit this base model: {differing}.",
            "Use the base model it was trained on; its name stands in adapter_config.json.",
        )
    if infinite := [name for name, weight in weights.items() if not torch.isfinite(weight).all()]:
        raise ModelError(
            f"The adapter in {folder} has numbers that are not finite in {_short(infinite)}.",
            "It is damaged, or its training went wrong: train again with a lower learning rate.",
        )


def copy_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's weights as they are now, on the CPU, by the names they have in its file."""
    return copies(_weights(model))


def copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU. From a GPU those of one number format come in one piece: hundreds take 0.1 s more."""
    values = [value.detach() for value in tensors.values()]
    if not values or not values[0].is_cuda or any(value.dtype != values[0].dtype for value in values):
        return {name: value.to("cpu", copy=True) for name, value in zip(tensors, values, strict=True)}
    return in_one_piece(tensors)


def in_one_piece(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of tensors of one device and number format, on the CPU, as views of one vector."""
    values = [value.detach() for value in tensors.values()]
    parts = torch.split(torch.cat([value.flatten() for value in values]).cpu(), [value.numel() for value in values])
    return {name: part.view(value.shape) for name, part, value in zip(tensors, parts, values, strict=True)}


def put_weights(model: PeftModel, weights: dict[str, torch.Tensor]) -> None:
    """Put weights of `copy_weights` or `read_weights` into the model's adapter."""
    set_peft_model_state_dict(model, weights)


def _check_ranks(folder: Path, config: LoraConfig, weights: dict[str, torch.Tensor]) -> None:
    """Before memory is taken for it: the rank that the configuration names is one that the weights have."""
    found = {len(weight) for name, weight in weights.items() if ".lora_A." in name and weight.ndim}
    named = {config.r, *config.rank_pattern.values()}
    if max(named) > max(found, default=0):
        raise ModelError(
            f"The adapter in {folder} does not fit itself: its configuration names rank {max(named):,}, its weights "
            f"have {max(found, default=0):,}.",
            "Copy it again from where it was trained.",
        )


def load_adapter(model: PreTrainedModel, folder: Path, *, allow_bin: bool = False) -> PeftModel:
    """The model with the saved adapter of `folder`, for inference; see `read_weights` for `allow_bin`.

    The adapter of a model without memory of its own (on the device meta) is in the processor's.
    """
    adapted, weights = _attach_saved(model, folder, allow_bin)
    for name, parameter in list(adapted.named_parameters()):
        if ".lora_" in name and parameter.is_meta:
            layer, _, kind = name.rpartition(".")
            made = torch.nn.Parameter(torch.empty_like(parameter, device="cpu"), requires_grad=False)
            setattr(adapted.get_submodule(layer), kind, made)
    put_weights(adapted, weights)
    return adapted.eval()


def fitting_weights(model: PreTrainedModel, folder: Path, *, allow_bin: bool = False) -> dict[str, torch.Tensor]:
    """The adapter's tensors, once it is seen that the model has just the layers that its configuration names.

    The model may be without memory of its own (on the device meta); it gets an adapter of that configuration. Raises
    ModelError for an adapter of another model, or of more or fewer layers, and as `read_weights`.
    """
    return _attach_saved(model, folder, allow_bin)[1]


def _attach_saved(model: PreTrainedModel, folder: Path, allow_bin: bool) -> tuple[PeftModel, dict[str, torch.Tensor]]:
    """The model with a fresh adapter of the saved configuration, and the saved weights, which fit into it."""
    config = read_adapter_config(folder)
    weights = read_weights(folder, allow_bin=allow_bin)
    _check_ranks(folder, config, weights)
    present = linear_layers(model)
    if missing := [name for name in config.target_modules or () if name not in present]:
        raise ModelError(
            f"The adapter in {folder} is for another kind of model: it changes {', '.join(sorted(missing))}, "
            f"and this one has {', '.join(present)}.",
            "Use the base model it was trained on; its name stands in adapter_config.json.",
        )
    model.name_or_path = config.base_model_name_or_path or ""
    adapted = get_peft_model(model, config)
    _check(adapted, folder, weights)
    return adapted, weights


def read_weights(folder: Path, *, allow_bin: bool = False) -> dict[str, torch.Tensor]:
    """The adapter's tensors. With `allow_bin` a pickled file is read too, as plain tensors and never as code.

    Raises ModelError for weights that are missing, damaged, or pickled without leave.
    """
    if not allow_bin and not (folder / WEIGHTS).is_file() and (folder / PICKLED_WEIGHTS).is_file():
        raise ModelError(
            f"The adapter in {folder} is in pickle form ({PICKLED_WEIGHTS}), which can carry code.",
            "If you trust where it comes from, add --allow-bin: then it is read as plain numbers (weights_only).",
        )
    try:
        if (folder / WEIGHTS).is_file():
            return load_file(folder / WEIGHTS)
        weights = torch.load(folder / PICKLED_WEIGHTS, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no adapter weights ({WEIGHTS}).", "Train again.") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if type(error).__name__ == "UnpicklingError":  # torch's own words advise to switch the check off
            raise ModelError(
                f"{folder / PICKLED_WEIGHTS} is damaged, or holds something else than numbers, which could be code.",
                f"It was not read. Get the adapter as {WEIGHTS} from whoever made it, or train again.",
            ) from None
        said = next(iter(str(error).splitlines()), "")[:200].rstrip(".")
        raise ModelError(f"The adapter weights in {folder} are damaged: {said}.", "Train again.") from None
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise ModelError(f"The adapter weights in {folder} are damaged: they are no tensors.", "Train again.")
    return dict(weights)


def _weights(model: PeftModel) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return weights


def _differences(own: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> str:
    wrong = [name for name in own if name not in other or own[name].shape != other[name].shape]
    wrong += [name for name in other if name not in own]
    return f"{len(wrong)} of {len(own)} tensors differ in name or shape, first {_short(wrong)}" if wrong else ""


def _short(names: Iterable[str]) -> str:
    return next(iter(names)).removeprefix("base_model.model.")
