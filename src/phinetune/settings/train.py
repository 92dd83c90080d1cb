"""Settings: how the adapter is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from phinetune.settings.field import Group, setting


class TrainSettings(Group):
    """How it is trained."""

    epochs: float = setting(
        5,
        "How many times every pair is seen.",
        more="More is learned, until pairs are learned by heart: the held-out loss then rises. The best state is kept, "
        "unless train.keep says otherwise.",
        less="A shorter run; with too few, the loss is still falling when it ends.",
        when="10 for under 100 pairs, 3 to 5 for some hundreds, 1 to 2 for many thousands.",
        also=("number of epochs", "passes", "training length"),
        gt=0,
        le=1000,
    )
    batch_size: int = setting(
        4,
        "Pairs that go through the model at once.",
        more="Faster on a large GPU, more memory.",
        less="Less memory. With grad_accum raised by the same factor the result is the same.",
        when="Memory runs out: halve it and double grad_accum. Where memory allows, more pairs are taken at once by "
        "themselves.",
        also=("effective batch size", "micro-batch", "micro-batch size"),
        ge=1,
    )
    grad_accum: int = setting(
        4,
        "Such batches in one optimizer step.",
        more="Each step averages over more pairs (batch_size x grad_accum): steadier, and fewer steps in an epoch.",
        less="More steps in an epoch, each noisier; good for few pairs and small models.",
        when="There are fewer than about 50 steps in all (lower it), or the loss jumps from step to step (raise it).",
        also=("gradient accumulation", "gradient accumulation steps", "accumulation", "effective batch size"),
        ge=1,
    )
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = setting(
        2e-4,
        "Size of an optimizer step at its peak; auto takes what suits the model and the sheet.",
        more="Faster learning; too high, the loss spikes, rises or is no longer a number.",
        less="Calmer and slower; too low, the loss hardly moves.",
        when="First of all when training goes wrong. Change it by a factor of 2 to 5. Models of billions of "
        "parameters like 1e-4 to 5e-4, one of 135 million 1e-3. Facts that are asked for in several words each want "
        "more than answers that stand once; auto goes by that and by the model's size.",
        also=("step size", "peak learning rate", "optimizer", "AdamW", "scheduler", "learning rate schedule"),
    )
    warmup_steps: int | None = setting(
        None,
        "Steps in which the learning rate rises from 0; when left out 100, but at most 10 % of all steps.",
        more="A gentler start; too many, and little of the run is left at a useful rate, which falls in a straight "
        "line to 0 at the end of the run.",
        less="An earlier start at full rate, which can make the loss jump at first.",
        when="The loss jumps in the first steps (raise it). More than a quarter of all steps is too many.",
        also=("warmup", "warm-up", "scheduler", "learning rate schedule", "lr scheduler", "linear decay"),
        ge=0,
    )
    weight_decay: float = setting(
        0.01,
        "Pull of the adapter weights towards 0 (AdamW).",
        more="Weights stay smaller, a weak guard against overfitting; at 0.1 and above learning suffers.",
        less="The guard goes; 0 switches it off. In a short run the difference is small.",
        when="Seldom. Against overfitting, fewer epochs and more dropout do more.",
        also=("L2", "regularization", "regularisation", "optimizer", "AdamW"),
        ge=0,
        le=1,
    )
    max_grad_norm: float = setting(
        1.0,
        "Longer gradients are shortened to this length.",
        more="Odd pairs may move the model further in one step.",
        less="Steadier against odd pairs, slower when it shortens every step.",
        when="The loss spikes although the learning rate is low: try 0.3.",
        also=("gradient clipping", "clipping", "gradient norm"),
        gt=0,
    )
    eval_steps: int | None = setting(
        None,
        "Steps between validations; when left out 50, and at the end of every epoch.",
        more="Less time is spent on measuring, and the best step is found less exactly.",
        less="The best step is found more exactly; each validation reads all held-out pairs.",
        when="An epoch is long and the best step may lie within it (lower it).",
        also=("validation steps", "evaluation", "validation interval"),
        ge=1,
    )
    save_steps: int | None = setting(
        None,
        "Steps between checkpoints; when left out 50, and at the end of every epoch.",
        more="Fewer writes; an interruption costs more steps. The best step is saved in any case.",
        less="An interruption costs fewer steps.",
        when="The machine may be taken away at any time, as on Colab (lower it).",
        also=("checkpoint interval",),
        ge=1,
    )
    patience: int = setting(
        3,
        "Stop after so many validations without a better one; 0 never stops, nor does it with --keep last.",
        more="Training waits longer for the held-out loss to fall again.",
        less="It stops sooner, also at a bump that would have passed.",
        when="It stopped too early (raise it), or time is wasted after the best step (lower it).",
        also=("early stopping",),
        ge=0,
    )
    keep: Literal["best", "last"] = setting(
        "best",
        "Which state becomes the model: the best on held-out pairs, or the last one.",
        more="last takes the state of the last step, which knows most of the sheet by heart, and trains all epochs, "
        "whatever patience says. With --resume it takes the last state of a run that is done.",
        less="best takes the state with the lowest held-out loss: the one for questions that are not in the sheet.",
        when="The answers are single facts, each asked once: they can be learned by heart only, and no held-out loss "
        "shows it.",
        also=("best model", "best checkpoint", "load best model at end"),
    )
    keep_checkpoints: int = setting(
        2,
        "Latest checkpoints to keep besides the best.",
        more="More steps to look back at, more disk.",
        less="Less disk; with 1, a damaged checkpoint leaves only the best one to go on from.",
        when="The disk is small, or you want to compare several steps.",
        ge=1,
    )
    seed: int = setting(
        42,
        "Fixes the order of the pairs, the adapter's start and dropout.",
        more="Any other number is another run of the same kind; none is better.",
        less="The same number gives the same run again (on a GPU, up to rounding).",
        when="You want to know whether a change helps or is luck: run both with several seeds.",
        ge=0,
        lt=2**32,
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto",
        "Where to train.",
        more="cuda is an NVIDIA GPU, mps an Apple GPU, cpu the processor.",
        less="auto takes a GPU when there is one.",
        when="The GPU is needed for something else, or its memory is too small.",
        also=("GPU", "CUDA", "CPU"),
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = setting(
        "auto",
        "Number format of the base weights; auto takes what the device computes fastest without loss.",
        more="fp32 is the most exact, takes twice the memory and is often slower. bf16 and fp16 take half; fp16 has a "
        "small range, so gradients are scaled to fit it.",
        less="auto takes bf16 where the hardware multiplies it, fp16 on a GPU that does not, and fp32 elsewhere.",
        when="The loss is no longer a number (fp32), or memory is short on a CPU (bf16). Training does not go below 16 "
        "bits: 8, 4 and fewer are for the finished model (phinetune gguf --quantize).",
        also=("precision", "mixed precision", "half precision", "fp16", "bf16", "fp32", "quantization", "quantisation"),
    )
    gradient_checkpointing: bool | Literal["auto"] = setting(
        "auto",
        "Recompute instead of remember: less memory, about a third slower; auto uses it when needed.",
        more="true always recomputes: the least memory. false never does: the fastest, if it fits.",
        less="auto recomputes when the run would not fit otherwise.",
        when="Memory runs out although auto thought it would fit (true).",
        also=("activation checkpointing", "recompute"),
    )
    adapter_format: Literal["safetensors", "bin"] = setting(
        "safetensors",
        "File format of the adapter.",
        more="bin writes adapter_model.bin as well, the older pickle form, which can carry code.",
        less="safetensors holds numbers alone.",
        when="An older tool asks for adapter_model.bin.",
    )

    @property
    def examples_per_step(self) -> int:
        return self.batch_size * self.grad_accum
