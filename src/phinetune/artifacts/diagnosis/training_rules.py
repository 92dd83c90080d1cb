"""Rules on the training loss: did it fall, how calmly, and was the learning rate right. Each is silent when it does not
apply.
"""

from __future__ import annotations

import math

import numpy as np

from phinetune.artifacts.diagnosis.evidence import Diagnosis, Evidence, running_median
from phinetune.artifacts.diagnosis.stability_rules import was_unstable

# What has not lost a twentieth has hardly moved: that much comes from the luck of the batches.
BARELY = 0.05
# Below a tenth the fall of the training loss is not yet told from noise with confidence.
CLEAR_FALL = 0.1
# A loss that stopped falling after so little is stuck rather than done; tuning on new facts takes off a half and more.
# It is high above 1: well-trained runs of such sheets end between a half and one.
STUCK, HIGH = 0.15, 1.0
# Half of the mean pace at the end: by then an exponential fall has done 70 % of what it will do.
STILL_FALLING = 0.5
# Fewer steps than this teach little at any learning rate.
FEW_STEPS = 20
# The smoothed loss has to climb by a quarter of its level, and undo a quarter of what was won, to be more than a hill.
RISES_BY, UNDOES = 0.25, 0.25
# Loss curves flatten; one that falls twice as far in the last third as in the middle one was held up there. A tenth of
# the whole fall keeps noise from counting, and a faster first third tells it from a run that was slow to begin.
HELD_UP, OF_THE_FALL = 2, 0.1
# A spike stands out six times as far as neighbours commonly do, half above them, and undoes a quarter of the whole
# fall. In normal noise six sigma does not happen; the other two keep batches of few, hard pairs from counting.
SPIKE_SIGMAS, SPIKE_ABOVE, SPIKE_UNDOES = 6, 1.5, 0.25
# So many spikes are no longer an odd pair.
MANY_SPIKES = 3
# Steps need neighbours to stand out from: as many as the pictures ask for before they draw a trend.
FEWEST_FOR_A_TREND = 12


def learning_rate_too_high(evidence: Evidence) -> Diagnosis | None:
    """Overfitting raises the validation loss; only steps that are too large raise the training loss, and keep it up."""
    rise = rises(evidence)
    if rise is None:
        return None
    low, high = rise
    return Diagnosis(
        "learning_rate_too_high",
        "warning",
        f"The training loss itself rose from {low:.2f} to {high:.2f} and did not come back at once: the learning rate "
        f"of {evidence.peak_rate:.2g} is too high.",
        high - low,
        f"Lower it: --lr {evidence.peak_rate / 5:.2g}.",
    )


