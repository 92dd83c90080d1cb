"""One training recipe, ours or another's, in a process of its own: real tokens/s and peak memory as JSON.

    python benchmarks/recipes.py ours|guide|trl|trl-packed --model FOLDER|random-phi2 --sheet SHEET [--steps N]
                                 [--dtype bf16]

`guide` is the well-known Phi-2 script: transformers.Trainer, rows padded to --max-length, questions trained too.
`trl` is TRL's SFTTrainer with answer-only loss, padded to the longest of a batch; `trl-packed` fills rows of
--max-length. All train LoRA r = 16 on every linear layer with dropout 0.05, 16 pairs a step (packed: one row a step),
on the same pairs. Real tokens are those of the pairs; padding does not count. Import and load time do not count, nor
does the first step, where there are more: medians of the steps.

The others need the packages of the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from train_phi2 import phi2
from train_phi2 import tokenizer as phi2_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from phinetune.events import StepDone
from phinetune.model import lora
from phinetune.model.device import DTYPES, keep_freed_memory, peak_memory_gb, pick_device
from phinetune.model.load import load_base
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit

RANDOM_PHI2 = "random-phi2"  # at full size
LINEAR_LAYERS = {
    "phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", choices=["ours", "guide", "trl", "trl-packed"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--sheet", required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=16, help="ours: pairs that go through the model at once")
    parser.add_argument("--recompute", action="store_true", help="ours: activations computed again, not kept")
    arguments = parser.parse_args()
    train = ours if arguments.recipe == "ours" else peer
    seconds_a_step, tokens_a_step = train(arguments)
    device = pick_device()
    memory = peak_memory_gb(device) if device.type == "cuda" else _peak_rss_gb()
    print(
        json.dumps(
            {
                "real_tokens_per_s": tokens_a_step / seconds_a_step,
                "seconds_a_step": seconds_a_step,
                "tokens_a_step": tokens_a_step,
                "peak_memory_gb": memory,
            }
        )
    )


def ours(arguments: argparse.Namespace) -> tuple[float, float]:
    device = pick_device()
    keep_freed_memory()
    if arguments.model == RANDOM_PHI2:
        base, tokenizer = phi2(DTYPES[arguments.dtype], device), phi2_tokenizer()
    else:
        loaded = load_base(arguments.model, DTYPES[arguments.dtype], device)
        base, tokenizer = loaded.model, loaded.tokenizer
    encoder = Encoder(tokenizer, PromptTemplate(), arguments.max_length)
    examples = encoder.examples(find_pairs(arguments.sheet).pairs)
    model = lora.attach(base, LoraSettings(), arguments.model, seed=0)
    if arguments.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    epochs = arguments.steps / -(-len(examples) // 16)
    settings = TrainSettings(epochs=epochs, patience=0, eval_steps=10**6, save_steps=10**6)
    done = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, keep=1)
        for event in fit(model, Corpus(examples, []), settings, checkpoints, pairs_per_row=arguments.batch_size):
            if isinstance(event, StepDone):
                done.append(event)
    # The first step fills caches; on a GPU the first of a size records a graph, which the median leaves out.
    counted = done[1:] or done
    tokens = statistics.mean(step.tokens for step in counted)
    return tokens / statistics.median(step.tokens / step.seconds for step in counted), tokens


def peer(arguments: argparse.Namespace) -> tuple[float, float]:
    from datasets import Dataset
    from peft import LoraConfig

    packed = arguments.recipe == "trl-packed"
    is_random = arguments.model == RANDOM_PHI2
    tokenizer: Any = phi2_tokenizer() if is_random else AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    pairs = find_pairs(arguments.sheet).pairs
    prompts = [f"### Question: {pair.question}\n\n### Answer:" for pair in pairs]
    answers = [f" {pair.answer}{tokenizer.eos_token}" for pair in pairs]
    texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    real = sum(min(len(ids), arguments.max_length) for ids in tokenizer(texts).input_ids)
    if is_random:
        model: Any = phi2(DTYPES[arguments.dtype], pick_device())
    else:
        model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=DTYPES[arguments.dtype])
    adapter = LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.05,
        task_type="CAUSAL_LM",
        target_modules=LINEAR_LAYERS[model.config.model_type],
    )
    options: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": 1 if packed else 4,
        "gradient_accumulation_steps": 1 if packed else 4,
        "learning_rate": 2e-4,
        "max_steps": arguments.steps,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": arguments.dtype == "bf16",
        "fp16": arguments.dtype == "fp16",
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    trainer: Any
    if arguments.recipe == "guide":
        trainer = _guide_trainer(model, adapter, tokenizer, texts, options, arguments.max_length)
    else:
        from trl import SFTConfig, SFTTrainer

        rows = [{"prompt": p, "completion": a} for p, a in zip(prompts, answers, strict=True)]
        options |= {"max_length": arguments.max_length, "packing": packed, "gradient_checkpointing": False}
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**options),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=adapter,
        )
    steps_an_epoch = len(trainer.get_train_dataloader()) / options["gradient_accumulation_steps"]
    clock = _Clock()
    trainer.add_callback(clock)
    start = time.perf_counter()
    trainer.train()
    whole = (time.perf_counter() - start) / arguments.steps
    return statistics.median(clock.seconds[1:]) if len(clock.seconds) > 1 else whole, real / steps_an_epoch


class _Clock(TrainerCallback):
    """The seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._start)


def _guide_trainer(
    model: Any, adapter: Any, tokenizer: Any, texts: list[str], options: dict[str, Any], max_length: int
) -> Any:
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    padded = tokenizer(texts, truncation=True, max_length=max_length, padding="max_length")
    return Trainer(
        model=get_peft_model(model, adapter),
        args=TrainingArguments(**options),
        train_dataset=Dataset.from_dict(dict(padded)),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )


def _peak_rss_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
