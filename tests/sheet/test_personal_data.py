"""Addresses, numbers and keys are found and never shown whole; dates, amounts and versions are left alone."""

from __future__ import annotations

import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.sheet.personal_data import _may_have_digits, find_personal, hide_personal


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


AWS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("kind", "text", "secret"),
    [
        ("password", "Log in with user admin, password: hunter2, and wait.", "hunter2"),
        ("password", "DB_PASSWORD=hunter2", "hunter2"),
        ("password", 'password = "Summer2024!"', "Summer2024!"),
        ("password", "**Password:** Summer2024.", "Summer2024"),
        ("password", "Password: **hunter2**", "hunter2"),
        ("password", "Das Passwort: Sommer24", "Sommer24"),
        ("password", "wifi password: 12345678", "12345678"),
        ("secret key", f"aws_secret_access_key={AWS_KEY}", AWS_KEY),
        ("secret key", '"api_key": "9f8e7d6c5b4a3f2e1d0c",', "9f8e7d6c5b4a3f2e1d0c"),
        ("secret key", "Authorization: Bearer 4f9a.b27c~d81e-5530 goes first", "4f9a.b27c~d81e-5530"),
        ("secret key", "client_secret: Zx81kQ02mm3Lp", "Zx81kQ02mm3Lp"),
    ],
)  # fmt: skip
def test_what_is_called_a_secret_is_found_and_hidden(kind: str, text: str, secret: str) -> None:
    assert [(found.kind, text[found.start : found.end]) for found in find_personal(text)] == [(kind, secret)]
    assert hide_personal(text) == text.replace(secret, f"{secret[:2]}…")


@pytest.mark.parametrize(
    "text",
    [
        "The wifi password for guests is gooseberry lantern",
        "Your password: how to reset it",
        "Password: required. Password: 8-16 characters. Password: 10-character minimum",
        "Password: SHA256 with salt; token: base64url-encoded-12-34",
        "Forgot your password? Visit https://firm.org/reset2",
        "password: https://firm.org/reset2",
        "password: <your-password1>, token=$TOKEN_12345678, api_key={key_12345678}",
        "password=your_password1, password: ********, api_key=YOUR_API_KEY_123456",
        "password = input()",
        "password1 = password2",
        "password = make2(x); token = tokens[0]; secret = form.password1; max_token=100000",
        "Bearer <token>; Bearer YOUR_TOKEN; bearer bonds of the municipality",
        "The next token: international",
    ],
)
def test_what_only_speaks_of_secrets_is_left_alone(text: str) -> None:
    assert find_personal(text) == []


def test_a_part_is_hidden_by_what_the_whole_says() -> None:
    text = "password: hunter2 and jane@firm.org"
    assert hide_personal(text, 10, 17) == "hu…"
    assert hide_personal(text, 10, 21) == "hu… and"
    assert hide_personal(text, 12, 21) == "… and"
    assert hide_personal(text, 0, 9) == "password:"


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


@pytest.mark.parametrize(
    "text",
    [
        "+1" * 15_000,
        "+1 (" * 8_000,
        "0" * 30_000,
        "a.@" * 10_000,
        "sk-" + "a-" * 15_000,
        "password:" * 4_000,
        "token=a1" * 4_000,
    ],
)
def test_a_hostile_cell_takes_no_minutes(text: str) -> None:
    start = time.perf_counter()
    find_personal(text)
    assert time.perf_counter() - start < 5


def test_digits_of_every_script_are_seen_at_a_glance():
    digits = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isdecimal()]
    assert len(digits) > 600
    assert all(_may_have_digits(digit * 8) for digit in digits)
    assert not _may_have_digits("Ein Schlüssel für 7 Türen, ключ 12, 鍵")
