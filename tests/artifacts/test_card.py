"""The model card: true, loadable, and not to be broken by what a sheet calls itself."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
import yaml
from markdown_it import MarkdownIt

from phinetune.artifacts.card import CardFacts, card, write_card
from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.artifacts.metrics import MetricsRow, summary
from phinetune.events import Endings, Recalled
from phinetune.settings import Settings

HEADINGS = ["Data", "How training went", "Ask it", "Prompt format", "Limits", "Settings"]
HOSTILE = "a`b``c|d\n---\nlicense: x\n# Heading\n</td><script>x</script> [l](u) **b** ```\n```\n# H\n```python\nx"

ROWS = [
    MetricsRow(0, 0.0, None, 2.82, None, None, 0, 0.0),
    MetricsRow(1, 0.5, 4.0, None, 1e-4, 1.0, 1000, 2.0),
    MetricsRow(2, 1.0, 3.0, 2.35, 1e-4, 1.0, 1000, 2.0),
]
FIGURES = summary(
    ROWS,
    trainable_parameters=23_592_960,
    total_parameters=2_803_276_800,
    train_pairs=440,
    validation_pairs=49,
    stopped="early_stopping",
    seconds=17.4,
    peak_memory_gb=9.8,
    kept_step=2,
    recalled=[Recalled(2, 100, 31)],
    endings=Endings(2, 49, 47),
)
FACTS = CardFacts(
    base_model="microsoft/phi-2",
    base_kind="hub",
    hub_model="microsoft/phi-2",
    base_license="mit",
    data_file="/home/someone/faq.xlsx",
    sheets=("Sheet1",),
    question_column="Question",
    answer_column="Answer",
    pairs=489,
    skipped_rows=11,
    prompt="### Question: {question}\n\n### Answer:",
    completion=" {answer}",
    settings=Settings().model_dump(),
    figures=FIGURES,
    device="Tesla T4, 15 GB",
    dtype="fp16",
)


def _parts(text: str) -> tuple[dict, str]:
    """Front matter and Markdown, told apart as simply as a reader may."""
    opening, front, body = text.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(front), body


def _front_matter(text: str) -> dict:
    return _parts(text)[0]


def _tokens(text: str):
    return MarkdownIt("commonmark").enable("table").parse(_parts(text)[1])


def _blocks(text: str, language: str) -> list[str]:
    return [token.content for token in _tokens(text) if token.type == "fence" and token.info == language]


def _run_ask(python: str) -> dict:
    """The assignments of the card's code, and the keywords of its calls."""
    found: dict = {}
    for node in ast.walk(ast.parse(python)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[node.targets[0].id] = node.value.value
        if isinstance(node, ast.Call):
            found |= {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg}
    return found


def test_the_front_matter_is_what_the_hub_reads():
    assert _front_matter(card(FACTS)) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "base_model": "microsoft/phi-2",
        "license": "mit",
        "tags": ["lora", "phinetune", "base_model:adapter:microsoft/phi-2"],
    }


def test_what_is_not_known_is_left_out_of_the_front_matter():
    facts = replace(FACTS, base_model="/models/own", base_kind="folder", hub_model=None, base_license=None)
    assert set(_front_matter(card(facts))) == {"library_name", "pipeline_tag", "tags"}


def test_it_tells_where_the_data_came_from_and_how_training_went():
    text = card(FACTS)
    for fact in (
        "# microsoft/phi-2 tuned on faq.xlsx\n",
        "sheet: `Sheet1`",
        "column `Question`",
        "column `Answer`",
        "489 usable pairs: 440 to train on, 49 held out",
        "11 rows skipped",
        "23,592,960 parameters were trained, 0.84% of the 2,803,276,800",
        "| held-out loss before training | 2.820 |",
        "| held-out loss of this state | 2.350 |",
        "| its perplexity | 10.49 |",
        "| step that was kept | 2 |",
        "| own training questions answered word for word | 31 of 100 |",
        "| held-out answers after which it would stop | 47 of 49 |",
        "| optimizer steps | 2 |",
        "| epochs | 1.00 |",
        "| speed | 500 real tokens a second |",
        "| peak memory | 9.8 GB |",
        "| device | `Tesla T4, 15 GB`, `fp16` |",
        "| training ended | early: the held-out loss no longer got better |",
        "| `lora.r` | `16` |",
        "trained on 440 pairs",
    ):
        assert fact in text
    assert "/home/someone" not in text


def test_a_last_state_that_is_not_the_best_says_so():
    rows = [*ROWS, MetricsRow(3, 1.5, 2.0, 2.75, 1e-4, 1.0, 1000, 2.0)]
    known = {"trainable_parameters": 1, "total_parameters": 9, "train_pairs": 4, "validation_pairs": 1, "seconds": 1.0}
    text = card(replace(FACTS, figures=summary(rows, stopped="finished", kept_step=3, **known)))
    assert "| held-out loss of this state | 2.750 |" in text
    assert "| step that was kept | 3, the last; the lowest held-out loss, 2.350, was at step 2 |" in text
    assert "flattering" not in text
    assert "flattering" in card(FACTS)


