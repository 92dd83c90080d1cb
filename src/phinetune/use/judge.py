"""Who says whether an answer is right: the expected text in it, the same words, the same numbers, or another model."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from phinetune.errors import RunError, SettingsError
from phinetune.use.scores import contains_fact, exact_match, same_numbers

JudgeName: TypeAlias = Literal["contains", "exact", "numeric", "llm-endpoint"]
Judge: TypeAlias = Callable[[str, str, str], bool]
"""(question, expected, answer) -> whether the answer is right."""

_PATIENCE = 120  # seconds for one verdict
_ASKED = (
    "Does the answer say the same as the reference, in substance? Ignore wording and style. Reply yes or no.\n\n"
    "Question: {question}\nReference: {expected}\nAnswer: {answer}"
)


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible interface: its address up to /v1, the model's name there, and a key if it wants one."""

    url: str
    model: str
    api_key: str | None = None


def judge(name: str, endpoint: Endpoint | None = None) -> Judge:
    """The judge called `name`. Raises SettingsError for an unknown one, or an endpoint that is missing."""
    match name:
        case "contains":
            return lambda _, expected, answer: contains_fact(answer, expected)
        case "exact":
            return lambda _, expected, answer: bool(exact_match(answer, expected))
        case "numeric":
            return lambda _, expected, answer: same_numbers(answer, expected)
        case "llm-endpoint" if endpoint is not None:
            return lambda question, expected, answer: _ask(endpoint, question, expected, answer)
        case "llm-endpoint":
            raise SettingsError(
                "A model as judge needs to be reached.",
                "Say where: --judge-url http://localhost:11434/v1 --judge-model llama3.1",
            )
    raise SettingsError(f"There is no judge called {name}.", "Choose contains, exact, numeric or llm-endpoint.")


def _ask(endpoint: Endpoint, question: str, expected: str, answer: str) -> bool:
    texts = {"{question}": question, "{expected}": expected, "{answer}": answer}
    # All at once: a question about "{answer}" keeps its words.
    asked = re.sub("|".join(map(re.escape, texts)), lambda field: texts[field[0]], _ASKED)
    body = {"model": endpoint.model, "temperature": 0, "messages": [{"role": "user", "content": asked}]}
    headers = {"Content-Type": "application/json"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    url = f"{endpoint.url.rstrip('/')}/chat/completions"
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"{endpoint.url} is no address of a judge.", "It begins with http:// or https://.")
    try:
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=_PATIENCE) as reply:
            said = str(json.load(reply)["choices"][0]["message"]["content"])
    except (OSError, urllib.error.URLError, ValueError, KeyError, IndexError, TypeError) as error:
        raise RunError(
            f"The judge at {endpoint.url} gave no verdict: {error}.", "Check --judge-url, --judge-model and the key."
        ) from None
    verdict = said.strip().strip("*\"'").casefold()
    if not verdict.startswith(("yes", "no")):
        raise RunError(f"The judge answered {said[:60]!r} instead of yes or no.", "Use a larger model as judge.")
    return verdict.startswith("yes")
