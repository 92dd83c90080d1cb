"""Addresses, numbers and keys are found and never shown whole; dates, amounts and versions are left alone."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.sheet.personal_data import find_personal, hide_personal


@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        ("e-mail address", "jane.doe+x@firm.co.uk"),
        ("phone number", "+44 20 7946 0958"),
        ("phone number", "+49 (0)30 1234567"),
        ("phone number", "(415) 555-2671"),
        ("phone number", "415-555-2671"),
        ("phone number", "030 12345678"),
        ("phone number", "06 12 34 56 78"),
        ("card number", "4111 1111 1111 1111"),
        ("card number", "378282246310005"),
        ("bank account number", "DE89 3704 0044 0532 0130 00"),
        ("social security number", "078-05-1120"),
        ("secret key", "sk-proj-abc123DEF456ghi789JKL012"),
        ("secret key", "AKIAIOSFODNN7EXAMPLE"),
        ("secret key", "ghp_" + "a1B2" * 9),
    ],
)
def test_is_found_and_hidden(kind: str, secret: str) -> None:
    text = f"Write or call {secret}, please."
    assert [(found.kind, text[found.start : found.end]) for found in find_personal(text)] == [(kind, secret)]
    assert secret not in hide_personal(text)
    assert secret[3:] not in hide_personal(text)
    assert hide_personal(text) == f"Write or call {secret[:2]}…, please."


def test_a_private_key_is_hidden_to_its_end() -> None:
    assert hide_personal("Use -----BEGIN RSA PRIVATE KEY-----\nMIIEow\n") == "Use --…"


@pytest.mark.parametrize(
    "text",
    [
        "on 2024-03-12 at 10:30, and 01/02/2024",
        "ISBN 978-3-16-148410-0",
        "192.168.100.200",
        "1,234,567.89 and 10 000 000 000",
        "from 1914-1918 to 1939-1945; 1914 1918 1939 1945",
        "3.14159265358979",
        "version 10.0.19041.1",
        "4111 1111 1111 1112",
        "12345678901234",
        'all(c in "0123456789" for c in text)',
        "sk-this-is-a-very-long-hyphenated-thing",
        "user@example.com",
        "a @ b, @property, x@y",
        "DE12 3456 7890 1234 5678 90",
    ],
)
def test_is_left_alone(text: str) -> None:
    assert find_personal(text) == []
    assert hide_personal(text) == text


@given(st.text(alphabet="+0123456789 ()-.@aA_/", max_size=60))
def test_spans_are_apart_and_in_order(text: str) -> None:
    found = find_personal(text)
    assert all(one.end <= other.start for one, other in pairwise(found))


@pytest.mark.parametrize("text", ["+1" * 15_000, "+1 (" * 8_000, "0" * 30_000, "a.@" * 10_000, "sk-" + "a-" * 15_000])
def test_a_hostile_cell_takes_no_minutes(text: str) -> None:
    start = time.perf_counter()
    find_personal(text)
    assert time.perf_counter() - start < 5
