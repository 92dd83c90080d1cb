"""`--lr auto`: the learning rate that suits the width of the model and the kind of sheet.

    answers that stand once each         how such answers sound can be learned; what is learned by heart is of no use
    answers under several questions      facts, to be known by heart in whatever words they are asked for

Tried on three models and four sheets; a search by short runs on a part of the sheet was tried too, and did not earn
its time (benchmarks/quality.md).
"""

from __future__ import annotations

import math

_ONCE, _SEVERAL_TIMES = 0.5, 2.0


def usual_rate(hidden_size: int) -> float:
    """The rate that LoRA likes best in one pass over many pairs, in a model of this width.

    5e-4 (2000 / width)^0.781: fitted to Llama models by Thinking Machines Lab ("LoRA Without Regret", 2025, and the
    Tinker documentation), for scaling by alpha / r with alpha = 32.
    """
    return 5e-4 * math.pow(2000 / hidden_size, 0.781)


def suited_rate(hidden_size: int, *, answers_repeat: bool) -> float:
    """The peak rate for a few hundred pairs that are seen several times: half the usual one, 2.1e-4 in Phi-2, or twice
    as much where answers repeat, 8.2e-4.
    """
    return float(f"{usual_rate(hidden_size) * (_SEVERAL_TIMES if answers_repeat else _ONCE):.1e}")
