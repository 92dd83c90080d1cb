"""Which training pairs a model gives back word for word, which no held-out loss shows; and whether it knows where the
answers of held-out pairs end.

    ids      ### Answer :  | gooseberry  lantern  <eos>
    likeliest              | gooseberry  lantern  <eos>      every one right: asked, it would write just that

One pass over a pair tells what it would write when it always takes the likeliest token: as long as it has written the
expected tokens, the expected ones are what it reads. So nothing needs to be written, and a hundred pairs take as long
as a third of a hundred in training. Of held-out pairs the last place is looked at alone: does it stop after the answer?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

import torch
from peft import PeftModel

from phinetune.events import Endings, Recalled
from phinetune.model.out_of_memory import is_out_of_memory
from phinetune.model.rows import likeliest_words
from phinetune.tokens.batch import in_rows, lay_out
from phinetune.tokens.encode import Example

_MOST = 100
_ROW = 1024  # tokens


def choose(examples: Sequence[Example]) -> list[Example]:
    """At most a hundred of those that were not cut, the same each time: a cut answer has no end, and nobody wants it
    back."""
    whole = [example for example in examples if not example.was_cut]
    return whole if len(whole) <= _MOST else Random(0).sample(whole, _MOST)


def measure(model: PeftModel, examples: Sequence[Example], step: int, tokens_a_row: int = _ROW) -> Iterator[Recalled]:
    """How many of them the model, as it is at `step`, gives back.

    Nothing where there are none, or no memory for it: a run that is done is not lost for a figure about it.
    """
    if (right := _how_many(gives_back, model, examples, tokens_a_row)) is not None:
        yield Recalled(step, len(examples), right)


def measure_endings(
    model: PeftModel, examples: Sequence[Example], step: int, tokens_a_row: int = _ROW
) -> Iterator[Endings]:
    """After how many of their answers the model, as it is at `step`, would stop. Nothing as above."""
    if (known := _how_many(would_stop, model, examples, tokens_a_row)) is not None:
        yield Endings(step, len(examples), known)


def gives_back(model: PeftModel, examples: Sequence[Example], tokens_a_row: int = _ROW) -> list[bool]:
    """Of each, whether every token of the answer, end-of-text too, is the likeliest after those before it."""
    return [bool(right.all()) for right in _right_tokens(model, examples, tokens_a_row)]


def would_stop(model: PeftModel, examples: Sequence[Example], tokens_a_row: int = _ROW) -> list[bool]:
    """Of each, whether end-of-text is the likeliest token after its whole answer. None of them was cut."""
    return [bool(right[-1]) for right in _right_tokens(model, examples, tokens_a_row)]


def _how_many(
    of: Callable[[PeftModel, Sequence[Example], int], list[bool]],
    model: PeftModel,
    examples: Sequence[Example],
    tokens_a_row: int,
) -> int | None:
    if not examples:
        return None
    try:
        return sum(of(model, examples, min(_ROW, tokens_a_row)))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None


@torch.inference_mode()
def _right_tokens(model: PeftModel, examples: Sequence[Example], tokens_a_row: int) -> list[torch.Tensor]:
    """Of each, for every token of the answer whether it is the likeliest after those before it [A]."""
    device = next(model.parameters()).device
    found: list[torch.Tensor] = []
    with likeliest_words(model) as likeliest:
        for members in in_rows(examples, tokens_a_row):
            row = lay_out(members).to(device)
            right = likeliest(row) == row.targets
            found += torch.split(right.cpu(), [member.answer_tokens for member in members])
    return found
