"""A model's config in numbers -> its parameters, module by module, without building it.

    {"model_type": "phi", "hidden_size": 2560, ...}  ->  ModelShape  ->  embed_tokens 131,072,000, fc1 839,188,480 ...

The layers are those of transformers' modelling files (modeling_phi.py, modeling_llama.py, modeling_qwen2.py ...);
tests count the real modules beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phinetune.errors import ModelError, SettingsError

# Which projections carry a bias, for the families whose config does not say.
_BIASED = {"phi": "q k v o mlp", "qwen2": "q k v"}
_TIED = ("smollm3", "gemma", "gemma2", "gemma3_text")  # where a config.json that does not say means yes
_COUNTED = ("phi", "llama", "mistral", "qwen2", "qwen3", "smollm3")
_BEHIND_THE_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
_FAST = ("phi", "llama", "mistral", "qwen2")  # the families of layers.py


@dataclass(frozen=True)
class Linear:
    """A linear layer that every block has."""

    name: str
    inputs: int
    outputs: int
    has_bias: bool
    is_attention: bool

    @property
    def parameters(self) -> int:
        return self.outputs * (self.inputs + self.has_bias)


@dataclass(frozen=True)
class ModelShape:
    """What decides size and speed of a causal language model. `biased`: which of q, k, v, o, mlp have a bias.

    `head_is_last`: nothing scales or bounds the logits behind the head.
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    biased: frozenset[str] = frozenset()
    head_is_last: bool = True

    @property
    def is_counted(self) -> bool:
        """Whether the count is exact; other families are counted as if they were Llama's."""
        return self.model_type in _COUNTED

    @property
    def is_fast(self) -> bool:
        """Whether our own layers compute it; other models go through transformers' forward, which keeps more."""
        return self.model_type in _FAST

    @property
    def is_phi(self) -> bool:
        return self.model_type == "phi"

    def linear_layers(self) -> tuple[Linear, ...]:
        """The linear layers of one block, in the model's order."""
        n, q, kv, f = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.intermediate
        has = self.biased.__contains__
        attention = [("q_proj", n, q, has("q")), ("k_proj", n, kv, has("k")), ("v_proj", n, kv, has("v"))]
        attention.append(("dense" if self.is_phi else "o_proj", q, n, has("o")))
        if self.is_phi:
            mlp = [("fc1", n, f, has("mlp")), ("fc2", f, n, has("mlp"))]
        else:
            mlp = [(name, n, f, has("mlp")) for name in ("gate_proj", "up_proj")] + [("down_proj", f, n, has("mlp"))]
        return (*(Linear(*each, True) for each in attention), *(Linear(*each, False) for each in mlp))

    def modules(self) -> dict[str, int]:
        """Parameters of every kind of module over all layers; a tied head counts 0."""
        norm = 2 * self.hidden if self.is_phi else self.hidden
        of_heads = 2 * self.head_dim if self.model_type == "qwen3" else 0
        norms_a_layer = (norm if self.is_phi else 2 * norm) + of_heads
        head = self.vocabulary * (self.hidden + self.is_phi)
        return {
            "embed_tokens": self.vocabulary * self.hidden,
            **{linear.name: self.layers * linear.parameters for linear in self.linear_layers()},
            "norms": self.layers * norms_a_layer + norm,
            "lm_head": self.vocabulary * self.is_phi if self.tied else head,
        }

    @property
    def parameters(self) -> int:
        return sum(self.modules().values())


@dataclass(frozen=True)
class AdapterShape:
    """A LoRA adapter of rank `r` on the named layers of every block."""

    r: int
    layers: tuple[Linear, ...]
    blocks: int

    @property
    def parameters(self) -> int:
        """A [r, inputs] and B [outputs, r] for each layer (Hu et al., 2021)."""
        return self.blocks * sum(self.r * (layer.inputs + layer.outputs) for layer in self.layers)


def adapter_shape(shape: ModelShape, r: int, wanted: str | Sequence[str]) -> AdapterShape:
    """The adapter that `lora.attach` would make. Raises SettingsError for a layer that the model does not have."""
    layers = shape.linear_layers()
    if wanted == "all":
        return AdapterShape(r, layers, shape.layers)
    if wanted == "attention":
        return AdapterShape(r, tuple(layer for layer in layers if layer.is_attention), shape.layers)
    if wanted == "minimal":
        return AdapterShape(r, tuple(layer for layer in layers if layer.name in ("q_proj", "v_proj")), shape.layers)
    names = [wanted] if isinstance(wanted, str) else wanted
    names = [part.strip() for name in names for part in name.split(",") if part.strip()]
    by_name = {layer.name: layer for layer in layers}
    if (unknown := [name for name in names if name not in by_name]) or not names:
        raise SettingsError(
            f"This model has no layer called {', '.join(unknown) or '(nothing)'}.",
            f"Its layers are {', '.join(by_name)}; or say all, attention or minimal.",
        )
    return AdapterShape(r, tuple(by_name[name] for name in dict.fromkeys(names)), shape.layers)


def read_shape(config: Mapping[str, Any], place: str) -> ModelShape:
    """The shape that a config.json describes; `place` is what an error names.

    Raises ModelError when an entry is missing or the model is of another kind.
    """
    kind = str(config.get("model_type", "unknown"))
    if "hidden_size" not in config and isinstance(config.get("text_config"), Mapping):
        config = config["text_config"]
    if config.get("num_experts") or config.get("num_local_experts"):
        raise ModelError(f"{place} is a mixture of experts, which cannot be planned.", "Choose another base model.")

    def number(name: str, default: int | None = None) -> int:
        value = config.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(
                f"{place} has {value!r} as {name}, where a whole number above 0 belongs.",
                "It is damaged, or not the config of a causal language model: give another --model.",
            )
        return value

    hidden, heads = number("hidden_size"), number("num_attention_heads")
    biased = _BIASED.get(kind, "").split()
    if kind not in _BIASED:
        biased += ["q", "k", "v", "o"] * bool(config.get("attention_bias")) + ["mlp"] * bool(config.get("mlp_bias"))
    return ModelShape(
        model_type=kind,
        layers=number("num_hidden_layers"),
        hidden=hidden,
        intermediate=number("intermediate_size", 4 * hidden if kind == "phi" else None),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", max(1, hidden // heads)),
        vocabulary=number("vocab_size"),
        tied=bool(config.get("tie_word_embeddings", kind in _TIED)),
        biased=frozenset(biased),
        head_is_last=all(config.get(name) in (None, 1) for name in _BEHIND_THE_HEAD),
    )
