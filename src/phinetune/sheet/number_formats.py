"""How a workbook shows its numbers, where that is simple: percents, leading zeros, a fixed number of decimals.

show(0.15, "0%")  ->  "15%"    show(1067, "00000")  ->  "01067"    show(1234.5, '#,##0.00 "€"')  ->  None
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation


@dataclass(frozen=True, slots=True)
class Formatted:
    """A number, or a day in ISO form, with a format: as it is stored, and as the sheet shows it where that is known."""

    stored: float | str
    shown: str | None


# Formats with a number and no name in ISO/IEC 29500-1, 18.8.30; others of them show dates and amounts by the country.
_BUILT_IN = {1: "0", 2: "0.00", 9: "0%", 10: "0.00%"}
_BY_COUNTRY = "by country"
_CUSTOM = 164  # where formats of the workbook itself begin
# What these show is what we write.
_AS_WRITTEN = {"general", "@", "yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss", "yyyy-mm-dd h:mm:ss", "[h]:mm:ss"}
_AS_WRITTEN_BUILT_IN = {0, 46, 49}  # General, [h]:mm:ss, text
_SIMPLE = re.compile(r"(?P<whole>0{1,20})(?:\.(?P<part>0{1,15}))?(?P<percent> ?%)?")


def format_code(number: int, custom: str | None) -> str | None:
    """The format of that number, `custom` being what the workbook says of it; None where it changes nothing."""
    if custom is None or number < _CUSTOM:
        return None if number in _AS_WRITTEN_BUILT_IN else _BUILT_IN.get(number, _BY_COUNTRY)
    plain = custom.replace("\\", "")
    return None if plain.lower() in _AS_WRITTEN else plain


def show(value: float, code: str) -> str | None:
    """The number in that format; None where the format is not simple."""
    simple = _SIMPLE.fullmatch(code)
    if not simple:
        return None
    decimals = len(simple["part"] or "")
    percent = simple["percent"] or ""
    try:
        # Excel rounds the 15 digits that it shows, and up at the half; a whole number keeps what it has beyond them.
        digits = repr(value) if float(value).is_integer() else f"{value:.15g}"
        exact = Decimal(digits).scaleb(2 if percent else 0)
        rounded = exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    except InvalidOperation:
        return None
    if not rounded.is_finite():
        return None
    width = len(simple["whole"]) + (decimals + 1 if decimals else 0)
    return f"{'-' if rounded < 0 else ''}{abs(rounded):0{width}f}{percent}"
