"""What a tuned model needs besides its weights to be asked: `model/phinetune.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter

from phinetune.errors import RunError
from phinetune.run_folder import RECIPE, write_json
from phinetune.settings import DEFAULT_TEMPLATE, DataSettings, GenerateSettings

RECIPE_KEY = "phinetune.recipe"  # in the header of a .gguf file
_LONGEST = 1 << 24  # tokens of a pair, more than any model reads


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

    def to_text(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    def write(self, model: Path) -> None:
        write_json(model / RECIPE, asdict(self))


_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def read_recipe(model: Path) -> Recipe:
    """The recipe in a model folder. Raises RunError when it is damaged."""
    try:
        text = (model / RECIPE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise _damaged(model / RECIPE) from None
    return parse_recipe(text, model / RECIPE)


def parse_recipe(text: str, place: Path) -> Recipe:
    """The recipe in `text`, which stands in `place`. Raises RunError when it is damaged."""
    try:
        recipe: Recipe = _RECIPE.validate_json(text, strict=True)
        recipe.generate()
        values = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise _damaged(place) from None
    if not 0 < recipe.max_length <= _LONGEST or values.keys() != {field.name for field in fields(Recipe)}:
        raise _damaged(place)
    return recipe


def default_recipe(base_model: str) -> Recipe:
    """For a model that says nothing of how it was trained."""
    defaults = GenerateSettings()
    return Recipe(
        base_model=base_model,
        template=DEFAULT_TEMPLATE,
        max_length=DataSettings.model_fields["max_length"].default,
        temperature=defaults.temperature,
        top_p=defaults.top_p,
        max_new_tokens=defaults.max_new_tokens,
    )


def _damaged(place: Path) -> RunError:
    return RunError(f"{place} is damaged.", "Copy the model again from where you trained it, or train again.")
