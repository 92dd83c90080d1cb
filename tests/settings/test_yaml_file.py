"""A settings file is values and nothing that could explode; what is refused is named with its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phinetune.errors import SettingsError
from phinetune.settings import load

LAUGHS = "a0: &a0 [ha]\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))


def refusal(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        load(config=path)
    assert caught.value.hint
    assert len(str(caught.value)) < 6000
    return caught.value.message


def test_honest_settings_are_read(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("\ufefflora:\n  r: 8\ntrain: {learning_rate: 1e-3, epochs: 2}\n")
    settings = load(config=tmp_path / "settings.yaml")
    assert (settings.lora.r, settings.train.learning_rate, settings.train.epochs) == (8, 1e-3, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "line 1 is not valid: anchors (& and *) are not taken"),
        ("lora: &a\n  r: *a\n", "line 1 is not valid: anchors"),
        ("lora: {<<: *b}", "anchors"),
        ("lora: {r: 8}\nlora: {r: 16}", "line 2 is not valid: lora stands there twice"),
        ("lora: {r: 8, r: 16}", "r stands there twice"),
        ("lora: !!python/object/apply:os.abort []", "tag tag:yaml.org,2002:python/object/apply:os.abort is not taken"),
        ("lora: !!binary aGVsbG8=", "tag"),
        ("lora: " + "[" * 100_000, "more than 12 levels"),
        ("lora: " + "{a: " * 5000 + "1" + "}" * 5000, "more than 12 levels"),
        ("train: {epochs: 2001-99-99}", "a value cannot be read (month must be in 1..12)"),
        ("train: {epochs: " + "9" * 100_000 + "}", "a value cannot be read (Exceeds the limit"),
        ('model: "\\ud800"', "half a letter"),
        ("- lora\n- train", "holds no settings"),
        ("1: 2", "holds no settings"),
        (bytes(range(128, 256)), "it is not text"),
        (b"a" * (2 << 20), "has 2,048 KiB"),
        ("lora: {r: 8}\n---\nlora: {r: 16}", "line 2"),
    ],
)
def test_what_could_explode_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_of_a_thousand_problems_the_first_are_told(tmp_path: Path) -> None:
    message = refusal(tmp_path, "\n".join(f"{'name' * 10}{n}: {'9' * 80}" for n in range(1000)))
    assert message.startswith("1000 settings are wrong")
    assert message.endswith("… and 980 more")


def test_a_number_without_end_is_not_shown(tmp_path: Path) -> None:
    assert "a number of thousands of digits" in refusal(tmp_path, f"train: {{epochs: 0x{'f' * 100_000}}}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_is_no_settings_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "settings.yaml")
    with pytest.raises(SettingsError, match="is no file"):
        load(config=tmp_path / "settings.yaml")


@pytest.mark.parametrize("text", ["lora.r=*a", "lora.r=" + "[" * 10_000, "lora.r=!!python/name:os.abort"])
def test_values_on_the_command_line_are_read_the_same_way(text: str) -> None:
    with pytest.raises(SettingsError, match="lora.r = "):
        load(assignments=[text])
