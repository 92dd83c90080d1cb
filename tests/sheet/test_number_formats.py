"""Numbers in a simple format are shown as Excel shows them; of others it is only known that they have one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.sheet.number_formats import format_code, show


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (0.15, "0%", "15%"),
        (0.145, "0%", "15%"),
        (1.0, "0 %", "100 %"),
        (0.1 + 0.2, "0.00%", "30.00%"),
        (-0.05, "0.0%", "-5.0%"),
        (1067, "00000", "01067"),
        (-7, "000", "-007"),
        (123456, "00000", "123456"),
        (2.5, "0", "3"),
        (4915112345678901.0, "0", "4915112345678901"),
        (2.345, "0.00", "2.35"),
        (-0.001, "0.00", "0.00"),
    ],
)
def test_simple(value: float, code: str, shown: str) -> None:
    assert show(value, code) == shown


@pytest.mark.parametrize("code", ["#,##0.00", '0" kg"', "dd.mm.yyyy", "0.00E+00", "0;-0", "[Red]0", "0" * 99, ""])
def test_not_simple(code: str) -> None:
    assert show(5, code) is None


@given(st.floats(), st.sampled_from(["0", "0%", "0.00", "00000", "0.000000000000000%"]))
def test_any_number_is_shown_or_not(value: float, code: str) -> None:
    shown = show(value, code)
    assert shown is None or float(shown.rstrip("%")) == pytest.approx(
        value * (100 if "%" in code else 1), rel=1e-14, abs=0.51
    )


@pytest.mark.parametrize(
    ("number", "custom", "code"),
    [
        (0, None, None), (49, None, None), (9, None, "0%"), (10, None, "0.00%"), (14, None, "by country"),
        (164, "00000", "00000"), (165, "0\\ %", "0 %"), (166, "yyyy\\-mm\\-dd", None), (167, "General", None),
    ],
)  # fmt: skip
def test_codes(number: int, custom: str | None, code: str | None) -> None:
    assert format_code(number, custom) == code
