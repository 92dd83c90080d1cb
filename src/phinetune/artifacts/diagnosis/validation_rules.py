"""Rules on the held-out loss: did it move, is the model better on pairs it has not seen, was the run long enough."""

from __future__ import annotations

import math

import numpy as np

from phinetune.artifacts.diagnosis.evidence import Diagnosis, Evidence
from phinetune.artifacts.diagnosis.kept_rules import forgoes_answers
from phinetune.artifacts.diagnosis.stability_rules import steps, was_unstable
from phinetune.artifacts.diagnosis.training_rules import (
    BARELY,
    CLEAR_FALL,
    FEW_STEPS,
    STILL_FALLING,
    STUCK,
    is_held_up,
    is_stuck,
    rises,
)

# A rise counts from 3 % of the best loss and a twentieth of what was won: below, validations differ by chance. At
# 10 % and a fifth it is no longer a matter of the last epoch.
RISE, RISE_OF_GAIN = 0.03, 0.05
STEEP_RISE, STEEP_OF_GAIN = 0.1, 0.2
# Some gap is normal: up to 0.3 nats by the guide, and a tenth of the loss, which the luck of the batches makes up.
USUAL_GAP, USUAL_OF_LOSS = 0.3, 0.1
# It is wide when the training pairs are a third better, and by more than half of all that the held-out ones won.
# Neither alone will do: near 0 every gap is a large share, and after a small gain any gap is.
GAP_OF_LOSS, GAP_OF_GAIN = 0.3, 0.5
# Beyond this an adapter learns from half of what it sees.
_MOST_DROPOUT = 0.5
# No better than the base model: a difference of 2 % either way is chance.
NO_BETTER = 0.02
# The epoch in which so much of the gain was there is the one in which it levelled off.
MOST_OF_GAIN = 0.95


def nothing_held_out(evidence: Evidence) -> Diagnosis | None:
    if not evidence.steps or len(evidence.curves.eval):
        return None
    return Diagnosis(
        "nothing_held_out",
        "note",
        "There is no held-out loss, so nobody knows how the model does on questions it has not seen.",
        0,
        "Add pairs with different questions: a tenth of them is held out.",
    )


def hardly_moved(evidence: Evidence) -> Diagnosis | None:
    """Neither loss moved, also not up. With enough steps that is the learning rate; without, the steps."""
    gain = evidence.validation_gain if evidence.validation_gain is not None else evidence.training_gain
    if not evidence.steps or abs(gain) >= BARELY or evidence.training_gain >= CLEAR_FALL or rises(evidence):
        return None
    if is_overfitting(evidence):
        return None
    now = evidence.curves.best[1] if evidence.before is not None and evidence.curves.best else evidence.ended
    was = evidence.before if evidence.before is not None else evidence.began
    moved = f"The loss hardly moved: {was:.2f} before, {now:.2f} after"
    if evidence.steps < FEW_STEPS:
        return Diagnosis(
            "too_few_steps",
            "warning",
            f"{moved}. The run had only {steps(evidence.steps)}.",
            evidence.steps,
            "More epochs (--epochs), more pairs, or fewer of them in a step (--grad-accum 1).",
        )
    return Diagnosis(
        "learning_rate_too_low",
        "warning",
        f"{moved} {steps(evidence.steps)} at a learning rate of {evidence.peak_rate:.2g}, which is too low.",
        gain,
        f"Raise it: --lr {evidence.peak_rate * 5:.2g}. If the loss still does not move, look at the answers: "
        "phinetune check.",
    )


def no_better_than_before(evidence: Evidence) -> Diagnosis | None:
    """Held-out pairs won nothing although the training pairs did; when neither did, other rules say why."""
    gain, best = evidence.validation_gain, evidence.curves.best
    if gain is None or best is None or gain >= NO_BETTER or rises(evidence):
        return None
    if evidence.training_gain < CLEAR_FALL and gain > -BARELY:
        return None
    return Diagnosis(
        "no_better_than_before",
        "warning",
        f"On held-out pairs the tuned model is no better than the base model: loss {evidence.before:.2f} before, "
        f"{best[1]:.2f} at best.",
        gain,
        f"More pairs like the questions to come, or a lower learning rate (--lr {evidence.peak_rate / 2:.2g}); "
        "phinetune check shows what may be wrong with the sheet.",
    )


