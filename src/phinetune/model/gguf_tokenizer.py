"""The vocabulary in a .gguf file -> a transformers tokenizer that gives the same ids, without any network.

    tokens, merges, kinds, special ids, pre-tokenizer name, chat template  ->  PreTrainedTokenizerFast

Two kinds exist in the models supported here: byte-level BPE ("gpt2") and SentencePiece BPE with bytes for what the
vocabulary lacks ("llama"), whose merges are implied by the scores of its pieces.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from phinetune.errors import ModelError
from phinetune.model.gguf_file import GgufFile
from phinetune.model.gguf_splits import SPLITS, UNNAMED, Splits

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5
_SPECIAL = ("bos", "eos", "unk", "pad")
_KEYS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# What llama.cpp takes for a SentencePiece vocabulary that does not name them.
_SENTENCEPIECE_IDS = {"bos": 1, "eos": 2, "unk": 0}
_CONVERT_AGAIN = "Convert the model again with a current llama.cpp, or give the original Hugging Face model."


def read_tokenizer(file: GgufFile) -> PreTrainedTokenizerFast:
    """The tokenizer stored in `file`, with its special tokens and chat template.

    Raises ModelError when the vocabulary is missing or inconsistent, or is cut into words in an unknown way.
    """
    tokens, kinds = _vocabulary(file)
    model = _entry(file, "model")
    if model == "gpt2":
        backend, ids, begins, ends = _byte_level(file, tokens)
    elif model == "llama":
        backend, ids, begins, ends = _sentencepiece(file, tokens, kinds)
    else:
        raise ModelError(
            f"{file.path} has a tokenizer of the kind {model!r}; gpt2 and llama can be read.", _CONVERT_AGAIN
        )
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        chosen = [token for token, of_kind in zip(tokens, kinds, strict=True) if of_kind == kind]
        add = backend.add_special_tokens if special else backend.add_tokens
        add([AddedToken(token, normalized=False, special=special) for token in chosen])
    named = {name: _token(file, tokens, name, ids.get(name)) for name in _SPECIAL}
    backend.post_processor = _post_processor(file, backend, named, begins, ends)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": token for name, token in named.items() if token is not None},
    )
    tokenizer.chat_template = file.metadata.get("tokenizer.chat_template")
    return tokenizer


def _vocabulary(file: GgufFile) -> tuple[list[str], list[int]]:
    """Tokens by id and the kind of each, without the fillers at the end that pad to the size of the embedding."""
    tokens = list(_entry(file, "tokens"))
    kinds = list(file.metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens))
    if len(kinds) != len(tokens):
        raise _damaged(file, f"{len(tokens):,} tokens but {len(kinds):,} token types")
    # Converters of 2023 marked fillers as user-defined: only their text tells them from real tokens.
    while tokens and (kinds[-1] == _UNUSED or tokens[-1] == f"[PAD{len(tokens) - 1}]"):
        tokens.pop()
        kinds.pop()
    embedding = file.tensors.get("token_embd.weight")
    if embedding is not None and len(tokens) > embedding.shape[0]:
        raise _damaged(file, f"{len(tokens):,} tokens but {embedding.shape[0]:,} embeddings")
    return tokens, kinds


def _byte_level(file: GgufFile, tokens: list[str]) -> tuple[Tokenizer, dict[str, int], bool, bool]:
    splits = _splits(file)
    merges = [_pair(file, merge) for merge in _entry(file, "merges")]
    backend = Tokenizer(_bpe(file, tokens, merges, ignore_merges=splits.whole_words_first))
    backend.pre_tokenizer = splits.pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    if normalizer := splits.normalizer():
        backend.normalizer = normalizer
    return backend, {}, splits.begins_with_bos, False


def _splits(file: GgufFile) -> Splits:
    named = file.metadata.get("tokenizer.ggml.pre")
    name = named or UNNAMED.get(file.metadata.get("general.architecture", ""))
    if name in SPLITS:
        return SPLITS[name]
    problem = f"cuts text into words in the way called {name!r}, which is not known here"
    if not name:
        problem = "does not say how its tokenizer cuts text into words (tokenizer.ggml.pre is missing)"
    raise ModelError(f"{file.path} {problem}.", _CONVERT_AGAIN)


def _sentencepiece(file: GgufFile, tokens: list[str], kinds: list[int]) -> tuple[Tokenizer, dict[str, int], bool, bool]:
    merges = implied_merges(tokens, kinds, _entry(file, "scores"))
    unknown = _token(file, tokens, "unk", _SENTENCEPIECE_IDS["unk"])
    model = _bpe(file, tokens, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    space_first = file.metadata.get("tokenizer.ggml.add_space_prefix", True)
    prefix = [normalizers.Prepend("▁")] if space_first else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(content=" ", left=1)] if space_first else []
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return backend, _SENTENCEPIECE_IDS, True, False


def implied_merges(tokens: list[str], kinds: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """Every way to make a token from two others, best score first: SentencePiece joins what gives the best piece.

    Of equal scores, as Llama 2 and Mistral give all runs of blanks, the longest left part is first: SentencePiece and
    llama.cpp join from the left.
    """
    ids = {token: id for id, token in enumerate(tokens) if kinds[id] not in (_CONTROL, _UNKNOWN, _UNUSED)}
    found: list[tuple[float, int, str, str]] = []
    for token, id in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                found.append((-scores[id], -len(left), left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _bpe(file: GgufFile, tokens: list[str], merges: list[tuple[str, str]], **options: Any) -> models.BPE:
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        raise _damaged(file, "the same token twice")
    missing = next((pair for pair in merges if "".join(pair) not in vocabulary), None)
    if missing or any(part not in vocabulary for pair in merges for part in pair):
        raise _damaged(file, "merges of tokens that its vocabulary lacks")
    return models.BPE(vocab=vocabulary, merges=merges, **options)


def _post_processor(
    file: GgufFile, backend: Tokenizer, named: dict[str, str | None], begins: bool, ends: bool
) -> processors.PostProcessor:
    """Adds begin and end of text where the file asks for it. Always set: transformers replaces a missing one."""
    wanted = {
        "bos": file.metadata.get("tokenizer.ggml.add_bos_token", begins),
        "eos": file.metadata.get("tokenizer.ggml.add_eos_token", ends),
    }
    used = {name: token for name in wanted if wanted[name] and (token := named[name]) is not None}
    before, after = ([used[name]] if name in used else [] for name in ("bos", "eos"))
    return processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *(f"{token}:1" for token in before), "$B:1", *(f"{t}:1" for t in after)],
        special_tokens=[(token, backend.token_to_id(token)) for token in used.values()],
    )


def _token(file: GgufFile, tokens: list[str], name: str, default: int | None) -> str | None:
    id: int | None = file.metadata.get(f"tokenizer.ggml.{_KEYS[name]}_token_id", default)
    if id is None:
        return None
    if not 0 <= id < len(tokens):
        raise _damaged(file, f"token {id} as {name}, of {len(tokens):,}")
    return tokens[id]


def _pair(file: GgufFile, merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right:
        raise _damaged(file, f"the merge {merge!r}")
    return left, right


def _entry(file: GgufFile, key: str) -> Any:
    value = file.metadata.get(f"tokenizer.ggml.{key}")
    if not value:
        raise ModelError(f"{file.path} has no tokenizer.ggml.{key}: it carries no tokenizer.", _CONVERT_AGAIN)
    return value


def _damaged(file: GgufFile, what: str) -> ModelError:
    return ModelError(f"{file.path} has a tokenizer with {what}.", "Download it again. " + _CONVERT_AGAIN)
