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
    assert [line.split()[0] for line in text.split('"""')[-1].splitlines() if line] == ["PARAMETER"] * 7
    assert text.count("FROM ./my.gguf") == 1
    assert 'stop """fine"""' in text


def test_the_sampling_is_named_whole_as_each_program_has_defaults_of_its_own():
    lines = modelfile(USE).splitlines()
    for wanted in ("temperature 0.7", "top_p 0.9", "top_k 0", "min_p 0", "repeat_penalty 1", "num_predict 256"):
        assert f"PARAMETER {wanted}" in lines
    page = how_to(USE, "my-model")
    assert "--temp 0.7 --top-p 0.9 --top-k 0 --min-p 0 --repeat-penalty 1 -n 256" in page
    assert "temperature 0.7, top P 0.9, top K 0, min P 0, repeat penalty 1, at most 256 tokens" in page


def test_a_stop_string_with_a_line_break_is_written_whole_and_shown_on_one_line():
    use = dataclasses.replace(USE, stops=("<|end|>", "\n[end]"))
    assert 'PARAMETER stop """\n[end]"""\n' in modelfile(use)  # as Ollama's own parser has it in its tests
    assert how_to(use, "my-model").count("<|end|>, \\n[end]\n") == 2


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
