"""Rules on how the run was set up: warm-up, time, the pairs, and whether answers end."""

from __future__ import annotations

import numpy as np

from phinetune.artifacts.diagnosis.evidence import Diagnosis, Evidence
from phinetune.artifacts.diagnosis.validation_rules import is_overfitting
from phinetune.settings import PRESETS

# Warm-ups of 3 to 10 % of the steps are usual. At a quarter a good part of the run is spent below a useful rate.
LONG_WARMUP = 0.25
# With fewer pairs a model takes on a tone, but little that holds beyond them; 500 are better.
FEW_PAIRS = 100
# The loss of fewer held-out pairs depends on which they are.
FEW_HELD_OUT = 20
# One cut answer in twenty is enough for the model to learn that answers have no end.
MANY_CUT = 0.05
# A model that has learned to stop does so nearly always.
MOST_END, FEW_END = 0.95, 0.8
LONG_RUN = 2 * 3600.0  # seconds; a few hundred pairs take minutes where the set-up is right


def warmup_too_long(evidence: Evidence) -> Diagnosis | None:
    rate = evidence.curves.rate
    if not len(rate):
        return None
    planned = evidence.curves.last_step
    if evidence.facts.planned_epochs and np.isfinite(evidence.curves.steps_per_epoch):
        planned = max(planned, round(evidence.facts.planned_epochs * evidence.curves.steps_per_epoch))
    # The peak is the last step of the warm-up or the one after it; a run that ended on its way up has none.
    warmup = int(evidence.curves.rate_steps[int(np.argmax(rate))]) - 1
    if warmup <= LONG_WARMUP * planned:
        return None
    return Diagnosis(
        "warmup_too_long",
        "warning",
        f"The warm-up took {warmup} of {planned} steps and leaves {planned - warmup} for learning at a falling rate.",
        warmup / planned,
        f"--warmup-steps {max(1, planned // 10)}, or leave it out.",
    )


def slow(evidence: Evidence) -> Diagnosis | None:
    seconds = evidence.facts.seconds
    if seconds is None or seconds < LONG_RUN:
        return None
    device = f" on {evidence.facts.device}" if evidence.facts.device else ""
    return Diagnosis(
        "slow",
        "note",
        f"Training took {seconds / 3600:.1f} hours{device}.",
        seconds,
        "Make sure that a GPU is used (--device cuda), or take fewer epochs, or a smaller model; phinetune plan tells "
        "the time beforehand.",
    )


def too_few_pairs(evidence: Evidence) -> Diagnosis | None:
    pairs = evidence.facts.train_pairs
    if pairs is None or pairs >= FEW_PAIRS:
        return None
    return Diagnosis(
        "too_few_pairs",
        "note",
        f"{pairs} pair{'s' * (pairs != 1)} to learn from are few: little of what is learned holds for other questions.",
        pairs,
        "100 are a start and 500 are good; asking the same facts in other words counts too."
        + (" Until then, --preset small-data." if _gains_by_preset(evidence) else ""),
    )


def _gains_by_preset(evidence: Evidence) -> bool:
    """Whether the preset for few pairs would change something, and for the better: it trains longer."""
    return not _is_set_for_few(evidence) and not is_overfitting(evidence)


def _is_set_for_few(evidence: Evidence) -> bool:
    """Whether the run had the values of the preset for few pairs, by name or not."""
    preset, facts = PRESETS["small-data"], evidence.facts
    return (facts.planned_epochs, facts.lora_dropout) == (preset["train"]["epochs"], preset["lora"]["dropout"])


def few_held_out(evidence: Evidence) -> Diagnosis | None:
    pairs = evidence.facts.validation_pairs
    if not pairs or pairs >= FEW_HELD_OUT:
        return None
    return Diagnosis(
        "few_held_out",
        "note",
        f"The held-out loss rests on {pairs} pair{'s' * (pairs != 1)} and depends on which "
        f"{'they are' if pairs != 1 else 'it is'}.",
        pairs,
        "Trust your own reading of some answers more; with more pairs it settles.",
    )


def leak(evidence: Evidence) -> Diagnosis | None:
    both = evidence.facts.in_both_parts
    if not both:
        return None
    out_of = f" of {evidence.facts.validation_pairs}" if evidence.facts.validation_pairs else ""
    return Diagnosis(
        "leak",
        "warning",
        f"{both}{out_of} held-out pairs ask what a training pair asks: the held-out loss looks better than it is.",
        both,
        "Remove the repeated questions, or word them in another way: phinetune check SHEET lists their rows.",
    )


def answers_cut(evidence: Evidence) -> Diagnosis | None:
    cut, facts = evidence.facts.answers_cut, evidence.facts
    if not cut:
        return None
    pairs = (facts.train_pairs or 0) + (facts.validation_pairs or 0)
    limit = f" the {facts.max_length} tokens that fit" if facts.max_length else " what fits"
    return Diagnosis(
        "answers_cut",
        "warning" if pairs and cut >= MANY_CUT * pairs else "note",
        f"{cut} answer{'s were' if cut > 1 else ' was'} longer than{limit} and cut: the model has not learned how "
        f"{'they end' if cut > 1 else 'it ends'}.",
        cut,
        f"--max-length {2 * facts.max_length}, or shorter answers." if facts.max_length else "Raise --max-length.",
    )


def learned_to_stop(evidence: Evidence) -> Diagnosis | None:
    asked, ended = evidence.facts.asked, evidence.facts.ended
    if not asked or ended is None:
        return None
    share = ended / asked
    if share >= MOST_END:
        return Diagnosis(
            "learned_to_stop",
            "good",
            f"The model has learned to stop: {ended} of {asked} answers ended by themselves.",
            share,
        )
    return Diagnosis(
        "does_not_stop",
        "warning" if share < FEW_END else "note",
        f"Only {ended} of {asked} answers ended by themselves; the others were broken off.",
        share,
        "If these answers are long by nature, raise generate.max_new_tokens. Otherwise train longer, and see that no "
        "answers are cut in training (--max-length).",
    )
