"""What the cards of an adapter and of a merged model share: the page and its fields, how to ask, the prompt format, and
text of others that can become no heading, tag or field of the card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

LIMITS = (
    "It may state wrong things confidently, also about what stands in the pairs. Check what matters.",
    "It keeps the base model's knowledge, errors and biases, and may repeat training answers word for word: "
    "do not share it more widely than the data.",
)


@dataclass(frozen=True)
class Asking:
    """How a model is asked. `prompt` holds {question}, `completion` {answer}."""

    prompt: str
    completion: str
    temperature: float
    top_p: float
    max_new_tokens: int


def page(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def front_matter(
    library: str, tags: Sequence[str], relation: Literal["adapter", "finetune"], base: str | None, license_: str | None
) -> str:
    """What the Hugging Face hub reads. `base`: the hub's name of the model that this one stands in `relation` to."""
    fields: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-generation"}
    if base:
        fields["base_model"] = one_line(base)
        if relation != "adapter":  # the hub knows that of whatever PEFT loads
            fields["base_model_relation"] = relation
        tags = [*tags, f"base_model:{relation}:{one_line(base)}"]
    if license_:
        fields["license"] = one_line(license_)
    fields["tags"] = list(tags)
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=10_000)}---"


def asking_with_phinetune(folder: str) -> str:
    command = f'phinetune ask {folder} "Your question"'
    return f"With phinetune:\n\n{fence(command, 'bash')}"


def code_to_ask(loading: str, asking: Asking) -> str:
    """Python that runs as it stands, fenced. `loading` imports and names `tokenizer` and `model`; it may use PROMPT."""
    sampling = (
        f"do_sample=True,\n        temperature={asking.temperature},\n        top_p={asking.top_p},"
        if asking.temperature > 0
        else "do_sample=False,"
    )
    ending = asking.completion.partition("{answer}")[2].strip()
    tidy = f".strip().removesuffix({literal(ending)})" if ending else ""
    python = f"""\
{loading}
PROMPT = {literal(asking.prompt)}


def ask(question: str) -> str:
    prompt = PROMPT.replace("{{question}}", question.strip())
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(model.device)
    output = model.generate(
        **inputs,
        max_new_tokens={asking.max_new_tokens},
        {sampling}
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    answer = output[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(answer, skip_special_tokens=True){tidy}.strip()


print(ask("Your question"))"""
    return fence(python, "python")


def prompt_format(asking: Asking) -> str:
    return (
        "The model was trained on exactly this text, and may answer worse to any other. It is given the prompt, "
        "without a blank at its end:\n\n"
        f"{fence(asking.prompt)}\n\n"
        "and goes on with the answer, which it ends with the tokenizer's end-of-text token:\n\n"
        f"{fence(asking.completion)}"
    )


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def plain(text: str) -> str:
    """Text of others within Markdown: signs that could mean something within a line are escaped (CommonMark 2.4)."""
    return re.sub(r"([\\`*_\[\]<>#&|~!$])", r"\\\1", one_line(text))


def code(text: str, *, in_table: bool = False) -> str:
    """Text of others as a code span, fenced by more backticks than it holds (CommonMark 6.1)."""
    text = one_line(text) or " "
    if in_table:
        text = text.replace("|", "\\|")
    fence = "`" * (_longest_run(text) + 1)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def fence(text: str, language: str = "") -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def literal(text: str) -> str:
    """A Python string literal on one line, in double quotes: a JSON string is one."""
    return json.dumps(text, ensure_ascii=False)
