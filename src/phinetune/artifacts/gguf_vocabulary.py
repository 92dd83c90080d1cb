"""A transformers tokenizer -> the vocabulary entries of a .gguf file.

    tokens, kinds, merges, special ids, and the name of the way text is cut into words ("phi-2", "smollm", …)

llama.cpp carries that step under a name alone. The name is found by trying each known one on texts that tell them
apart; a tokenizer that agrees with none is refused, since a wrong name still tokenizes, into pieces the model has
never seen. Vocabularies of SentencePiece are in gguf_sentencepiece.py.
"""

from __future__ import annotations

import json
from typing import Any

import gguf

from phinetune.artifacts.gguf_sentencepiece import BY_LLAMA_CPP, add_sentencepiece
from phinetune.errors import ModelError
from phinetune.model.gguf_splits import SPLITS

_TELLING = (
    "In 1984, 12345678 of 3.14159 items cost $99.99 (±0.5%)",
    "  two  spaces   three\n\n\tindented\r\n   I'll say it's FINE, WE'LL",
    "Grüße, ÅNGSTRÖM, 你好，世界。これは 안녕 👋🏽 ✅ x² ½ ٣٤",
    "CamelCase SCREAMING_SNAKE != <= // https://example.org/a?b=c#d ......!!!",
)
_PREFERRED = {"phi": "phi-2", "qwen2": "qwen2", "mistral": "tekken"}


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, size: int, model_type: str, prompt: str) -> None:
    """Write the vocabulary, filled up to the `size` of the embedding as llama.cpp's converter does.

    `prompt` is what prompts begin with. Raises ModelError for a tokenizer that is not BPE, cuts words in a way that
    llama.cpp has no name for, or reads a text otherwise than llama.cpp would.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    if backend["model"].get("type") == "BPE" and backend["model"].get("byte_fallback"):
        add_sentencepiece(writer, tokenizer, backend, size, prompt)
    elif backend["model"].get("type") == "BPE":
        _add_byte_level(writer, tokenizer, backend, size, model_type)
    else:
        raise ModelError("The tokenizer of this model is of a kind that cannot be exported.", BY_LLAMA_CPP)
    for add, id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if id is not None:
            add(id)
    first = tokenizer("a").input_ids[:1]
    writer.add_add_bos_token(bool(first) and first[0] == tokenizer.bos_token_id)


def _add_byte_level(writer: gguf.GGUFWriter, tokenizer: Any, backend: dict[str, Any], size: int, kind: str) -> None:
    added, by_id = tokenizer.added_tokens_decoder, {id: token for token, id in tokenizer.get_vocab().items()}
    kinds = []
    for id in range(size):
        if id not in by_id:
            kinds.append(gguf.TokenType.UNUSED)
        elif id in added:
            kinds.append(gguf.TokenType.CONTROL if added[id].special else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in backend["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer, kind))
    writer.add_token_list([by_id.get(id, f"[PAD{id}]") for id in range(size)])
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)


def pre_tokenizer_name(tokenizer: Any, model_type: str) -> str:
    """llama.cpp's name for the way this tokenizer cuts text into words before merging."""
    own = tokenizer.backend_tokenizer.pre_tokenizer
    wanted = [_pieces(own, text) for text in _TELLING]
    preferred = _PREFERRED.get(model_type)
    for name in sorted(SPLITS, key=lambda name: name != preferred):  # sorting is stable: the table's order otherwise
        if [_pieces(SPLITS[name].pre_tokenizer(), text) for text in _TELLING] == wanted:
            return name
    raise ModelError(
        "The tokenizer of this model cuts text into words in a way that llama.cpp has no name for here.",
        BY_LLAMA_CPP,
    )


def _pieces(pre_tokenizer: Any, text: str) -> list[str]:
    return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]
