"""A text -> the language it is written in, where that is plain; None where it is not.

"Where is the key to the shed?"  ->  "English"       "Wo ist der Schlüssel?"  ->  "German"
"OK"                             ->  None            "鍵はどこですか"            ->  "Japanese"

Told by the script or, among languages in Latin letters, by their commonest words. It is made to be silent rather than
wrong: a name or a title in another language must not make a row foreign.
"""

from __future__ import annotations

import re
from functools import cache

# Words that no other language of this list has, of the commonest hundred.
_WORDS = {
    "English": "the and is are was were what how which with this that from have has you they their would should there"
    " of when where who why can does did been not your it's its our be to for or by",
    "German": "der das und ist nicht ein eine ich sie wir mit auf für von dem den wie wird werden auch sich bei oder"
    " sind kann haben über einen einer zum zur wo wann warum welche nach ihr",
    "French": "le les est et une des dans pour que qui vous nous avec sur pas sont du au aux cette ce mais où votre"
    " comment quelle quel peut être avez ou elle il",
    "Spanish": "el los las y una del por para con qué cómo está son pero más su se puede cuál dónde cuándo usted"
    " hay esta este muy sus",
    "Italian": "il gli di che è per non con sono una della del nel anche più come quale dove cosa questo questa alla"
    " dei delle può si",
    "Portuguese": "o os uma do da dos das em não para com que é por mais como você são qual onde quando pode está"
    " ao seu sua no na",
    "Dutch": "het een van en is niet met voor zijn wat hoe waar op ik je wij deze kan wordt naar ook bij dat aan uw",
    "Polish": "jest nie się na że jak co czy gdzie kiedy oraz dla są można przez który która od lub",
    "Swedish": "och är att det som inte på för av en ett med kan hur vad när var till har från eller",
    "Turkish": "ve bir bu için ile ne nasıl nerede mı mi değil olan olarak daha var",
}
_LANGUAGES = tuple(_WORDS)
_WORDS_OF = {language: frozenset(words.split()) for language, words in _WORDS.items()}
# A word's languages as a number of one byte for each, 1 where it is of that one: a sum of these counts all at once.
_OWNERS = {
    word: int.from_bytes(bytes(word in _WORDS_OF[language] for language in _LANGUAGES), "little")
    for word in frozenset().union(*_WORDS_OF.values())
}
_FEWEST_WORDS = 3  # of a language, to be sure of it
_LEAD = 2  # times as many as of any other
_SMALLEST_SHARE = 0.1  # of all words

_SCRIPTS = {
    "Japanese": "\u3040-\u30ff",
    "Korean": "\uac00-\ud7af\u1100-\u11ff",
    "Chinese": "\u4e00-\u9fff\u3400-\u4dbf",
    "a language in Cyrillic letters": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff",
    "a language in Arabic letters": "\u0600-\u06ff\u0750-\u077f",
    "Hebrew": "\u0590-\u05ff",
    "Thai": "\u0e00-\u0e7f",
    "a language of India": "\u0900-\u0dff",
}
_SCRIPT_LETTERS = {language: re.compile(f"[{letters}]+") for language, letters in _SCRIPTS.items()}
_OTHER_LETTERS = re.compile(f"[{''.join(_SCRIPTS.values())}]+")
_LATIN_WORD = re.compile(r"[a-zA-Z\u00c0-\u024f']+")
# What the pattern finds where all letters are Latin-1's, in a fifth of the time; other signs become "?" there.
_SPACES_BETWEEN = bytes(code if _LATIN_WORD.match(chr(code)) else 32 for code in range(256))
_BEYOND_LATIN_1 = re.compile(f"[\u0100-\u024f{''.join(_SCRIPTS.values())}]")
_LONGEST = 2000  # characters looked at


def language_of(text: str) -> str | None:
    """The language that the text is plainly written in."""
    text = text[:_LONGEST]
    lower = text.lower()
    in_latin_1 = lower.isascii() or not _BEYOND_LATIN_1.search(lower)
    if not in_latin_1 and (letters := "".join(_OTHER_LETTERS.findall(text))) and (script := _script(text, letters)):
        return script
    words = _latin_words(lower) if in_latin_1 else _LATIN_WORD.findall(lower)
    known = list(filter(_OWNERS.__contains__, words))
    # Different ones: program code is full of "el" and "y".
    counts = sum(map(_OWNERS.__getitem__, set(known))).to_bytes(len(_LANGUAGES), "little")
    *_, second, most = sorted(counts)
    if most < max(_FEWEST_WORDS, _LEAD * second):
        return None
    best = _LANGUAGES[counts.index(most)]
    return best if sum(map(_WORDS_OF[best].__contains__, known)) >= _SMALLEST_SHARE * len(words) else None


def _script(text: str, letters: str) -> str | None:
    """The language of the script that most letters of the text are of; `letters` are those of all these scripts."""
    first = _script_of(letters[0])
    if _SCRIPT_LETTERS[first].fullmatch(letters):
        found = {first: len(letters)}
    else:
        found = {language: sum(map(len, each.findall(letters))) for language, each in _SCRIPT_LETTERS.items()}
    most = len(text)  # letters, or fewer: they are counted where it matters, which takes longer than all the rest
    for language, count in found.items():
        # Japanese is written with Chinese signs between its own.
        share = 0.2 if language == "Japanese" else 0.5
        if count > 1 and (count > share * most or count > share * sum(map(str.isalpha, text))):
            return language
    return None


@cache
def _script_of(letter: str) -> str:
    return next(language for language, letters in _SCRIPT_LETTERS.items() if letters.match(letter))


def _latin_words(lower: str) -> list[str]:
    return lower.encode("latin-1", "replace").translate(_SPACES_BETWEEN).decode("latin-1").split()
