"""Facts of a run -> `model/README.md`, the model card.

It says what the model is, what it was trained on, how that went, how to ask it and what not to expect of it, and
nothing that was not measured. Names and texts that come from the person's sheet are data: whatever they spell, they
cannot become a heading, a tag or a field of the card.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from phinetune.artifacts.card_parts import (
    LIMITS,
    Asking,
    asking_with_phinetune,
    bullets,
    code,
    code_to_ask,
    front_matter,
    literal,
    page,
    plain,
    prompt_format,
    table,
)
from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.artifacts.metrics import Summary
from phinetune.run_folder import write_text
from phinetune.settings import Settings

BaseKind = Literal["hub", "folder", "gguf", "embedded"]

_MOST_SAID = 4


@dataclass(frozen=True)
class CardFacts:
    """All that the card says, as plain values.

    base_model    as the person named it: hub name, folder, .gguf file or the embedded model's name
    hub_model     hub name of the model that plain transformers code has to load; None when it is not known
    prompt        `PromptTemplate.prompt("{question}")`
    completion    `PromptTemplate.completion("{answer}")`
    settings      `Settings.model_dump()` of the run
    figures       `metrics.summary(...)` of the run
    diagnosis     what they mean, worst first; the card tells the first few
    """

    base_model: str
    base_kind: BaseKind
    hub_model: str | None
    base_license: str | None
    data_file: str
    sheets: tuple[str, ...]
    question_column: str
    answer_column: str
    pairs: int
    skipped_rows: int
    prompt: str
    completion: str
    settings: Mapping[str, Any]
    figures: Summary
    device: str
    dtype: str
    diagnosis: tuple[Diagnosis, ...] = ()


def write_card(path: Path, facts: CardFacts) -> None:
    """Write the card to `path`. Raises RunError when the disk does not take it."""
    write_text(path, card(facts))


def card(facts: CardFacts) -> str:
    """The card as Markdown with YAML front matter, as the Hugging Face hub reads it."""
    parts = [
        front_matter("peft", ["lora", "phinetune"], "adapter", facts.hub_model, facts.base_license),
        f"# {plain(_base_name(facts))} tuned on {plain(_file_name(facts))}",
        _what_it_is(facts),
        "## Data",
        _data(facts),
        "## How training went",
        _results(facts),
        "## Ask it",
        _asking(facts),
        "## Prompt format",
        prompt_format(_asked(facts)),
        "## Limits",
        _limits(facts),
        "## Settings",
        _settings(facts),
    ]
    return page(parts)


def _what_it_is(facts: CardFacts) -> str:
    figures = facts.figures
    share = figures["trainable_parameters"] / figures["total_parameters"]
    return (
        f"A LoRA adapter: a small addition to the language model {code(_base_name(facts))} that makes it answer "
        f"questions the way the pairs in {code(_file_name(facts))} do. Only the adapter's "
        f"{figures['trainable_parameters']:,} parameters were trained, {share:.2%} of the "
        f"{figures['total_parameters']:,} in the whole; the base model itself is unchanged and not in this folder."
    )


def _data(facts: CardFacts) -> str:
    figures = facts.figures
    lines = [f"file: {code(_file_name(facts))}"]
    if facts.sheets:
        lines.append(f"{'sheet' if len(facts.sheets) == 1 else 'sheets'}: {', '.join(map(code, facts.sheets))}")
    lines += [
        f"questions from column {code(facts.question_column)}, answers from column {code(facts.answer_column)}",
        f"{facts.pairs:,} usable pairs: {figures['train_pairs']:,} to train on, {figures['validation_pairs']:,} held "
        "out to measure progress",
        f"{facts.skipped_rows:,} rows skipped",
    ]
    return bullets(lines)


def _results(facts: CardFacts) -> str:
    figures = facts.figures
    before = figures["first_eval_loss"] if figures["first_eval_step"] == 0 else None
    rows = [
        ("held-out loss before training", _number(before, ".3f")),
        ("held-out loss of this state", _number(figures["kept_eval_loss"], ".3f")),
        ("its perplexity", _number(_perplexity(figures["kept_eval_loss"]), ".2f")),
        ("step that was kept", _kept_step(figures)),
        ("own training questions answered word for word", _by_heart(figures)),
        ("held-out answers after which it would stop", _endings(figures)),
        ("training loss over the last epoch", _number(figures["final_train_loss"], ".3f")),
        ("optimizer steps", _number(figures["steps"], ",")),
        ("epochs", _number(figures["epochs"], ".2f")),
        ("time", f"{figures['seconds']:,.0f} s"),
        ("speed", _number(figures["real_tokens_per_s"], ",.0f", " real tokens a second")),
        ("peak memory", _number(figures["peak_memory_gb"], ".1f", " GB")),
        ("device", f"{code(facts.device, in_table=True)}, {code(facts.dtype, in_table=True)}"),
        ("training ended", _why_it_stopped(facts)),
    ]
    figures_table = table(("figure", "value"), [row for row in rows if row[1]])
    note = (
        "Losses are nats per answer token, lower is better. Perplexity is exp(loss): how many next tokens the model "
        "hesitates between, on average."
    )
    if figures["best_step"] is None:
        note += " Nothing was held out to measure on, so how well it generalises is unknown."
    elif figures["kept_step"] == figures["best_step"]:
        note += " The best step was chosen by the same held-out pairs, so its loss is a little flattering."
    said = bullets(plain(found.sentence) for found in facts.diagnosis[:_MOST_SAID])
    return "\n\n".join(part for part in (said, figures_table, note) if part)


def _why_it_stopped(facts: CardFacts) -> str:
    match facts.figures["stopped"]:
        case "finished":
            return "all planned steps were done"
        case "early_stopping":
            return "early: the held-out loss no longer got better"
        case "interrupted":
            return "early: it was interrupted"
        case "failed":
            return "early: it became unstable"


def _asking(facts: CardFacts) -> str:
    parts = [asking_with_phinetune("path/to/model")]
    hub = code(facts.hub_model) if facts.hub_model else ""
    name = code(_base_name(facts))
    match facts.base_kind:
        case "hub" | "folder":
            parts.append("With plain transformers and peft:")
        case "gguf" | "embedded":
            source = f"the file {name}" if facts.base_kind == "gguf" else f"{name}, which phinetune brings along"
            which = (
                f"{hub} from the Hugging Face hub"
                if hub
                else "the hub model that the file was made from (its name is not known here: put it in `BASE`)"
            )
            parts.append(
                f"With plain transformers and peft. The base model was {source}, in GGUF format; this code needs the "
                f"matching {which}. GGUF weights are often rounded, so answers can differ slightly."
            )
    parts.append(code_to_ask(_loading(facts), _asked(facts)))
    return "\n\n".join(parts)


def _loading(facts: CardFacts) -> str:
    base = facts.hub_model or (facts.base_model if facts.base_kind == "folder" else "owner/matching-model")
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(facts.dtype, "auto")
    return f"""\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

