"""What a tuned model needs besides its weights to be asked: `model/phinetune.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from phinetune.errors import RunError
from phinetune.run_folder import RECIPE, write_json
from phinetune.settings import GenerateSettings


@dataclass(frozen=True)
class Recipe:
    """The base model as `--model` takes it, the prompt template, and how answers are sampled."""

    base_model: str
    template: str
    max_length: int
    temperature: float
    top_p: float
    max_new_tokens: int

    def generate(self) -> GenerateSettings:
        return GenerateSettings(
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens, seed=None
        )

    def write(self, model: Path) -> None:
        write_json(model / RECIPE, asdict(self))


def read_recipe(model: Path) -> Recipe:
    """The recipe in a model folder. Raises RunError when it is damaged."""
    try:
        recipe = Recipe(**json.loads((model / RECIPE).read_text(encoding="utf-8")))
        recipe.generate()
    except (OSError, ValueError, TypeError):
        raise RunError(
            f"{model / RECIPE} is damaged.", "Copy the model folder again from where you trained it, or train again."
        ) from None
    return recipe