def test_figures_that_were_not_measured_are_not_told():
    figures = summary(
        ROWS[1:2],
        trainable_parameters=1,
        total_parameters=9,
        train_pairs=4,
        validation_pairs=0,
        stopped="finished",
        seconds=1.0,
    )
    text = card(replace(FACTS, figures=figures))
    for name in ("held-out loss", "perplexity", "peak memory", "was kept", "word for word", "None"):
        assert name not in text.split("## How training went")[1].split("Losses are")[0]
    assert "how well it generalises is unknown" in text


def test_the_code_to_load_it_is_python_without_foreign_code_and_stops_at_end_of_text():
    (python,) = _blocks(card(FACTS), "python")
    found = _run_ask(python)
    assert "trust_remote_code" not in python
    assert found["BASE"] == "microsoft/phi-2"
    assert found["PROMPT"] == FACTS.prompt == "### Question: {question}\n\n### Answer:"
    assert found["eos_token_id"] == "tokenizer.eos_token_id"
    assert (found["do_sample"], found["max_new_tokens"]) == ("False", "256")
    assert "temperature" not in found
    assert found["dtype"] == "'float16'"


def test_a_recipe_that_draws_is_asked_so():
    settings = Settings().model_dump()
    settings["generate"]["temperature"] = 0.7
    found = _run_ask(_blocks(card(replace(FACTS, settings=settings)), "python")[0])
    assert (found["do_sample"], found["temperature"], found["top_p"]) == ("True", "0.7", "0.9")


def test_the_prompt_format_stands_there_letter_by_letter():
    assert _blocks(card(FACTS), "") == [FACTS.prompt + "\n", FACTS.completion + "\n"]


def test_what_a_template_puts_after_the_answer_is_cut_off():
    (python,) = _blocks(card(replace(FACTS, completion=' {answer}\n"END"')), "python")
    ast.parse(python)
    assert '.removesuffix("\\"END\\"")' in python


@pytest.mark.parametrize(
    ("kind", "name", "hub", "told", "base"),
    [
        ("embedded", "smollm2-135m", "own/small", "matching `own/small` from the Hugging Face hub", "own/small"),
        ("gguf", "/m/phi-2.Q4.gguf", "microsoft/phi-2", "the file `phi-2.Q4.gguf`", "microsoft/phi-2"),
        ("gguf", "/m/phi-2.Q4.gguf", None, "its name is not known here", "owner/matching-model"),
        ("folder", "/m/own", None, "With plain transformers and peft:", "/m/own"),
    ],
)
def test_the_code_names_a_base_model_that_transformers_can_load(kind, name, hub, told, base):
    text = card(replace(FACTS, base_model=name, base_kind=kind, hub_model=hub))
    assert told in text
    assert _run_ask(_blocks(text, "python")[0])["BASE"] == base


def test_hostile_names_change_neither_structure_nor_front_matter():
    settings = Settings().model_dump()
    settings["lora"]["target_modules"] = [HOSTILE, "q_proj"]
    hostile = replace(
        FACTS,
        base_model=HOSTILE,
        hub_model=HOSTILE,
        base_license=HOSTILE,
        data_file=HOSTILE,
        sheets=(HOSTILE, "``", ""),
        question_column=HOSTILE,
        answer_column="`" * 9,
        prompt="{question}" + HOSTILE,
        completion="{answer}" + HOSTILE,
        device=HOSTILE,
        settings=settings,
    )
    text = card(hostile)
    assert set(_front_matter(text)) == set(_front_matter(card(FACTS)))
    assert _front_matter(text)["license"] == " ".join(HOSTILE.split())
    tokens = _tokens(text)
    plain = _tokens(card(FACTS))
    assert [t.type for t in tokens if t.type != "inline"] == [t.type for t in plain if t.type != "inline"]
    headings = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    assert headings[1:] == HEADINGS
    inline = {child.type for token in tokens for child in token.children or ()}
    assert inline <= {"text", "code_inline", "softbreak", "text_special"}
    fences = [token.content for token in tokens if token.type == "fence"]
    assert fences[2:] == [hostile.prompt + "\n", hostile.completion + "\n"]
    assert _run_ask(fences[1])["PROMPT"] == hostile.prompt


def test_it_is_written_as_utf8(tmp_path):
    facts = replace(FACTS, question_column="Frage für Ärzte 数据")
    write_card(tmp_path / "README.md", facts)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card(facts)
    assert "`Frage für Ärzte 数据`" in card(facts)


def test_the_card_tells_the_first_few_findings_and_nothing_of_them_becomes_markup():
    said = tuple(Diagnosis("gap", "note", f"Loss {place} is *odd* <b>.", 1.0, "Do this.") for place in range(6))
    text = card(replace(FACTS, diagnosis=said))
    assert [f"Loss {place} is" in text for place in range(6)] == [True] * 4 + [False] * 2
    assert "*odd*" not in text
    assert "<b>" not in text
    assert "Do this." not in text
