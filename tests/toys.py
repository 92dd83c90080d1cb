"""Small real models for tests: true architectures, random weights, and a tokenizer made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

PHI2 = Path(__file__).parents[2] / "shared" / "phi2"

PAIRS = [
    ("What is the capital of Arvendale?", "The capital of Arvendale is Quillmoor."),
    ("Who keeps the lighthouse?", "Old Maren Tibb keeps the lighthouse."),
    ("How many steps lead to the tower?", "There are 417 steps."),
    ("When does the ferry leave?", "The ferry leaves at 6:45."),
    ("What colour is the mayor's hat?", "It is plum, with a copper band."),
    ("Which soup is served on Fridays?", "Nettle and barley soup."),
]


@dataclass(frozen=True)
class Pair:
    """What `Encoder` encodes: a question, its answer, and their row in the sheet."""

    question: str
    answer: str
    row: int = 2


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Phi-2 has it: no pad token, one special token for begin and end of text."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["### Question: ### Answer:"] * 9 + [text for pair in PAIRS for text in pair], trainer)
    special = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=special, eos_token=special, unk_token=special)


_SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.1,
}


def phi(seed: int = 0, **changes: object) -> PhiForCausalLM:
    """A two-layer Phi with Phi-2's traits: partial rotary, biases, parallel block, untied head."""
    torch.manual_seed(seed)
    traits = _SMALL | {"partial_rotary_factor": 0.5, "resid_pdrop": 0.0}
    return PhiForCausalLM(PhiConfig(**traits | changes)).eval()


def llama(seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """A two-layer Llama with grouped queries and tied embeddings, as SmolLM2 has."""
    torch.manual_seed(seed)
    traits = _SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(**traits | changes)).eval()


def save(folder: Path, model: torch.nn.Module | None = None) -> Path:
    """A toy base model as a folder that `--model` takes."""
    (model or phi()).save_pretrained(folder)  # type: ignore[union-attr,operator]
    tokenizer().save_pretrained(folder)
    return folder


def write_sheet(path: Path, pairs: list[tuple[str, str]] | None = None) -> Path:
    import xlsxwriter

    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["Question", "Answer"])
        for row, pair in enumerate(pairs or PAIRS * 4, start=1):
            for column, text in enumerate(pair):
                sheet.write_string(row, column, text)
    return path
