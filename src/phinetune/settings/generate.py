"""Settings: how answers are written."""

from __future__ import annotations

from phinetune.settings.field import Group, setting


class GenerateSettings(Group):
    """How answers are written, when the model is asked."""

    temperature: float = setting(
        0.0,
        "0 always takes the likeliest word, so that an answer is the same each time; higher is more varied.",
        more="Words are drawn by chance: more varied answers, and more wrong ones; above 1 they begin to wander.",
        less="Steadier answers, closer to those of the sheet.",
        when="Answers should not all sound alike (0.7 to 1), or go round in circles (0.3). For facts leave it at 0.",
        ge=0,
        le=10,
    )
    top_p: float = setting(
        0.9,
        "Choose among the likeliest words with this share in total.",
        more="Unlikely words may be chosen too; 1 excludes none.",
        less="Only the likeliest words are left.",
        when="Answers hold odd words (lower it). It has no effect at temperature 0.",
        gt=0,
        le=1,
    )
    max_new_tokens: int = setting(
        256,
        "Longest answer in tokens.",
        more="Long answers are finished, and a model that does not stop writes on for longer.",
        less="Answers are broken off sooner, which saves time.",
        when="Answers break off in the middle of a sentence.",
        ge=1,
        le=131072,
    )
    seed: int | None = setting(
        None,
        "Makes sampled answers repeatable.",
        more="The same number gives the same answers again.",
        less="Left out, answers differ from one time to the next.",
        when="A test or a comparison has to come out the same twice.",
        ge=0,
        lt=2**32,
    )
