"""Bytes of a text file -> text, and the encoding when it had to be guessed."""

from __future__ import annotations

import codecs
import re

# Accented Latin letters stand alone between plain ones, letters of other scripts stand side by side. The two
# families are told apart by that, which detectors miss on short files ("Köln" alone passes for Chinese).
# Within a family, earlier wins a tie.
_LATIN = ["cp1252", "cp1250", "cp1254", "cp1257"]
_OTHER_SCRIPTS = ["gb18030", "cp932", "big5", "cp949", "cp1255", "cp1256", "cp1251", "cp1253"]

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SAMPLE = 200_000


def decode(data: bytes) -> tuple[str, str | None]:
    """The text, and the name of its encoding if it was a guess.

    Raises UnicodeError when the bytes are no text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding), None
    if unmarked := _unmarked_utf16(data[:_SAMPLE]):
        return data.decode(unmarked), None
    if b"\0" in data[:_SAMPLE]:
        raise UnicodeError("binary data")
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        return _guess(data)


def _guess(data: bytes) -> tuple[str, str]:
    from charset_normalizer import from_bytes

    high_bytes = re.findall(rb"[\x80-\xff]+", data[:_SAMPLE])
    sprinkled = sum(map(len, high_bytes)) < 1.8 * len(high_bytes)
    family = _LATIN if sprinkled else _OTHER_SCRIPTS
    matches = {
        encoding: match
        for match in from_bytes(data[:_SAMPLE], cp_isolation=family)
        for encoding in match.could_be_from_charset
    }

    def doubt(encoding: str) -> tuple[float, float]:
        match = matches.get(encoding)
        return (round(match.chaos, 2), -round(match.coherence, 2)) if match else (1.0, 0.0)

    for encoding in sorted(family, key=doubt):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise UnicodeError("no encoding fits")


def _unmarked_utf16(sample: bytes) -> str | None:
    """Text that is mostly Latin has a zero in every other byte of UTF-16."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) < len(sample) / 4 or min(even, odd) > len(sample) / 50:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"
