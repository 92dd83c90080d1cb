"""Answering a list of questions: ours in batches beside transformers' `generate`, one by one and in padded batches.

    python benchmarks/answer.py [--questions 100] [--rounds 3]

SmolLM2-135M with a fresh adapter; every answer is written greedily to the same length, so that all do the same work.
The answers are compared first, in fp32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench import publish

from phinetune.model import lora
from phinetune.model.decode import decoder
from phinetune.model.device import dtype_name, pick_device, pick_dtype
from phinetune.model.load import load_base
from phinetune.settings import EMBEDDED_MODEL, LoraSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate

HANDBOOK = Path(__file__).parents[1] / "examples" / "handbook.xlsx"
LENGTH, BATCH = 32, 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", default=100, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    arguments = parser.parse_args()
    device = pick_device()
    dtype = pick_dtype(device)
    base = load_base(EMBEDDED_MODEL, torch.float32, device)
    encoder = Encoder(base.tokenizer, PromptTemplate(), 512)
    pairs = find_pairs(HANDBOOK).pairs[: arguments.questions]
    prompts = sorted((encoder.prompt_ids(pair.question) for pair in pairs), key=len)
    model = lora.attach(base.model, LoraSettings(), base.name_for_peft, seed=0).eval()
    one_by_one = prompts[:: max(1, len(prompts) // 10)]  # a tenth stands for all: it takes long

    # In fp32: an untuned model hesitates between words that the rounding of shorter numbers swaps.
    # `generate` is kept from ending early, ours goes on by itself: they are compared up to there.
    end = [encoder.eos_id]
    written = zip(ours(model, one_by_one), generated(model, one_by_one, 1), strict=True)
    same = sum(a[: (a + end).index(*end)] == b[: (a + end).index(*end)] for a, b in written)
    base.model.to(dtype)
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "phinetune": (lambda: ours(model, prompts), len(prompts)),
        "transformers.generate, padded batches": (lambda: generated(model, prompts, BATCH), len(prompts)),
        "transformers.generate, one by one": (lambda: generated(model, one_by_one, 1), len(one_by_one)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, (answer, count) in ways.items():
            start = time.perf_counter()
            answer()
            speeds[name].append(LENGTH * count / (time.perf_counter() - start))
    mine = statistics.median(speeds["phinetune"])
    publish(
        f"Answering {len(prompts)} questions, SmolLM2-135M with an adapter, {dtype_name(dtype)}",
        "python benchmarks/answer.py",
        ["way", "tokens/s", "phinetune against it"],
        [
            [name, f"{(median := statistics.median(measured)):.0f}", f"{mine / median:.1f} x"]
            for name, measured in speeds.items()
        ],
        f"{same} of {len(one_by_one)} greedy answers of up to {LENGTH} tokens are the same in fp32, token by token.",
    )


@torch.inference_mode()
def ours(model: torch.nn.Module, prompts: list[list[int]]) -> list[list[int]]:
    texts = []
    for start in range(0, len(prompts), BATCH):
        made = decoder(model)  # type: ignore[arg-type]
        chosen = made.start(prompts[start : start + BATCH]).argmax(-1)
        steps = [chosen]
        for _ in range(LENGTH - 1):
            chosen = made.step(chosen).argmax(-1)
            steps.append(chosen)
        texts += torch.stack(steps, dim=1).tolist()
    return texts


@torch.inference_mode()
def generated(model: torch.nn.Module, prompts: list[list[int]], batch: int) -> list[list[int]]:
    texts = []
    for start in range(0, len(prompts), batch):
        chosen = prompts[start : start + batch]
        longest = max(map(len, chosen))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in chosen])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in chosen])
        written = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=LENGTH,
            max_new_tokens=LENGTH,
            pad_token_id=0,
        )
        texts += written[:, longest:].tolist()
    return texts


if __name__ == "__main__":
    main()