BASE = {literal(base)}
ADAPTER = "path/to/model"  # the folder of this card

tokenizer = AutoTokenizer.from_pretrained(ADAPTER)
base_model = AutoModelForCausalLM.from_pretrained(BASE, dtype={literal(dtype)}, device_map="auto")
model = PeftModel.from_pretrained(base_model, ADAPTER).eval()"""


def _asked(facts: CardFacts) -> Asking:
    generate = facts.settings["generate"]
    sampling = {name: generate[name] for name in ("temperature", "top_p", "max_new_tokens")}
    return Asking(facts.prompt, facts.completion, **sampling)


def _limits(facts: CardFacts) -> str:
    lines = [
        f"It was trained on {facts.figures['train_pairs']:,} pairs. Asked about anything else it answers all the same, "
        "in the same tone.",
        *LIMITS,
        "Only the held-out loss was measured here. Whether answers are right, only reading them tells.",
    ]
    return bullets(lines)


def _settings(facts: CardFacts) -> str:
    told_above = {"model", "data.question", "data.answer", "data.sheet", "data.template"}
    rows = []
    for group, field in Settings.model_fields.items():
        kind = field.annotation
        for leaf, declared in getattr(kind, "model_fields", {}).items():
            name = f"{group}.{leaf}"
            if name not in told_above:
                value = facts.settings[group][leaf]
                shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
                shown = "left out" if value is None else code(shown, in_table=True)
                rows.append((f"`{name}`", shown, declared.description or ""))
    return table(("setting", "value", "meaning"), rows)


def _base_name(facts: CardFacts) -> str:
    """The base model without the folders around it, which are nobody else's business."""
    return PurePath(facts.base_model).name if facts.base_kind in ("folder", "gguf") else facts.base_model


def _file_name(facts: CardFacts) -> str:
    return PurePath(facts.data_file).name


def _kept_step(figures: Summary) -> str:
    kept, best = figures["kept_step"], figures["best_step"]
    if kept is None:
        return ""
    if best is None or kept == best:
        return f"{kept:,}"
    return f"{kept:,}, the last; the lowest held-out loss, {figures['best_eval_loss']:.3f}, was at step {best:,}"


def _by_heart(figures: Summary) -> str:
    return "" if figures["own_asked"] is None else f"{figures['own_right_kept']} of {figures['own_asked']}"


def _endings(figures: Summary) -> str:
    return "" if figures["endings_asked"] is None else f"{figures['endings_known']} of {figures['endings_asked']}"


def _perplexity(loss: float | None) -> float | None:
    return None if loss is None else math.exp(loss)


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"