def overfitting(evidence: Evidence) -> Diagnosis | None:
    curves, best = evidence.curves, evidence.curves.best
    if not best or not is_overfitting(evidence):
        return None
    last = float(curves.eval[-1])
    won = max(0.0, (evidence.before or 0.0) - best[1])
    steep = last - best[1] > max(STEEP_RISE * best[1], STEEP_OF_GAIN * won)
    epochs = max(0.1, round(evidence.epoch(best[0]), 1))
    dropout = evidence.facts.lora_dropout
    more = min(_MOST_DROPOUT, max(0.1, 2 * dropout)) if dropout is not None else 0.0
    more_dropout = f", more dropout (--lora-dropout {more:g})" if dropout is not None and more > dropout else ""
    pairs = evidence.facts.validation_pairs
    if evidence.facts.keep == "last":
        kept = "The last state was kept all the same, as --keep last asks"
        advice = f"If new questions matter more: --keep best, and fewer epochs (--epochs {epochs:g}){more_dropout}."
        steep = False
    else:
        kept = f"Step {best[0]} is the one that was kept"
        if evidence.hardly_held_out:
            kept += f"; only {pairs} held-out pair{'s' * (pairs != 1)} chose it, so it may be chance"
        advice = f"Fewer epochs (--epochs {epochs:g}){more_dropout}, or more pairs."
        if forgoes_answers(evidence):  # fewer epochs would know still less
            advice = f"For better answers to new questions: more pairs{more_dropout.replace(', more', ', and more')}."
    if evidence.hardly_held_out:
        advice += (
            " A fact that stands in the sheet only once cannot be known for a held-out question: ask each in 3 to 5 "
            "ways."
        )
    return Diagnosis(
        "overfitting",
        "warning" if steep else "note",
        f"The held-out loss rises since step {best[0]}, from {best[1]:.2f} to {last:.2f}: pairs are being learned by "
        f"heart. {kept}.",
        best[0],
        advice,
    )


def is_overfitting(evidence: Evidence) -> bool:
    """Whether validation rises for good after its best. When the training loss rises too, it is something else."""
    curves, best = evidence.curves, evidence.curves.best
    if best is None or rises(evidence):
        return False
    later = curves.eval[curves.eval_steps > best[0]]
    if not len(later):
        return False
    won = max(0.0, (evidence.before or 0.0) - best[1])
    least = max(RISE * best[1], RISE_OF_GAIN * won)
    return float(later[-1]) - best[1] > least and float(np.median(later)) - best[1] > least / 2


def gap(evidence: Evidence) -> Diagnosis | None:
    """Training pairs known better than held-out ones, at the step of the lowest held-out loss: a warning where it is
    far better, a note where it is more than usual."""
    best, width = evidence.curves.best, gap_width(evidence)
    if best is None or width is None or not is_unusual(evidence):
        return None
    losses = f"loss {best[1] - width:.2f} against {best[1]:.2f} at step {best[0]}"
    rank = evidence.facts.lora_r
    smaller = f" (--lora-r {max(1, rank // 2)})" if rank else ""
    advice = f"a smaller rank{smaller} or more dropout (--lora-dropout) help a little."
    if is_wide(evidence):
        return Diagnosis(
            "gap",
            "warning",
            f"The model knows its training pairs far better than held-out ones: {losses}.",
            width,
            f"More pairs, and the same facts asked in several ways; {advice}",
        )
    gain = evidence.validation_gain
    followed = ""
    if evidence.before is not None and gain is not None and gain >= BARELY and not is_overfitting(evidence):
        followed = f"The held-out loss followed, from {evidence.before:.2f} to {best[1]:.2f}, but not all the way. "
    return Diagnosis(
        "gap",
        "note",
        f"{followed}The model knows its training pairs better than held-out ones: {losses}, where a difference of "
        f"0.1 to {USUAL_GAP:g} is usual.",
        width,
        f"If answers to new questions are not good enough: more pairs, and the same facts asked in several ways; "
        f"{advice}",
    )


