"""phinetune serve"""

from __future__ import annotations

import signal
import threading

import typer

import phinetune
from phinetune.cli.options import ALLOW_BIN
from phinetune.cli.render import Bar, print_json_line, print_line


def command(
    model: str = typer.Argument(help="A run, a merged folder or a .gguf file."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; this machine alone when left out."),
    port: int = typer.Option(8080, min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    api_key: str | None = typer.Option(None, envvar="PHINETUNE_API_KEY", help="Key that every request has to carry."),
    at_once: int = typer.Option(4, min=1, max=64, help="Questions that are answered side by side."),
    base_model: str | None = typer.Option(None, "--model", help="Where the base model is now, if it has moved."),
    log: bool = typer.Option(False, "--log", help="Say of every answer how many tokens it had and how long it took."),
    allow_bin: bool = ALLOW_BIN,
    as_json: bool = typer.Option(False, "--json", help="Print the address as a JSON object, for scripts."),
) -> None:
    """Serve a tuned model over HTTP, as OpenAI's clients expect it, until Ctrl-C.

    Example: phinetune serve . --port 8080
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    if not as_json:
        print_line(f"Loading {model} …")
    with Bar(silent=as_json) as bar:
        server = phinetune.serve(
            model,
            host=host,
            port=port,
            api_key=api_key,
            at_once=at_once,
            model=base_model,
            allow_bin=allow_bin,
            log=log,
            on_progress=bar.show,
        )
    with server:
        if as_json:
            print_json_line({"address": server.address, "chat": f"{server.address}/v1/chat/completions"})
        else:
            print_line(f"Serving on {server.address}/v1 (Ctrl-C ends it). Try:")
            key = ' -H "Authorization: Bearer $PHINETUNE_API_KEY"' if api_key else ""
            asked = '{"messages": [{"role": "user", "content": "What is machine learning?"}]}'
            print_line(
                f"  curl {server.address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{asked}'"
            )
        ended.wait()