def rises(evidence: Evidence) -> tuple[float, float] | None:
    """The largest sustained rise of the training loss, from and to; None when it is no more than noise."""
    train = evidence.curves.train
    if len(train) < FEWEST_FOR_A_TREND // 2:
        return None
    # Medians over at least 5 steps: a rise has to last, and the fitted trend is unsteady in the very first steps.
    half_window = min(max(2, len(train) // 20), (len(train) - 1) // 2)
    level = running_median(train, half_window)
    # A loss that leaps up at once leaves no calm first steps. Then the base model is the measure: the first step, taken
    # before anything was learned, and the held-out pairs. Both, as either may be easier than the rest.
    untouched = max(train[0], evidence.before) if evidence.before is not None else level[0]
    start = float(min(level[0], untouched))
    lowest = np.minimum.accumulate(np.minimum(level, start))
    climb = level - lowest
    counts = (climb > RISES_BY * lowest) & (climb > UNDOES * (start - lowest))
    if not counts.any():
        return None
    top = int(np.argmax(np.where(counts, climb, -np.inf)))
    return float(lowest[top]), float(level[top])


def held_up(evidence: Evidence) -> Diagnosis | None:
    """Steps that are too large bounce around the valley; the loss gets down when the rate does."""
    if not is_held_up(evidence) or rises(evidence):
        return None
    assert evidence.thirds
    return Diagnosis(
        "held_up",
        "warning",
        f"The loss stood still while the learning rate was near {evidence.peak_rate:.2g}, and fell when the rate did: "
        "it was too high.",
        evidence.thirds[2] / sum(evidence.thirds),
        f"Lower it: --lr {evidence.peak_rate / 5:.2g}.",
    )


def is_held_up(evidence: Evidence) -> bool:
    if evidence.thirds is None:
        return False
    first, middle, last = evidence.thirds
    return first >= last > max(HELD_UP * middle, OF_THE_FALL * sum(evidence.thirds), 0.0)


def spikes(evidence: Evidence) -> Diagnosis | None:
    found = spike_steps(evidence)
    if not found:
        return None
    once = len(found) == 1
    named = ", ".join(map(str, found[:5])) + (" …" if len(found) > 5 else "")
    left_out = sum(row.was_skipped and row.step in found for row in evidence.rows)
    named += f"; {left_out} of them {'was' if left_out == 1 else 'were'} left out" if left_out else ""
    return Diagnosis(
        "spikes",
        "warning" if len(found) >= MANY_SPIKES else "note",
        f"The training loss jumped up {'once' if once else f'{len(found)} times'}, in step{'s' * (not once)} {named}"
        + (", and came back." if rises(evidence) is None else "."),
        len(found),
        f"If it harms: --lr {evidence.peak_rate / 2:.2g}, or --set train.max_grad_norm=0.3; and look for odd answers "
        "with phinetune check.",
    )


def spike_steps(evidence: Evidence) -> list[int]:
    """Single steps far above their neighbours."""
    train = evidence.curves.train
    if len(train) < FEWEST_FOR_A_TREND or train.min() <= 0:
        return []
    level = running_median(train, 4)
    above = np.log(train / level)
    # The noise around each step: it shrinks while the loss falls, so one number for the whole run would not do.
    noise = 1.4826 * running_median(np.abs(above), min(15, len(train) - 1))
    fall = max(0.0, float(level[0] - level.min()))
    counts = (above > SPIKE_SIGMAS * noise) & (above > np.log(SPIKE_ABOVE)) & (train - level > SPIKE_UNDOES * fall)
    return [int(step) for step in evidence.curves.steps[counts]]


def stuck(evidence: Evidence) -> Diagnosis | None:
    """It fell a little, and stopped falling while the learning rate was still high."""
    if not is_stuck(evidence):
        return None
    gain, best, facts = evidence.validation_gain, evidence.curves.best, evidence.facts
    longer = f"more epochs (--epochs {math.ceil(2 * evidence.epoch(evidence.curves.last_step))}), "
    if gain is not None and best:
        said = f"The held-out loss stays high: it fell by {gain:.0%}, to {best[1]:.2f}, and then no further."
        longer = ""
    else:
        gain = evidence.training_gain
        said = f"The training loss stays high: it fell by only {gain:.0%}, to {evidence.ended:.2f}."
    rank = f" (--lora-r {2 * facts.lora_r})" if facts.lora_r else ""
    return Diagnosis(
        "stuck",
        "note",
        said,
        gain,
        f"If answers are not good yet: a higher learning rate (--lr {evidence.peak_rate * 2.5:.2g}), {longer}a larger "
        f"rank{rank}, and answers that are complete and of one kind (phinetune check).",
    )


def is_stuck(evidence: Evidence) -> bool:
    """By the held-out loss; where there is none by the training loss, too noisy to tell a slow fall from none."""
    gain, best = evidence.validation_gain, evidence.curves.best
    if gain is None or best is None:
        few = evidence.steps < FEW_STEPS
        return not few and BARELY <= evidence.training_gain < STUCK and evidence.ended > HIGH and not rises(evidence)
    if not BARELY <= gain < STUCK or evidence.training_gain >= STUCK or best[1] <= HIGH or rises(evidence):
        return False
    return evidence.pace is not None and evidence.pace < STILL_FALLING


def smooth_fall(evidence: Evidence) -> Diagnosis | None:
    if evidence.training_gain < CLEAR_FALL or rises(evidence) or spike_steps(evidence):
        return None
    if is_held_up(evidence) or is_stuck(evidence) or was_unstable(evidence):
        return None
    return Diagnosis(
        "smooth_fall",
        "good",
        f"The training loss fell smoothly, from {evidence.began:.2f} to {evidence.ended:.2f}.",
        evidence.training_gain,
    )