def gap_width(evidence: Evidence) -> float | None:
    """How much lower the training loss is at the step of the lowest held-out loss; None where that cannot be told."""
    best = evidence.curves.best
    if best is None or not evidence.steps or rises(evidence):
        return None
    return best[1] - evidence.trained_to(best[0])


def is_wide(evidence: Evidence) -> bool:
    best, width = evidence.curves.best, gap_width(evidence)
    if best is None or width is None:
        return False
    won = max(0.0, evidence.before - best[1]) if evidence.before is not None else 0.0
    return width > GAP_OF_LOSS * best[1] and width > GAP_OF_GAIN * won


def is_unusual(evidence: Evidence) -> bool:
    """Wide, or more than usual on enough held-out pairs to tell."""
    best, width = evidence.curves.best, gap_width(evidence)
    if best is None or width is None:
        return False
    more = width > USUAL_GAP and width > USUAL_OF_LOSS * best[1] and not evidence.hardly_held_out
    return more or is_wide(evidence)


def follows(evidence: Evidence) -> Diagnosis | None:
    gain, best = evidence.validation_gain, evidence.curves.best
    if gain is None or best is None or gain < BARELY or is_unusual(evidence) or rises(evidence):
        return None
    if is_overfitting(evidence) or is_stuck(evidence) or evidence.hardly_unseen:
        return None
    return Diagnosis(
        "validation_follows",
        "good",
        f"The held-out loss followed, from {evidence.before:.2f} to {best[1]:.2f}: what was learned holds for "
        "questions that were not trained on.",
        gain,
    )


def too_short(evidence: Evidence) -> Diagnosis | None:
    gain, pace, best = evidence.validation_gain, evidence.pace, evidence.curves.best
    if gain is None or pace is None or best is None or gain < BARELY or pace < STILL_FALLING:
        return None
    if best[0] != evidence.curves.eval_steps[-1] or rises(evidence) or is_held_up(evidence):
        return None
    epochs = evidence.epoch(evidence.curves.last_step)
    more = "Go on with --resume." if evidence.facts.stopped == "interrupted" else f"--epochs {math.ceil(2 * epochs)}"
    higher = "" if was_unstable(evidence) else ", or with a higher --lr"
    return Diagnosis(
        "too_short",
        "note",
        f"The held-out loss was still falling at the end, at {pace:.0%} of its mean pace: the run of {epochs:.3g} "
        f"epoch{'s' * (epochs != 1)} was too short.",
        pace,
        more if more.startswith("Go") else f"Train longer ({more}){higher}.",
    )


def levelled_off(evidence: Evidence) -> Diagnosis | None:
    gain, pace, best = evidence.validation_gain, evidence.pace, evidence.curves.best
    if gain is None or pace is None or best is None or gain < STUCK or pace >= STILL_FALLING:
        return None
    if is_overfitting(evidence) or rises(evidence) or evidence.hardly_unseen:
        return None
    assert evidence.before is not None
    curves = evidence.curves
    there = curves.eval <= evidence.before - MOST_OF_GAIN * (evidence.before - best[1])
    epoch = evidence.epoch(float(curves.eval_steps[int(np.argmax(there))]))
    return Diagnosis(
        "levelled_off",
        "good",
        f"The held-out loss levelled off: {MOST_OF_GAIN:.0%} of its fall was done after {epoch:.1f} of "
        f"{evidence.epoch(curves.last_step):.3g} epochs. The run was long enough.",
        epoch,
    )
