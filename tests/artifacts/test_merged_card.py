"""The card of a merged folder: of a whole model, and its code runs."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
import toys
import yaml

import phinetune
from phinetune.artifacts.card_parts import Asking
from phinetune.artifacts.merged_card import MergedFacts, merged_card

ASKING = Asking("### Question: {question}\n\n### Answer:", " {answer}", 0.0, 1.0, 20)
FACTS = MergedFacts("microsoft/phi-2", "mit", "bf16", 0.32, "held-out pairs", ASKING)


def _front_matter(text):
    return yaml.safe_load(text.split("---\n", 2)[1])


def _python(text):
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def test_it_says_that_it_is_a_whole_model():
    text = merged_card(FACTS)
    assert _front_matter(text) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "microsoft/phi-2",
        "base_model_relation": "finetune",
        "license": "mit",
        "tags": ["phinetune", "base_model:finetune:microsoft/phi-2"],
    }
    assert "peft" not in text.lower()
    for said in ("# microsoft/phi-2 tuned on", "A whole language model: `microsoft/phi-2`", "held-out pairs is 0.320"):
        assert said in text
    assert "in bf16" in text


def test_what_is_not_known_is_left_out():
    text = merged_card(MergedFacts(None, None, "fp32", 0.32, "held-out pairs", ASKING))
    assert set(_front_matter(text)) == {"library_name", "pipeline_tag", "tags"}
    assert "# A language model tuned on" in text


@pytest.mark.parametrize("hostile", ["a`b\n---\nlicense: x\n# H/x", "<script>x</script>/[l](u)"])
def test_a_base_model_cannot_write_into_it(hostile):
    text = merged_card(MergedFacts(hostile, None, "fp32", 0.32, "held-out pairs", ASKING))
    assert set(_front_matter(text)) == {"library_name", "pipeline_tag", "base_model", "base_model_relation", "tags"}
    assert "\n# H" not in text


def test_its_code_answers_like_the_model(toy_run, tmp_path):
    question = toys.PAIRS[0][0]
    expected = phinetune.ask(toy_run, question, greedy=True)
    merged = phinetune.merge(toy_run, tmp_path / "merged", dtype="fp32").path
    python = _python((merged / "README.md").read_text(encoding="utf-8"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(python.replace("path/to/merged", str(merged)).replace("Your question", question), {})
    assert said.getvalue().strip() == expected
