"""How good an answer is, judged by its text beside the one that was hoped for. All scores lie between 0 and 1."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Literal

from rapidfuzz.distance import LCSseq
from sacrebleu.metrics.chrf import CHRF

_CHRF = CHRF()
_NUMBER = re.compile(
    r"""(?P<sign>(?<![\w%°€)])[-+\u2212])?  # after a number or a letter it is the dash of a range or a word
        (?:(?P<dots>(?<![\d.,])[1-9]\d{0,2}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,})(?![.,]?\d))  # 1.417,5; 1.417.000
          |(?P<marks>(?<![\d.,])[1-9]\d{0,2}(?:['\u2019]\d{3})+(?:\.\d+)?(?!\d))  # 1'417.5
          |(?P<commas>[1-9]\d*(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?)  # 1,417.5
          |(?P<others>(?<!\d,)\d+(?:[\u00a0\u202f]\d{3})*,\d+(?!,?\d)  # 3,5
                     |\d+(?:[\u00a0\u202f]\d{3}(?!\d))*(?:\.\d+)?))  # 1417.5
        (?P<exponent>[eE][-+]?\d+)?""",
    re.VERBOSE,
)
_CLOSE = 1e-6  # relative, so that 0.1 + 0.2 is 0.3
# Scripts written without spaces: Thai, Lao, Burmese, Khmer, Japanese and Chinese.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
_EMOJI_MARKS = re.compile(r"[\ufe00-\ufe0f\u20dd-\u20e4]")  # around the 7 of a keycap
# Words that, said so many times over, are a model going round in a circle. "You can do that by" is eight letters of
# Japanese, and may well come again.
_PHRASE, _UNSPACED_PHRASE, _TIMES = 4, 12, 3
_FACT = 6  # words; what is longer is a sentence that is hardly ever said again word for word
_UNSPACED_WORD = 2  # letters of Japanese or Chinese


def contains_fact(answer: str, fact: str) -> bool:
    """Whether the fact stands in the answer as whole words; case, punctuation and spacing aside."""
    return f" {' '.join(words(fact))} " in f" {' '.join(words(answer))} "


def share_right(answers: Sequence[str], facts: Sequence[str]) -> float:
    """Share of the answers that contain their fact."""
    return sum(map(contains_fact, answers, facts)) / len(facts)


def exact_match(answer: str, expected: str) -> float:
    """1 when both are the same words; case, punctuation and spacing aside."""
    return float(words(answer) == words(expected))


def token_f1(answer: str, expected: str) -> float:
    """Harmonic mean of the shares of shared words, as in SQuAD (Rajpurkar et al., 2016)."""
    said, hoped = words(answer), words(expected)
    shared = sum((Counter(said) & Counter(hoped)).values())
    return _harmonic(shared, said, hoped)


def rouge_l(answer: str, expected: str) -> float:
    """F measure of the longest common subsequence of words (Lin, 2004, "ROUGE")."""
    said, hoped = words(answer), words(expected)
    return _harmonic(LCSseq.similarity(said, hoped), said, hoped)


def chrf(answer: str, expected: str) -> float:
    """F measure of shared character sequences, by sacrebleu (Popović, 2015); forgiving to endings and spelling."""
    return float(_CHRF.sentence_score(answer, [expected]).score) / 100


def has_number(text: str) -> bool:
    """Whether some number stands in it, in digits."""
    return _NUMBER.search(text) is not None


def same_numbers(answer: str, expected: str) -> bool | None:
    """Whether every number of the expected answer stands in the answer; None when it has none.

    1,417 and 1.417,50 are a thousand and more, 3,5 three and a half, and 1.417 is one and a half; 10-15 is 10 and 15.
    """
    said, hoped = _numbers(answer), _numbers(expected)
    return all(any(_is_close(number, other) for other in said) for number in hoped) if hoped else None


def goes_in_circles(answer: str) -> bool:
    """Whether some four words come three times, as from a model that does not find the end.

    Where the words are letters of a script without spaces, it takes twelve of them.
    """
    said = words(answer)
    phrase = _UNSPACED_PHRASE if 2 * sum(map(_is_unspaced, said)) > len(said) else _PHRASE
    phrases = Counter(tuple(said[start : start + phrase]) for start in range(len(said) - phrase + 1))
    return any(count >= _TIMES for count in phrases.values())


def are_sentences(texts: Sequence[str]) -> bool:
    """Whether most of the texts are longer than a name, a number or another fact."""
    return median(map(_length, texts)) > _FACT


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; vowel signs and accents stay with their letter.

    In a script written without spaces each letter is a word: nothing in the text says where its words end.
    """
    found: list[str] = []
    open_to: Literal["nothing", "marks", "letters"] = "nothing"  # what the last word takes in
    for sign in unicodedata.normalize("NFKC", _EMOJI_MARKS.sub("", text)).casefold():
        if unicodedata.category(sign).startswith("M"):
            if open_to != "nothing":
                found[-1] += sign
        elif not sign.isalnum() and sign != "_":
            open_to = "nothing"
        elif sign.isalpha() and _UNSPACED.match(sign):
            found.append(sign)
            open_to = "marks"
        elif open_to == "letters":
            found[-1] += sign
        else:
            found.append(sign)
            open_to = "letters"
    return found


def _length(text: str) -> float:
    return sum(1 / _UNSPACED_WORD if _is_unspaced(word) else 1 for word in words(text))


def _is_unspaced(word: str) -> bool:
    return word[0].isalpha() and _UNSPACED.match(word) is not None


def _harmonic(shared: int, said: Sequence[str], hoped: Sequence[str]) -> float:
    if not said or not hoped:
        return float(said == hoped)
    return 2 * shared / (len(said) + len(hoped))


def _numbers(text: str) -> list[float]:
    return list(map(_number, _NUMBER.finditer(text)))


def _number(found: re.Match[str]) -> float:
    sign = "-" if found["sign"] in ("-", "\u2212") else ""
    if found["dots"]:
        digits = found["dots"].replace(".", "").replace(",", ".")
    elif found["marks"]:
        digits = re.sub("['\u2019]", "", found["marks"])
    elif found["commas"]:
        digits = found["commas"].replace(",", "")
    else:
        digits = re.sub(r"[\u00a0\u202f]", "", found["others"]).replace(",", ".")
    return float(f"{sign}{digits}{found['exponent'] or ''}")


def _is_close(one: float, other: float) -> bool:
    return abs(one - other) <= _CLOSE * max(abs(one), abs(other))
