"""Settings files that lie, through the reader of `train` and `plan`: YAML bombs, and mutants of honest files.

Every file must give settings or one clear error, within 10 s and 1 GB.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path

import _absurd as absurd
import _contained as contained
import yaml

HONEST = {
    "model": "smollm2-135m",
    "data": {
        "question": "Q",
        "answer": "A",
        "sheet": "FAQ",
        "template": "Q: {question}\nA: {answer}",
        "max_length": 128,
    },
    "lora": {"r": 16, "alpha": 32, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
    "train": {"epochs": 2, "batch_size": 2, "learning_rate": 1e-4, "seed": 1, "dtype": "bf16"},
    "generate": {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 20, "seed": None},
}


def _laughs(depth: int, wide: int = 9) -> str:
    lines = ["a0: &a0 [ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * wide)}]" for n in range(1, depth)]
    return "\n".join(lines)


def _merged_laughs(depth: int) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], z{n}: 1}}" for n in range(1, depth)]
    return "\n".join(lines)


CRAFTED = {
    "empty": "",
    "laughs": _laughs(10),
    "laughs in a setting": "lora:\n  target_modules: *a9\n",
    "laughs before a setting": _laughs(10) + "\nlora: {target_modules: *a9}\n",
    "laughs as a name": _laughs(10) + "\n? *a9\n: 1\n",
    "merged laughs": _merged_laughs(12),
    "itself": "lora: &a\n  r: *a\n",
    "itself as a whole": "&a {lora: *a, train: *a}",
    "itself in a list": "lora: {target_modules: &a [*a]}",
    "itself merged": "&a\n<<: *a\nlora: {r: 1}\n",
    "deep list": "lora: " + "[" * 100_000,
    "deep list, whole": "lora: " + "[" * 5000 + "]" * 5000,
    "deep record": "lora: " + "{a: " * 5000 + "1" + "}" * 5000,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(3000)),
    "python object": "lora: !!python/object/apply:os.abort []",
    "python name": "lora: !!python/name:os.system",
    "python module": "lora: !!python/module:antigravity",
    "python tuple": "lora: {target_modules: !!python/tuple [q_proj]}",
    "python new": "lora: !!python/object/new:type {args: [a, !!python/tuple [], {}]}",
    "other tag": "lora: !secret x",
    "binary": "lora: {r: !!binary aGVsbG8=}",
    "set": "lora: !!set {a, b}",
    "omap": "lora: !!omap [a: 1]",
    "timestamp": "train: {epochs: 2001-12-14t21:59:43.10-05:00}",
    "wrong date": "train: {epochs: 2001-99-99}",
    "same name twice": "lora: {r: 8}\nlora: {r: 16}",
    "same setting twice": "lora: {r: 8, r: 16}",
    "not a number": "train: {learning_rate: .nan}",
    "infinite": "train: {learning_rate: .inf, epochs: -.inf}",
    "huge": "train: {epochs: " + "9" * 100_000 + "}",
    "huge hexadecimal": "train: {epochs: 0x" + "f" * 1_000_000 + "}",
    "huge in sixties": "train: {epochs: 1" + ":59" * 100_000 + "}",
    "names of other kinds": "1: 2\nnull: 3\ntrue: 4\n2001-01-01: 5\n[a]: 6\n1.5: {a: 1}",
    "list": "- lora\n- train",
    "text": "lora",
    "several documents": "lora: {r: 8}\n---\nlora: {r: 16}",
    "escapes": 'model: "\\e]8;;http://a\\a\\u202e"\n"\\e[31m": 1',
    "half letters": 'model: "\\ud800"',
    "nul": "model: a\0b",
    "utf-16": "lora: {r: 8}".encode("utf-16"),
    "no text": bytes(range(256)),
    "a million names": "\n".join(f"a{n}: 1" for n in range(20_000)),
    "long name": "a" * 1_000_000 + ": 1",
    "long value": "model: " + "a" * 1_000_000,
    "anchors": "\n".join(f"a{n}: &a{n} 1" for n in range(20_000)),
    "evaluated": 'data: {template: "{question.__class__.__mro__} {answer!r:>{question}}"}',
    "many colons": "a" + ": a" * 3000,
    "tabs": "\tlora:\t{r: 8}",
}


def main() -> None:
    options = contained.arguments(str(__doc__), 5000)
    path = Path(tempfile.mkdtemp(prefix="lying-settings-")) / "settings.yaml"
    crafted = list(CRAFTED.values())

    def trial(number: int) -> str:
        if number < len(crafted):
            made = crafted[number]
            data = made.encode("utf-8", "surrogatepass") if isinstance(made, str) else made
        else:
            dice = random.Random(number)
            record = absurd.changed(HONEST, dice)
            data = absurd.text_of(record, dice)
            if dice.random() < 0.3:
                with contextlib.suppress(Exception):  # not every absurd value can be told in YAML
                    data = yaml.safe_dump(record).encode("utf-8", "surrogatepass")
        path.write_bytes(data)
        return _load(path)

    def _load(path: Path) -> str:
        from phinetune.cli.terminal import safe
        from phinetune.errors import PhinetuneError
        from phinetune.settings import load

        try:
            settings = load(config=path)
        except PhinetuneError as error:
            safe(error.message).encode()
            return "refused" if 0 < len(error.message) < contained.LONGEST_MESSAGE else "a message too long"
        settings.model_dump_json()
        return "good"

    contained.run("settings that lie", options, trial)


if __name__ == "__main__":
    main()
