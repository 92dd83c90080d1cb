"""Which training pairs a model gives back word for word: what it knows by heart, which no held-out loss shows.

    ids      ### Answer :  | gooseberry  lantern  <eos>
    likeliest              | gooseberry  lantern  <eos>      every one right: asked, it would write just that

One pass over a pair tells what it would write when it always takes the likeliest token: as long as it has written the
expected tokens, the expected ones are what it reads. So nothing needs to be written, and a hundred pairs take as long
as a third of a hundred in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import torch
from peft import PeftModel

from phinetune.events import Recalled
from phinetune.model.out_of_memory import is_out_of_memory
from phinetune.model.rows import fast_row_loss
from phinetune.tokens.batch import in_rows, lay_out
from phinetune.tokens.encode import Example

_MOST = 100
_ROW = 1024  # tokens


def choose(examples: Sequence[Example]) -> list[Example]:
    """At most a hundred of those that were not cut, the same each time: nobody wants a cut answer back."""
    whole = [example for example in examples if not example.was_cut]
    return whole if len(whole) <= _MOST else Random(0).sample(whole, _MOST)


def measure(model: PeftModel, examples: Sequence[Example], step: int, tokens_a_row: int = _ROW) -> Iterator[Recalled]:
    """How many of them the model, as it is at `step`, gives back.

    Nothing where there are none, or no memory for it: a run that is done is not lost for a figure about it.
    """
    if not examples:
        return
    try:
        right = sum(gives_back(model, examples, min(_ROW, tokens_a_row)))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return
    yield Recalled(step, len(examples), right)


@torch.inference_mode()
def gives_back(model: PeftModel, examples: Sequence[Example], tokens_a_row: int = _ROW) -> list[bool]:
    """Of each, whether every token of the answer, end-of-text too, is the likeliest after those before it."""
    fast = fast_row_loss(model)
    if fast is None:
        return [_gives_back_plainly(model, example) for example in examples]
    device = next(model.parameters()).device
    found: list[bool] = []
    for members in in_rows(examples, tokens_a_row):
        row = lay_out(members).to(device)
        right = fast.likeliest(row) == row.targets
        found += [bool(part.all()) for part in torch.split(right.cpu(), [m.answer_tokens for m in members])]
    return found


def _gives_back_plainly(model: PeftModel, example: Example) -> bool:
    device = next(model.parameters()).device
    ids = torch.tensor([example.ids], device=device)
    logits = model(input_ids=ids, logits_to_keep=example.answer_tokens + 1, use_cache=False).logits
    return bool((logits[0, :-1].argmax(dim=-1) == ids[0, example.prompt_length :]).all())
