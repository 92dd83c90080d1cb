"""Facts of a merged model -> the README.md of its folder, a model card of a whole model."""

from __future__ import annotations

from dataclasses import dataclass

from phinetune.artifacts.card_parts import (
    LIMITS,
    Asking,
    asking_with_phinetune,
    bullets,
    code,
    code_to_ask,
    front_matter,
    page,
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
        front_matter("transformers", ["phinetune"], "finetune", facts.hub_model, facts.base_license),
        f"# {base} tuned on questions and answers",
        _what_it_is(facts),
        "## Ask it",
        asking_with_phinetune("path/to/merged"),
        "With plain transformers:",
        code_to_ask(_LOADING, facts.asking),
        "## Prompt format",
        prompt_format(facts.asking),
        "The tokenizer's chat template is this prompt, with the last message of a chat as the question.",
        "## Limits",
        bullets((_AS_EVER, *LIMITS)),
    ]
    return page(parts)


def _what_it_is(facts: MergedFacts) -> str:
    base = code(facts.hub_model) if facts.hub_model else "its base model"
    return (
        f"A whole language model: {base}, with what a LoRA adapter learned from pairs of questions and answers added "
        f"to its weights, in {facts.dtype}. It needs no adapter and no other model. What it was trained on, and how "
        "that went, tells the card of the adapter, in the folder `model` of the training run.\n\n"
        f"The adapter's loss on {facts.measured_on} is {facts.adapter_loss:.3f} nats per answer token. This model was "
        "read back and compared when it was written: its loss is the same, up to rounding."
    )
