"""Answers over HTTP: `phinetune serve` beside `phinetune answer` in Python and transformers' `generate`, one by one.

    python benchmarks/serve.py [--questions 24] [--rounds 3] [--kinds q8_0,f16]

SmolLM2-135M with a fresh adapter, served as .gguf by llama.cpp on this machine's loopback. Every answer is greedy and
goes on to the same length, so that all do the same work. Tokens/s are those of the answers, all clients together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import answer
import torch
from bench import publish

import phinetune
from phinetune.model import lora
from phinetune.model.device import pick_device, pick_dtype
from phinetune.model.load import load_base
from phinetune.recipe import default_recipe
from phinetune.settings import EMBEDDED_MODEL, LoraSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate

AT_ONCE = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", default=24, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--kinds", default="q8_0,f16")
    arguments = parser.parse_args()
    base = load_base(EMBEDDED_MODEL, pick_dtype(torch.device("cpu")), pick_device("cpu"))
    encoder = Encoder(base.tokenizer, PromptTemplate(), 512)
    questions = [pair.question for pair in find_pairs(answer.HANDBOOK).pairs[: arguments.questions]]
    prompts = [encoder.prompt_ids(question) for question in questions]
    model = lora.attach(base.model, LoraSettings(), base.name_for_peft, seed=0).eval()
    asked = [PromptTemplate().prompt(question) for question in questions]
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "model"
        run.mkdir()
        lora.save(model, run)
        default_recipe(EMBEDDED_MODEL).write(run)
        files = phinetune.export_gguf(run, Path(place) / "x.gguf", quantize=arguments.kinds.split(","), check=False)
        for _ in range(arguments.rounds):
            for file in files:
                with phinetune.serve(file.path, at_once=AT_ONCE) as server:
                    for clients in (1, AT_ONCE):
                        speed = _rate(partial(_ask_all, server.address, asked, clients), len(questions))
                        speeds.setdefault(f"serve, {file.kind}, clients at once: {clients}", []).append(speed)
            ways: dict[str, Callable[[], object]] = {
                "phinetune answer, in batches": lambda: answer.ours(model, prompts),
                "transformers.generate, one by one": lambda: answer.generated(model, prompts, 1),
            }
            for name, way in ways.items():
                speeds.setdefault(name, []).append(_rate(way, len(prompts)))
    plain = statistics.median(speeds["transformers.generate, one by one"])
    publish(
        f"Serving SmolLM2-135M, {len(questions)} questions",
        "python benchmarks/serve.py",
        ["way", "tokens/s", "against generate"],
        [
            [name, f"{(median := statistics.median(measured)):.0f}", f"{median / plain:.1f} x"]
            for name, measured in speeds.items()
        ],
    )


def _rate(way: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    way()
    return answer.LENGTH * count / (time.perf_counter() - start)


def _ask_all(address: str, prompts: list[str], clients: int) -> None:
    def ask(prompt: str) -> None:
        body = {"prompt": prompt, "temperature": 0, "n_predict": answer.LENGTH, "ignore_eos": True}
        request = urllib.request.Request(
            f"{address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as reply:
            written = json.load(reply)["tokens_predicted"]
        if written != answer.LENGTH:
            raise SystemExit(f"{written} tokens instead of {answer.LENGTH}")

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, prompts))


if __name__ == "__main__":
    main()
