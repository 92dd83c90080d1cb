"""Run folders that lie: every JSON file of one changed in turn, through report, ask, pack and resume.

Every folder must serve or be refused with one clear error, within 10 s and 1 GB.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import _absurd as absurd
import _contained as contained

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

_LINES = ("checkpoints/pairs.jsonl",)


class Scene:
    """A finished run on the toy model, compared, and a copy of it to spoil."""

    def __init__(self) -> None:
        import toys

        import phinetune

        self.root = Path(tempfile.mkdtemp(prefix="lying-runs-"))
        toys.save(self.root / "base")
        sheet = toys.write_sheet(
            self.root / "dataset.xlsx", [(f"{q} ({i})", a) for i, (q, a) in enumerate(toys.PAIRS * 4)]
        )
        self.settings = {"model": str(self.root / "base"), "epochs": 1, "lr": 1e-2, "patience": 0, "dtype": "fp32"}
        self.sheet = sheet
        self.run = self.root / "run"
        phinetune.train(sheet, out=self.run, **self.settings)
        phinetune.compare(self.run, limit=2)
        self.names = sorted(
            str(path.relative_to(self.run))
            for path in self.run.rglob("*")
            if path.suffix in (".json", ".jsonl") and not path.name.startswith(("tokenizer", "adapter"))
        )
        assert len(self.names) >= 7, self.names

    def spoil(self, name: str, dice: random.Random) -> Path:
        place = self.root / "spoilt"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.run, place)
        path = place / name
        text = path.read_text(encoding="utf-8")
        if name.endswith(".jsonl"):
            lines = [json.loads(line) for line in text.splitlines()]
            number = dice.randrange(len(lines))
            lines[number] = absurd.changed(lines[number], dice)
            path.write_bytes(b"\n".join(absurd.text_of(line, dice) for line in lines[:30]) + b"\n")
        else:
            path.write_bytes(absurd.text_of(absurd.changed(json.loads(text), dice), dice))
        return place


def _try(scene: Scene, number: int) -> str:
    import phinetune
    from phinetune.api.ask import open_model
    from phinetune.errors import PhinetuneError

    dice = random.Random(number)
    name = scene.names[number % len(scene.names)]
    place = scene.spoil(name, dice)
    outcomes = set()
    for act in (
        lambda: phinetune.report(place),
        lambda: phinetune.diagnose(place),
        lambda: phinetune.pack(place, place / "packed.zip"),
        *([lambda: open_model(place).ask("Who?", max_new_tokens=1)] if name.startswith("model/") else []),
        *(
            [lambda: phinetune.train(scene.sheet, out=place, resume=True, **scene.settings)]
            if "checkpoint" in name
            else []
        ),
    ):
        try:
            act()
            outcomes.add("good")
        except PhinetuneError as error:
            if not 0 < len(error.message) < contained.LONGEST_MESSAGE:
                return "a message too long"
            outcomes.add("refused")
    return "refused" if "refused" in outcomes else "good"


def main() -> None:
    options = contained.arguments(str(__doc__), 1500)
    made: list[Scene] = []
    contained.run("run folders that lie", options, lambda number: _try(made[0], number), lambda: made.append(Scene()))


if __name__ == "__main__":
    main()
