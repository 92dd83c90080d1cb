"""Rules on the state that became the model, and on how much of the sheet it knows by heart."""

from __future__ import annotations

import math

from phinetune.artifacts.diagnosis.evidence import TELLING, Diagnosis, Evidence

# The last state knows more when it answers a tenth of the questions more, and not just one or two.
MORE, FEWEST_MORE = 0.1, 3
# With a quarter more the choice decides what the model is good for.
MUCH_MORE = 0.25
# Kept for what it knows by heart, a state should know nearly all of it; with half, it was not trained to the end.
NEARLY_ALL, HALF = 0.9, 0.5


def last_knows_more(evidence: Evidence) -> Diagnosis | None:
    """An early state was kept for its held-out loss, and a person who wants the facts learned would want the last."""
    facts = evidence.facts
    asked, kept, last = facts.own_asked, facts.own_right_kept, facts.own_right_last
    if not asked or kept is None or last is None or not forgoes_answers(evidence):
        return None
    goes_on = "goes on to the planned end" if facts.stopped == "early_stopping" else "trains nothing again"
    return Diagnosis(
        "last_knows_more",
        "warning" if last - kept >= MUCH_MORE * asked else "note",
        f"An early state was kept, that of step {facts.kept_step}, for its held-out loss. It answers {kept} of {asked} "
        f"of your own training questions word for word; the last one, of step {evidence.curves.last_step}, {last}.",
        last - kept,
        "If these very answers are to be learned, take the last state: the same command with --resume --keep last, "
        f"which {goes_on}. If new questions matter more, leave it as it is.",
    )


def forgoes_answers(evidence: Evidence) -> bool:
    """Whether the state that was kept knows clearly fewer of the sheet's own answers than the last one."""
    facts = evidence.facts
    if not facts.own_asked or facts.own_right_kept is None or facts.own_right_last is None:
        return False
    if facts.keep == "last" or facts.kept_step == evidence.curves.last_step:
        return False
    return facts.own_right_last - facts.own_right_kept >= max(FEWEST_MORE, MORE * facts.own_asked)


def by_heart(evidence: Evidence) -> Diagnosis | None:
    asked, right = evidence.facts.own_asked, evidence.facts.own_right_kept
    if not asked or asked < TELLING or right is None or right < NEARLY_ALL * asked:
        return None
    return Diagnosis(
        "by_heart",
        "good",
        f"It answers {right} of {asked} of your own training questions word for word.",
        right / asked,
    )


def not_by_heart(evidence: Evidence) -> Diagnosis | None:
    """The last state was kept, as asked for, to know the answers by heart; and does not."""
    facts, asked, right = evidence.facts, evidence.facts.own_asked, evidence.facts.own_right_kept
    if facts.keep != "last" or not asked or right is None or right >= HALF * asked:
        return None
    epochs = math.ceil(2 * evidence.epoch(evidence.curves.last_step))
    return Diagnosis(
        "not_by_heart",
        "note",
        f"The last state was kept, and answers {right} of {asked} of your own training questions word for word.",
        right / asked,
        f"If the answers are facts: train longer (--epochs {epochs}), or with a higher --lr. Long texts seldom come "
        "back word for word, and need not.",
    )
