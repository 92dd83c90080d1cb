"""Who says whether an answer is right: the expected text in it, the same words, the same numbers, or another model."""

from __future__ import annotations

import http.client
import json
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from phinetune.errors import RunError, SettingsError
from phinetune.use.scores import contains_fact, exact_match, same_numbers

JudgeName: TypeAlias = Literal["contains", "exact", "numeric", "llm-endpoint"]
Judge: TypeAlias = Callable[[str, str, str], bool | None]
"""(question, expected, answer) -> whether the answer is right; None where the judge gave no verdict."""

_PATIENCE = 120  # seconds for one verdict
_MOST_UNHEARD = 3  # answers in a row without a reply: the judge is gone, and waiting for each would take hours
_ASKED = (
    "Does the answer say the same as the reference, in substance? Ignore wording and style. Reply yes or no.\n\n"
    "Question: {question}\nReference: {expected}\nAnswer: {answer}"
)
_TRIAL = ("What colour is the sky?", "Blue.", "The sky is blue.")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible interface: its address up to /v1, the model's name there, and a key if it wants one."""

    url: str
    model: str
    api_key: str | None = None


def judge(name: str, endpoint: Endpoint | None = None) -> Judge:
    """The judge called `name`; a model as judge is asked a trial question at once.

    Raises SettingsError for an unknown judge, an endpoint that is missing or not asked for, or one that is no address,
    RunError when the trial question gets no verdict.
    """
    if name not in get_args(JudgeName):
        raise SettingsError(f"There is no judge called {name}.", "Choose contains, exact, numeric or llm-endpoint.")
    if endpoint is not None and name != "llm-endpoint":
        raise SettingsError(
            f"A model is named as judge, but the judge is {name}.", "Add --judge llm-endpoint, or leave the model out."
        )
    match name:
        case "exact":
            return lambda _, expected, answer: bool(exact_match(answer, expected))
        case "numeric":
            return lambda _, expected, answer: same_numbers(answer, expected)
        case "llm-endpoint":
            if endpoint is None or not endpoint.url:
                raise SettingsError(
                    "A model as judge needs to be reached.",
                    "Say where: --judge-url http://localhost:11434/v1 --judge-model llama3.1",
                )
            return _ModelAsJudge(endpoint)
    return lambda _, expected, answer: contains_fact(answer, expected)


class _UnheardError(RunError):
    """No reply came from the endpoint, or none that can be read."""


class _ModelAsJudge:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._unheard = 0
        # A wrong address or key shows now, not when the models have answered everything.
        _ask_twice(endpoint, *_TRIAL)

    def __call__(self, question: str, expected: str, answer: str) -> bool | None:
        if self._unheard == _MOST_UNHEARD:
            return None
        verdict = None
        try:
            verdict = _ask_twice(self._endpoint, question, expected, answer)
        except _UnheardError:
            self._unheard += 1
            return None
        except RunError:
            pass
        self._unheard = 0
        return verdict


def _ask_twice(endpoint: Endpoint, question: str, expected: str, answer: str) -> bool:
    try:
        return _ask(endpoint, question, expected, answer)
    except RunError:
        return _ask(endpoint, question, expected, answer)


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
            said = json.load(reply)["choices"][0]["message"]["content"]
    except http.client.InvalidURL as error:
        raise SettingsError(
            f"{endpoint.url} is no address of a judge: {error}.", "Such as http://localhost:11434/v1"
        ) from None
    except (
        OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError,
    ) as error:  # fmt: skip
        raise _UnheardError(
            f"The judge at {endpoint.url} gave no verdict: {error}.", "Check --judge-url, --judge-model and the key."
        ) from None
    verdict = re.match(r"\W*(yes|no)\b", _without_thoughts(said).casefold()) if isinstance(said, str) else None
    if verdict is None:
        raise RunError(f"The judge answered {said!r:.60} instead of yes or no.", "Use a larger model as judge.")
    return verdict[1] == "yes"


def _without_thoughts(said: str) -> str:
    """What follows the thoughts of a reasoning model. Some send only the end mark; thoughts without one were cut."""
    after = said.rpartition("</think>")[2]
    return "" if "<think>" in after else after
