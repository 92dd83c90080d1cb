"""Settings: what is taken from the sheet."""

from __future__ import annotations

from phinetune.settings.field import Group, setting

DEFAULT_TEMPLATE = "### Question: {question}\n\n### Answer: {answer}"


class DataSettings(Group):
    """What is taken from the sheet."""

    question: str | None = setting(
        None,
        "Column with the questions; found by its name when left out.",
        more="Named by header, letter or number, that column is taken whatever the others are called.",
        less="Left out, names in about thirty languages are recognised, and what was chosen is shown.",
        when="phinetune check shows the wrong column.",
    )
    answer: str | None = setting(
        None,
        "Column with the answers; found by its name when left out.",
        more="Named by header, letter or number, that column is taken whatever the others are called.",
        less="Left out, names in about thirty languages are recognised, and what was chosen is shown.",
        when="phinetune check shows the wrong column.",
    )
    sheet: str | None = setting(
        None,
        "Sheet of the workbook to use; the ones with questions and answers when left out.",
        more="Only this sheet is read.",
        less="Left out, all sheets with questions and answers are read together.",
        when="The workbook holds drafts or another topic on sheets of their own.",
    )
    template: str = setting(
        DEFAULT_TEMPLATE,
        "The text around a pair; needs {question} and {answer}.",
        more="Another template makes a model that expects another prompt; training, asking and exports all use it.",
        less="It costs a dozen tokens a pair. The text itself matters little, as long as it is the same everywhere.",
        when="The program that will use the model sends a format of its own, or the base model was tuned on one.",
        also=("prompt", "prompt template", "prompt format", "instruction format"),
    )
    max_length: int = setting(
        512,
        "Longest pair in tokens; a longer answer is cut.",
        more="Long answers are learned whole, and take more memory. Rows are not padded: short pairs cost the same.",
        less="The longest pairs take less memory, but what is cut is not learned, and where a cut answer ends is not "
        "either.",
        when="Answers are reported as cut (raise it), or memory runs out (lower it). A token is about three quarters "
        "of an English word.",
        also=("max sequence length", "sequence length", "context length", "truncation"),
        ge=8,
        le=131072,
    )
    validation_share: float = setting(
        0.1,
        "Share of the pairs held out to measure progress.",
        more="The held-out loss becomes steadier, and fewer pairs are left to learn from.",
        less="More pairs to learn from; with few held out, the loss moves by chance and a worse step may be kept.",
        when="Fewer than 20 pairs are held out (raise it), or there are thousands of pairs (0.05 is plenty).",
        also=("validation", "validation split", "validation set", "test split", "held out"),
        gt=0,
        lt=1,
    )
    seed: int = setting(
        42,
        "Chooses which pairs are held out.",
        more="Any other number holds out other pairs; none is better.",
        less="The same number holds out the same pairs, so that two runs can be compared.",
        when="You want to know how much of a result is the luck of the division.",
        ge=0,
        lt=2**32,
    )
    limit: int | None = setting(
        None,
        "Use only the first N pairs: a quick trial.",
        more="More of the sheet is used; left out, all of it.",
        less="The trial is faster, and says less about the whole.",
        when="Before a long run: 50 to 100 pairs show whether everything is in order.",
        ge=1,
    )
