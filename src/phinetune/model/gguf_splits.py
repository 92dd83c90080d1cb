"""How text is cut into words before byte-pair merging: `tokenizer.ggml.pre` -> a pre-tokenizer.

    "smollm":  "In 1984, "  ->  "In" " " "1" "9" "8" "4" "," " "

A GGUF file carries vocabulary and merges but only the name of this step. A wrong guess still tokenizes, into
pieces the model was never trained on, so an unknown name is refused. The names and which family each belongs to
are llama.cpp's (src/llama-vocab.cpp); the patterns are those of the models' own tokenizer.json files.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PUNCTUATION_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SPACE}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_PUNCTUATION_AND_SPACE}"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Splits:
    """One family: patterns applied one after the other, each to the pieces the one before left."""

    patterns: tuple[str, ...]
    whole_words_first: bool = False
    """A word that is a token as a whole is taken as it is, whatever the merges say."""
    begins_with_bos: bool = False
    """Whether a file that does not say so means a beginning-of-text token."""
    composed: bool = False
    """Whether accents are first joined with their letters (Unicode NFC)."""

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        bytes_as_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([*splits, bytes_as_letters])

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.composed else None


_WORDS = Splits((_GPT2,))
_WORDS_AND_DIGITS = Splits((r"\p{N}", _GPT2))
_LLAMA3_SPLITS = Splits((_LLAMA3,), whole_words_first=True, begins_with_bos=True)
_QWEN2_SPLITS = Splits((_QWEN2,), composed=True)

SPLITS = {
    "gpt-2": _WORDS,
    "phi-2": _WORDS,
    "smollm": _WORDS_AND_DIGITS,
    "starcoder": _WORDS_AND_DIGITS,
    "refact": _WORDS_AND_DIGITS,
    "command-r": _WORDS_AND_DIGITS,
    "llama3": _LLAMA3_SPLITS,
    "llama-v3": _LLAMA3_SPLITS,
    "llama-bpe": _LLAMA3_SPLITS,
    "falcon3": _LLAMA3_SPLITS,
    "smaug-bpe": Splits((_LLAMA3,)),
    "dbrx": Splits((_LLAMA3,)),
    "qwen2": _QWEN2_SPLITS,
    "deepseek-r1-qwen": _QWEN2_SPLITS,
    "megrez": _QWEN2_SPLITS,
    "stablelm2": Splits((_QWEN2,)),
    "tekken": Splits((_TEKKEN,), whole_words_first=True, begins_with_bos=True),
    "default": Splits((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}

# Files older than April 2024 do not name the step; these architectures have only ever had one.
UNNAMED = {"phi2": "phi-2", "qwen2": "qwen2"}
