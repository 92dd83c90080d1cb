"""Does dropout inside the frozen base model help? Phi-2's config asks for 0.1 behind every attention and MLP.

    python benchmarks/base_dropout.py [--sheet examples/handbook.xlsx] [--seeds 2] [--epochs 3]

SmolLM2-135M, whose own config has none, is trained with and without it, by the plain way both times; the held-out loss
of the best state and the seconds of training are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from bench import publish

from phinetune.events import Finished
from phinetune.model import lora
from phinetune.model.device import keep_freed_memory, pick_device, pick_dtype
from phinetune.model.load import load_base
from phinetune.run_folder import RunFolder
from phinetune.settings import EMBEDDED_MODEL, LoraSettings, TrainSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.sheet.split import split
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit

SHARE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", default=Path(__file__).parents[1] / "examples" / "handbook.xlsx", type=Path)
    parser.add_argument("--seeds", default=2, type=int)
    parser.add_argument("--epochs", default=3, type=float)
    arguments = parser.parse_args()
    keep_freed_memory()
    runs: dict[float, list[Finished]] = {0.0: [], SHARE: []}
    for seed in range(arguments.seeds):
        for share, finished in runs.items():
            finished.append(train(arguments.sheet, share, seed, arguments.epochs))
            print(share, seed, finished[-1].best_eval_loss, flush=True)
    publish(
        f"Dropout inside the frozen base model, SmolLM2-135M, {arguments.sheet.stem}",
        f"python benchmarks/base_dropout.py --sheet {arguments.sheet.name}",
        ["dropout of the base model", "best held-out loss, mean of the seeds", "each", "seconds"],
        [
            [
                f"{share:g}",
                f"{statistics.mean(run.best_eval_loss or 0 for run in finished):.4f}",
                ", ".join(f"{run.best_eval_loss:.4f}" for run in finished),
                f"{statistics.mean(run.seconds for run in finished):.0f}",
            ]
            for share, finished in runs.items()
        ],
    )


def train(sheet: Path, share: float, seed: int, epochs: float) -> Finished:
    device = pick_device()
    base = load_base(EMBEDDED_MODEL, pick_dtype(device), device)
    base.model.config.resid_pdrop = SHARE  # what keeps both from the fast way, which has no such dropout
    drop = torch.nn.Dropout(share)

    def after(module: torch.nn.Module, _inputs: object, output: object) -> object:
        if not module.training:
            return output
        return (drop(output[0]), *output[1:]) if isinstance(output, tuple) else drop(output)  # type: ignore[arg-type]

    for layer in base.model.model.layers:
        layer.self_attn.register_forward_hook(after)
        layer.mlp.register_forward_hook(after)
    parts = split(find_pairs(sheet).pairs, 0.1, 42)
    encoder = Encoder(base.tokenizer, PromptTemplate(), 512)
    corpus = Corpus(encoder.examples(parts.train), encoder.examples(parts.validation))
    model = lora.attach(base.model, LoraSettings(), base.name_for_peft, seed)
    settings = TrainSettings(epochs=epochs, learning_rate=1e-3, seed=seed, patience=0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, keep=1)
        *_, last = fit(model, corpus, settings, checkpoints, pairs_per_row=16)
    assert isinstance(last, Finished)
    return last


if __name__ == "__main__":
    main()
