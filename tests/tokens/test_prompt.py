from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phinetune.errors import SettingsError
from phinetune.tokens.prompt import PromptTemplate, unescape


def test_the_default_prompt_is_the_guides_without_a_trailing_blank():
    template = PromptTemplate()
    assert template.prompt("What is dew?") == "### Question: What is dew?\n\n### Answer:"
    assert template.completion("Water.") == " Water."


@pytest.mark.parametrize(
    ("text", "prompt", "completion"),
    [
        ("User: {question}\nAssistant: {answer}", "User: Q\nAssistant:", " A"),
        ("{question}\n\n{answer}", "Q\n\n", "A"),
        ("Instruction: {question}\n\nResponse: {answer}\n###", "Instruction: Q\n\nResponse:", " A\n###"),
        ("{question}? {question}!  {answer}", "Q? Q!", "  A"),
    ],
)
def test_other_templates_are_cut_at_the_answer(text, prompt, completion):
    template = PromptTemplate(text)
    assert (template.prompt("Q"), template.completion("A")) == (prompt, completion)


@given(st.text(), st.text())
def test_prompt_and_completion_are_the_filled_template_whatever_the_texts_hold(question, answer):
    template = PromptTemplate()
    assert template.prompt(question) + template.completion(answer) == (
        "### Question: " + question + "\n\n### Answer: " + answer
    )


@pytest.mark.parametrize("hostile", ["{answer}", "{question}", "{0.__class__}", "%s", "{", "}}"])
def test_a_question_is_data_and_nothing_in_it_is_filled(hostile):
    assert PromptTemplate().prompt(hostile) == f"### Question: {hostile}\n\n### Answer:"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Q: {question}", "{answer} is missing"),
        ("A: {answer}", "{question} is missing"),
        ("{question} {reply} {answer}", "{reply} is not a field"),
        ("{answer} {question}", "must come before"),
        ("{question} {answer} {answer}", "only once"),
        ("nothing", "{question} is missing"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_what_is_missing(text, says):
    with pytest.raises(SettingsError, match=says.replace("{", r"\{").replace("}", r"\}")) as caught:
        PromptTemplate(text)
    assert "{question}" in caught.value.hint


def test_an_answer_ends_where_the_model_opens_a_next_question():
    template = PromptTemplate()
    assert template.clean_answer(" Water.\n\n### Question: What is") == "Water."
    assert PromptTemplate("{question}\n{answer}").stop_strings() == []
    assert PromptTemplate("Q {question} A {answer} END").clean_answer(" yes END") == "yes"


def test_an_answer_ends_at_what_the_template_has_behind_it_unless_that_may_stand_within_an_answer():
    marked = PromptTemplate("User: {question}\nBot: {answer}\n[end]\n")
    assert marked.stop_strings() == ["User:", "\n[end]"]
    assert marked.clean_answer(" One.\nTwo.\n[end]\nmore") == "One.\nTwo."
    for tail in ("", "\n", '"', "."):
        assert PromptTemplate(f"{{question}}\n{{answer}}{tail}").stop_strings() == []
    assert PromptTemplate('Q: {question}\nA: "{answer}"').clean_answer('The "Boat" sails."') == 'The "Boat" sails.'


def test_line_breaks_typed_in_a_shell_are_understood():
    assert unescape(r"User: {question}\nAssistant:\t{answer}") == "User: {question}\nAssistant:\t{answer}"


def test_a_template_as_long_as_a_book_is_refused_in_a_few_lines():
    with pytest.raises(SettingsError) as caught:
        PromptTemplate("a" * 100_000 + "{b}" * 10_000)
    assert len(caught.value.message) < 1500


@pytest.mark.parametrize(
    "template",
    [
        "User: {question}\nBot: {answer}",
        'Say "{{ 7 * 7 }}" {% x %} \\n: {question} -> {answer}',
        "{question}\t{answer}",
    ],
)
def test_any_template_becomes_a_chat_template_that_evaluates_nothing(template):
    import jinja2

    made = PromptTemplate(template)
    rendered = jinja2.Template(made.chat_template(), keep_trailing_newline=True).render(
        messages=[{"role": "user", "content": "Who {{ 1 + 1 }}?"}]
    )
    assert rendered == made.prompt("Who {{ 1 + 1 }}?")
