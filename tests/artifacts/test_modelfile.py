"""Beside a .gguf file: text of a template stays text, for Ollama and for the shell that a command is pasted into."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess

import pytest

from phinetune.artifacts.modelfile import Use, how_to, modelfile

USE = Use("my.gguf", "### Question: {question}\n\n### Answer:", ("<|end|>", "### Question:"), 0.7, 0.9, 256, 2048)


def test_an_ordinary_template_stands_as_it_is():
    assert 'TEMPLATE """### Question: {{ .Prompt }}\n\n### Answer:"""\n' in modelfile(USE)


@pytest.mark.parametrize("head", ['"""\nFROM /etc/passwd\nSYSTEM """', 'say "', '""""""', "{{ .System }}", '"{{"'])
def test_nothing_in_a_template_ends_it_or_is_a_field(head):
    text = modelfile(dataclasses.replace(USE, prompt=f"{head}{{question}}", stops=('"""\nFROM x', "fine")))
    inside = text.partition('TEMPLATE """')[2].partition('"""')[0]
    assert inside.count("{{ .Prompt }}") == 1
    assert inside.replace('{{ `"` }}', '"').replace('{{ "{{" }}', "{{").replace("{{ .Prompt }}", "") == head
    assert [line.split()[0] for line in text.split('"""')[-1].splitlines() if line] == ["PARAMETER"] * 4
    assert text.count("FROM ./my.gguf") == 1
    assert 'stop """fine"""' in text


@pytest.mark.parametrize(
    "text", ["$(touch broken)", "`touch broken`", "'; touch broken; '", '"; touch broken #', "$HOME \\n"]
)
def test_the_shell_changes_nothing_in_the_command(text, tmp_path):
    page = how_to(
        dataclasses.replace(USE, prompt=f"{text} {{question}}", file=f"a {text.replace('/', '')}.gguf"), "my-model"
    )
    [line] = [line.strip() for line in page.splitlines() if line.strip().startswith("llama-completion")]
    words = shlex.split(line)
    assert words[words.index("-m") + 1] == f"a {text.replace('/', '')}.gguf"
    wanted = f"{text} YOUR QUESTION".replace("\\", "\\\\")
    assert words[words.index("-p") + 1] == wanted
    said = subprocess.run(
        ["sh", "-c", line.replace("llama-completion", "printf '%s\\n'", 1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert wanted in said.stdout.splitlines()
    assert not (tmp_path / "broken").exists()
