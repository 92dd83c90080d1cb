"""Rules on how the run was set up: warm-up, time, the pairs, and whether answers end."""

from __future__ import annotations

import numpy as np

from phinetune.artifacts.diagnosis.evidence import TELLING, Diagnosis, Evidence, Facts, Severity
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
# After the words of somebody else, which it would not have chosen, it may think that more is to come, now and then.
MOST_KNOWN, FEW_KNOWN = 0.8, 0.5
# Beyond so many tokens a pair on average, many are longer than the 256 that a shorter --max-length would leave.
LONG_PAIRS, SHORTER = 200, 256
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
    more = "".join(f" {each}" for each in (_larger_batch(evidence), _shorter_pairs(evidence)) if each)
    return Diagnosis(
        "slow",
        "note",
        f"Training took {seconds / 3600:.1f} hours{device}.",
        seconds,
        "Make sure that a GPU is used (--device cuda), or take fewer epochs, or a smaller model; phinetune plan tells "
        f"the time beforehand.{more}",
    )


def _larger_batch(evidence: Evidence) -> str:
    """The same steps of more pairs at once: faster on a GPU, where memory allows. Not said of a CPU."""
    batch, accum, device = evidence.facts.batch_size, evidence.facts.grad_accum, evidence.facts.device or ""
    if not batch or not accum or accum == 1 or "CPU" in device.upper():
        return ""
    return (
        f"On a GPU with memory to spare, more pairs at once are faster and the steps stay the same: --batch-size "
        f"{batch * accum} --grad-accum 1."
    )


def _shorter_pairs(evidence: Evidence) -> str:
    """Rows are not padded: only pairs that are longer than the limit get shorter by it, and lose the end."""
    tokens, limit = evidence.tokens_a_pair, evidence.facts.max_length
    if tokens is None or tokens <= LONG_PAIRS or not limit or limit <= SHORTER:
        return ""
    return (
        f"Pairs have {tokens:.0f} tokens on average: shorter answers in the sheet save time, and so does --max-length "
        f"{SHORTER}, which cuts the ends of the longer ones off."
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
    pairs = _pairs(facts)
    limit = f" the {facts.max_length} tokens that fit" if facts.max_length else " what fits"
    return Diagnosis(
        "answers_cut",
        "warning" if pairs and cut >= MANY_CUT * pairs else "note",
        f"{cut} answer{'s were' if cut > 1 else ' was'} longer than{limit} and cut: the model has not learned how "
        f"{'they end' if cut > 1 else 'it ends'}.",
        cut,
        f"--max-length {2 * facts.max_length}, or shorter answers." if facts.max_length else "Raise --max-length.",
    )


def _pairs(facts: Facts) -> int:
    return (facts.train_pairs or 0) + (facts.validation_pairs or 0)


def learned_to_stop(evidence: Evidence) -> Diagnosis | None:
    """By the answers it wrote, once a comparison asked for them; before, by the answers of the sheet that it read."""
    facts = evidence.facts
    return _written_answers_end(facts.asked, facts.ended) or _would_stop(facts)


def _written_answers_end(asked: int | None, ended: int | None) -> Diagnosis | None:
    if not asked or ended is None:
        return None
    if ended >= MOST_END * asked:
        said = f"The model has learned to stop: {ended} of {asked} answers ended by themselves."
        return Diagnosis("learned_to_stop", "good", said, ended / asked) if asked >= TELLING else None
    return Diagnosis(
        "does_not_stop",
        _how_bad(asked, ended, FEW_END),
        f"Only {ended} of {asked} answers ended by themselves; the others were broken off.",
        ended / asked,
        "If these answers are long by nature, raise generate.max_new_tokens. Otherwise train longer, and see that no "
        "answers are cut in training (--max-length).",
    )


def _would_stop(facts: Facts) -> Diagnosis | None:
    asked, known = facts.endings_asked, facts.endings_known
    if not asked or known is None:
        return None
    if known >= MOST_END * asked:
        said = f"The model has learned to stop: it would end {known} of {asked} held-out answers just where they end."
        return Diagnosis("learned_to_stop", "good", said, known / asked) if asked >= TELLING else None
    if known >= MOST_KNOWN * asked:
        return None
    remedy = "Train longer, and see that no answers are cut in training (--max-length)."
    if facts.answers_cut and facts.answers_cut >= MANY_CUT * _pairs(facts):
        remedy = "It is what cut answers teach, and training longer does not help: raise --max-length, or shorten them."
    return Diagnosis(
        "does_not_stop",
        _how_bad(asked, known, FEW_KNOWN),
        f"At the end of {asked} held-out answers, read as the sheet has them, the model would stop after {known}, and "
        f"write on after the other{'s' * (asked - known > 1)}.",
        known / asked,
        f"{remedy} phinetune compare tells how the answers that it writes itself end.",
    )


def _how_bad(asked: int, ended: int, few: float) -> Severity:
    return "warning" if ended < few * asked and asked >= TELLING else "note"
