"""A .gguf file behind an OpenAI-compatible HTTP interface: llama.cpp's own server, with the training prompt applied.

    POST /v1/chat/completions {"messages": [{"role": "user", "content": "Who keeps the light?"}]}
      ─►  "### Question: Who keeps the light?\\n\\n### Answer:"  ─►  the model  ─►  {"choices": [{"message": …}]}

Every question stands alone: the last message is asked, as the model was trained on single pairs.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from phinetune.errors import RunError, SettingsError
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use.gate import Gate

_LONGEST_SOCKET = 100  # letters of a Unix socket's path; the systems take 104 to 108
_PATIENCE = 600  # seconds, for a large model on a slow disk
_LISTENING, _SENDING = 20, 120  # seconds that a client may be silent
_CLIENTS = 128  # connections that are listened to at once; each is a thread that waits
_REFUSE_NOTHING = (
    "{% if not messages or not messages[-1]['content'] | trim %}{{ raise_exception('Nothing is asked.') }}{% endif %}"
)
_SAMPLERS = "penalties;dry;top_n_sigma;top_k;typ_p;temperature;top_p;min_p;xtc"  # their order is that of `choose`
_QUIET, _TELLING = -1, 3  # llama.cpp's log levels: errors; every answer with its tokens and its speed


@dataclass(frozen=True)
class Serving:
    """Where and how to serve. Port 0 takes any that is free; without a key anyone who reaches the port may ask.

    `temperature`, `top_p` and `max_new_tokens` are for requests that do not name their own.
    `log`: llama.cpp says on standard error what it does, never what was asked or answered.
    """

    host: str
    port: int
    api_key: str | None
    name: str
    context: int
    at_once: int
    temperature: float
    top_p: float
    max_new_tokens: int
    adapter: Path | None = None
    log: bool = False


class ModelServer:
    """A running server; leaving the block ends it.

    Raises SettingsError for a host beyond this machine without a key and for a key that no request can carry,
    RunError when the port is taken, the file is none that llama.cpp can load, or llama.cpp is not installed.
    """

    def __init__(self, file: Path, template: PromptTemplate, serving: Serving) -> None:
        if not _is_loopback(serving.host) and not serving.api_key:
            raise SettingsError(
                f"Whoever reaches {serving.host} could ask this model.",
                "Set a key with --api-key, or leave --host out to serve this machine alone.",
            )
        if serving.api_key and not _fits_a_header(serving.api_key):
            raise SettingsError(
                "The key of --api-key holds something that no request can carry.",
                "Take plain letters, digits and signs; no line end, no accents, no space at its ends.",
            )
        _refuse_taken_port(serving)
        try:
            import xllamacpp
        except ModuleNotFoundError:
            raise RunError(
                "Serving needs llama.cpp, which is not installed.", "Install it with: pip install 'phinetune[serve]'"
            ) from None
        settings: Any = xllamacpp.CommonParams()
        settings.model.path, settings.model_alias = str(file), {serving.name}
        self._held = ExitStack()
        settings.hostnames, settings.port = [self._place_inside()], 0
        settings.api_keys = [serving.api_key] if serving.api_key else []
        settings.n_ctx, settings.n_parallel = serving.context * serving.at_once, serving.at_once
        settings.chat_template, settings.use_jinja = _REFUSE_NOTHING + template.chat_template(), True
        # An answer is text: nothing in it is taken for a thought or the call of a tool. The blank that it begins with,
        # which belongs to its first token (see tokens/prompt.py), is left out in this way too.
        settings.force_pure_content_parser = True
        _answer_as_asked(settings, template, serving)
        if serving.adapter is not None:
            settings.lora_adapters = [_adapter(xllamacpp, serving.adapter)]
        settings.verbosity, settings.warmup = _TELLING if serving.log else _QUIET, False
        # What llama.cpp would leave open: an hour for a client that says nothing, any web page that the person visits
        # asking and reading along, and the questions of others for everybody with the key.
        settings.timeout_read, settings.timeout_write, settings.n_threads_http = _LISTENING, _SENDING, _CLIENTS
        settings.cors_origins, settings.endpoint_slots = "", False
        try:
            self._server: Any = xllamacpp.Server(settings)
        except RuntimeError:
            self._held.close()
            raise RunError(
                f"llama.cpp cannot serve {file}.",
                "It says why with --log. It may be a model of a kind that it does not know: convert it again.",
            ) from None
        try:
            self._address = self._open_gate(serving, str(self._server.listening_address))
            self._write_one_token(serving.api_key)
        except BaseException:
            self._held.close()
            raise

    @property
    def address(self) -> str:
        return self._address

    def _place_inside(self) -> str:
        """Where llama.cpp listens behind the gate: a socket in a folder of ours, or a port where there is no such."""
        if os.name == "nt":
            return "127.0.0.1"
        folder = self._held.enter_context(tempfile.TemporaryDirectory(prefix="phinetune-", ignore_cleanup_errors=True))
        path = str(Path(folder, "llama.sock"))
        return path if len(path) <= _LONGEST_SOCKET else "127.0.0.1"

    def _open_gate(self, serving: Serving, inside: str) -> str:
        kind, _, place = inside.partition("://")
        host, _, port = place.rpartition(":")
        gate = Gate(serving.host, serving.port, serving.api_key or None, place if kind == "unix" else (host, int(port)))
        self._held.callback(gate.close)
        return gate.address

    def _write_one_token(self, api_key: str | None) -> None:
        """Return once the model answers. A server that is ended before its main loop has begun would never end."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        body = json.dumps({"prompt": "?", "n_predict": 1}).encode()
        request = urllib.request.Request(f"{self.address}/completion", body, headers)
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            answer.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.close()
        self._server = None  # its destructor ends the server and joins its threads


def _answer_as_asked(settings: Any, template: PromptTemplate, serving: Serving) -> None:
    """What holds where a request does not say: the sampling, the length and the end of an answer of `ask`."""
    sampling = settings.sampling
    sampling.temp, sampling.top_p = serving.temperature, serving.top_p
    sampling.top_k, sampling.min_p, sampling.penalty_repeat = 0, 0.0, 1.0  # off
    sampling.samplers = _SAMPLERS
    settings.n_predict, settings.antiprompt = serving.max_new_tokens, stops(template)


def stops(template: PromptTemplate) -> list[str]:
    """The texts that end an answer, with the blank lines before them: they would stand at its end."""
    return [f"{blank}{stop}" for stop in template.stop_strings() for blank in ("", "\n", "\n\n")]


def _adapter(xllamacpp: Any, file: Path) -> Any:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = str(file), 1.0
    return adapter


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _fits_a_header(key: str) -> bool:
    return key.isascii() and key.isprintable() and key == key.strip()


def _refuse_taken_port(serving: Serving) -> None:
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    own = "Give --host an address of this machine, or leave it out to serve this machine alone."
    try:
        socket.getaddrinfo(serving.host, serving.port, family)
    except (OSError, UnicodeError):
        raise RunError(f"The host {serving.host} is not known.", own) from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serving.host, serving.port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise RunError(f"{serving.host} is no address of this machine.", own) from None
            raise RunError(
                f"Port {serving.port} of {serving.host} cannot be used: {error.strerror}.",
                "Choose another with --port.",
            ) from None
