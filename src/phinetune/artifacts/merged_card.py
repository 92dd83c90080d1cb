"""Facts of a merged model -> the README.md of its folder, a model card of a whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from phinetune.artifacts.card_parts import (
    LIMITS,
    Asking,
    code,
    code_to_ask,
    fence,
    front_matter,
    one_line,
    plain,
    prompt_format,
)

_LOADING = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = "path/to/merged"  # the folder of this card

tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto").eval()
model.to("cuda" if torch.cuda.is_available() else "cpu")"""

_AS_EVER = "Asked about anything else than its training pairs it answers all the same, in the same tone."


@dataclass(frozen=True)
class MergedFacts:
    """All that the card says.

    hub_model      the base model's name on the hub; None when it is not known
    dtype          the number format of the weights
    adapter_loss   nats per answer token of `measured_on`, by the adapter before it was merged
    """

    hub_model: str | None
    base_license: str | None
    dtype: str
    adapter_loss: float
    measured_on: str
    asking: Asking


def merged_card(facts: MergedFacts) -> str:
    """The card as Markdown with YAML front matter, as the Hugging Face hub reads it."""
    base = plain(facts.hub_model) if facts.hub_model else "A language model"
    parts = [
        _front_matter(facts),
        f"# {base} tuned on questions and answers",
        _what_it_is(facts),
        "## Ask it",
        "With phinetune:",
        fence('phinetune ask path/to/merged "Your question"', "bash"),
        "With plain transformers:",
        fence(code_to_ask(_LOADING, facts.asking), "python"),
        "## Prompt format",
        prompt_format(facts.asking),
        "The tokenizer's chat template is this prompt, with the last message of a chat as the question.",
        "## Limits",
        "\n".join(f"- {limit}" for limit in (_AS_EVER, *LIMITS)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: MergedFacts) -> str:
    fields: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    tags = ["phinetune"]
    if facts.hub_model:
        fields["base_model"] = one_line(facts.hub_model)
        fields["base_model_relation"] = "finetune"
        tags.append(f"base_model:finetune:{one_line(facts.hub_model)}")
    if facts.base_license:
        fields["license"] = one_line(facts.base_license)
    fields["tags"] = tags
    return front_matter(fields)


def _what_it_is(facts: MergedFacts) -> str:
    base = code(facts.hub_model) if facts.hub_model else "its base model"
    return (
        f"A whole language model: {base}, with what a LoRA adapter learned from pairs of questions and answers added "
        f"to its weights, in {facts.dtype}. It needs no adapter and no other model. What it was trained on, and how "
        "that went, tells the card of the adapter, in the folder `model` of the training run.\n\n"
        f"The adapter's loss on {facts.measured_on} is {facts.adapter_loss:.3f} nats per answer token. This model was "
        "read back and compared when it was written: its loss is the same, up to rounding."
    )
