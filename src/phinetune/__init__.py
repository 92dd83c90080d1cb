"""Turn a spreadsheet of questions and answers into a fine-tuned language model.

    import phinetune

    run = phinetune.train("dataset.xlsx", model="smollm2-135m", out="my-run")
    print(phinetune.ask(run, "What is machine learning?"))

Names are loaded when they are first used: importing phinetune imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phinetune.api.answer import Answered, answer_sheet
    from phinetune.api.ask import TunedModel, ask, open_model
    from phinetune.api.check import check
    from phinetune.api.compare import compare
    from phinetune.api.comparison import Comparison
    from phinetune.api.diagnose import diagnose
    from phinetune.api.explain import explain
    from phinetune.api.export import export_gguf, export_gguf_adapter
    from phinetune.api.measure import measure_speed
    from phinetune.api.merge import merge
    from phinetune.api.pack import pack
    from phinetune.api.plan import Plan, plan
    from phinetune.api.read_back import Exported
    from phinetune.api.report import report
    from phinetune.api.run import Run
    from phinetune.api.serve import serve
    from phinetune.api.train import train
    from phinetune.api.verify import Form, verify
    from phinetune.errors import PhinetuneError
    from phinetune.settings import Settings
    from phinetune.tokens.prompt import PromptTemplate
    from phinetune.use.judge import Endpoint
    from phinetune.use.scores import contains_fact, share_right

_HOME = {
    "train": "phinetune.api.train",
    "Run": "phinetune.api.run",
    "ask": "phinetune.api.ask",
    "open_model": "phinetune.api.ask",
    "TunedModel": "phinetune.api.ask",
    "check": "phinetune.api.check",
    "compare": "phinetune.api.compare",
    "Comparison": "phinetune.api.comparison",
    "diagnose": "phinetune.api.diagnose",
    "report": "phinetune.api.report",
    "Endpoint": "phinetune.use.judge",
    "answer_sheet": "phinetune.api.answer",
    "Answered": "phinetune.api.answer",
    "explain": "phinetune.api.explain",
    "merge": "phinetune.api.merge",
    "export_gguf": "phinetune.api.export",
    "export_gguf_adapter": "phinetune.api.export",
    "Exported": "phinetune.api.read_back",
    "measure_speed": "phinetune.api.measure",
    "pack": "phinetune.api.pack",
    "plan": "phinetune.api.plan",
    "Plan": "phinetune.api.plan",
    "verify": "phinetune.api.verify",
    "Form": "phinetune.api.verify",
    "serve": "phinetune.api.serve",
    "PhinetuneError": "phinetune.errors",
    "Settings": "phinetune.settings",
    "PromptTemplate": "phinetune.tokens.prompt",
    "contains_fact": "phinetune.use.scores",
    "share_right": "phinetune.use.scores",
}

__all__ = [
    "Answered",
    "Comparison",
    "Endpoint",
    "Exported",
    "Form",
    "PhinetuneError",
    "Plan",
    "PromptTemplate",
    "Run",
    "Settings",
    "TunedModel",
    "answer_sheet",
    "ask",
    "check",
    "compare",
    "contains_fact",
    "diagnose",
    "explain",
    "export_gguf",
    "export_gguf_adapter",
    "measure_speed",
    "merge",
    "open_model",
    "pack",
    "plan",
    "report",
    "serve",
    "share_right",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'phinetune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
