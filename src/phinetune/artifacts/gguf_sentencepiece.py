"""A SentencePiece vocabulary, as Llama 2, TinyLlama and the first Mistral have it -> the entries of a .gguf file.

    pieces and merges of tokenizer.json   ─►  pieces, a score and a kind of each, whether a text begins with a blank

transformers joins pieces by a list of merges, llama.cpp whatever two make the piece with the best score. Both say the
same where the merges are all the ways to make every piece, best piece first; that is looked at piece by piece, and a
tokenizer of which it is not true is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import Any

import gguf

from phinetune.errors import ModelError
from phinetune.model.gguf_tokenizer import implied_merges

BY_LLAMA_CPP = "Merge the model with `phinetune merge`, and convert the folder with llama.cpp's own script."
_BLANK = "\u2581"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ADDED, _FILLER = -1000.0, -10000.0  # as llama.cpp's converter scores them
_LAST = -1e9  # as Llama 2 scores the runs of blanks that were added to its vocabulary
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
_PREPEND = {"type": "Prepend", "prepend": _BLANK}


def add_sentencepiece(
    writer: gguf.GGUFWriter, tokenizer: Any, backend: dict[str, Any], size: int, prompt: str = ""
) -> None:
    """Write the vocabulary of `tokenizer`, whose tokenizer.json is `backend`, filled up to `size`.

    `prompt` is what prompts begin with. Raises ModelError where llama.cpp would read a text otherwise.
    """
    added, by_id = tokenizer.added_tokens_decoder, {id: token for token, id in tokenizer.get_vocab().items()}
    tokens, kinds = [], []
    for id in range(size):
        token, kind = by_id.get(id, f"[PAD{id}]"), gguf.TokenType.NORMAL
        if id not in by_id:
            kind = gguf.TokenType.UNUSED
        elif id in added:
            kind = gguf.TokenType.CONTROL if added[id].special else gguf.TokenType.USER_DEFINED
        elif _BYTE.fullmatch(token):
            kind = gguf.TokenType.BYTE
        tokens.append(token.replace(_BLANK, " ") if kind == gguf.TokenType.USER_DEFINED else token)
        kinds.append(kind)
    if kinds.count(gguf.TokenType.BYTE) != 256:
        raise _otherwise("lacks pieces for some bytes")
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in backend["model"]["merges"]]
    scores = _scores(tokens, kinds, merges)
    _refuse_other_merges(tokens, kinds, scores, merges)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    last = tokenizer("a").input_ids[-1:]
    writer.add_add_eos_token(last == [tokenizer.eos_token_id])
    writer.add_add_space_prefix(_begins_with_blank(backend, gguf.TokenType.USER_DEFINED in kinds, prompt))


def _scores(tokens: list[str], kinds: list[gguf.TokenType], merges: list[tuple[str, ...]]) -> list[float]:
    """A score for each piece, the better the sooner it is made. SentencePiece itself numbers pieces by it."""
    made: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        made.setdefault("".join(pair), rank)
    normal = [id for id, kind in enumerate(kinds) if kind == gguf.TokenType.NORMAL]
    ranked = [id for id in normal if tokens[id] in made]
    last = set()
    if not (numbered := _ascend(made[tokens[id]] for id in ranked)) and _blanks_come_last(merges):
        last = {id for id in normal if _is_blanks(tokens[id])}
        numbered = _ascend(made[tokens[id]] for id in ranked if id not in last)
    scores = [0.0] * len(tokens)
    for id, kind in enumerate(kinds):
        if id in last:
            scores[id] = _LAST
        elif kind == gguf.TokenType.NORMAL:
            scores[id] = float(normal[0] - id if numbered else -made.get(tokens[id], len(merges)))
        elif kind != gguf.TokenType.BYTE:
            scores[id] = _FILLER if kind == gguf.TokenType.UNUSED else _ADDED
    return scores


def _ascend(ranks: Iterable[int]) -> bool:
    return all(before < after for before, after in pairwise(ranks))


def _is_blanks(piece: str) -> bool:
    return not piece.strip(_BLANK)


def _blanks_come_last(merges: list[tuple[str, ...]]) -> bool:
    """Whether runs of blanks are made after everything else: Llama 2 has them so, all with one score."""
    return [blanks for blanks, _ in groupby(merges, lambda pair: _is_blanks("".join(pair)))] == [False, True]


def _refuse_other_merges(
    tokens: list[str], kinds: list[gguf.TokenType], scores: list[float], merges: list[tuple[str, ...]]
) -> None:
    """Pieces with one score, and two ways to make the same piece, are made from the left in llama.cpp, and in the order
    of the merges in transformers. The first are runs of blanks alone, which come to the same.
    """
    normal = {token for token, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.NORMAL}
    last = {token for token, score in zip(tokens, scores, strict=True) if score == _LAST}
    own, implied = (
        [pair for pair in pairs if "".join(pair) in normal and normal.issuperset(pair)]
        for pairs in (merges, implied_merges(tokens, [int(kind) for kind in kinds], scores))
    )
    made, would_be = (
        [piece for piece, _ in groupby(map("".join, pairs)) if piece not in last] for pairs in (own, implied)
    )
    if set(own) != set(implied) or made != would_be:
        raise _otherwise("joins its pieces in an order of its own")


def _begins_with_blank(backend: dict[str, Any], has_own_tokens: bool, prompt: str) -> bool:
    """Whether a blank is put before a text. Raises ModelError where that is done in no way that llama.cpp has."""
    normalizer, words = backend["normalizer"] or {}, backend["pre_tokenizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    if not words and steps in ([_PREPEND, _REPLACE], [_REPLACE]):
        return len(steps) == 2
    if normalizer or words.get("type") != "Metaspace" or words.get("split") or words.get("replacement") != _BLANK:
        raise _otherwise("changes or cuts text in a way that llama.cpp does not")
    if words["prepend_scheme"] == "never":
        return False
    # Metaspace puts none where there is one; llama.cpp does so always, and also behind a token inside the text.
    if prompt.startswith((" ", _BLANK)):
        raise ModelError(
            "The template begins with a blank, which llama.cpp would read as two with the tokenizer of this model.",
            "Train with a --template that begins with a word.",
        )
    if words["prepend_scheme"] == "first" and has_own_tokens:
        raise _otherwise("has added tokens inside a text")
    return True


def _otherwise(what: str) -> ModelError:
    return ModelError(f"The tokenizer of this model {what}: llama.cpp would read texts otherwise.", BY_LLAMA_CPP)
