"""The command line. `main()` picks the verb, and is the one place where errors are caught and shown."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence

import typer

from phinetune.cli.output import OutputError, reason, watched_output
from phinetune.errors import PhinetuneError

VERBS = {
    "train": "Fine-tune a model on a spreadsheet of questions and answers.",
    "ask": "Ask a tuned model a question.",
    "chat": "Ask a tuned model one question after the other.",
    "answer": "Answer every question of a sheet.",
    "serve": "Serve a tuned model over HTTP, as OpenAI's clients expect it.",
    "merge": "Write a tuned model as an ordinary folder without an adapter.",
    "gguf": "Write a tuned model as a .gguf file for llama.cpp, Ollama and LM Studio.",
    "verify": "See whether all forms of a tuned model say the same.",
    "compare": "See how much better the tuned model answers than its base.",
    "report": "Make the page that explains a run, with all its pictures and figures.",
    "check": "Look at a spreadsheet as training would, without loading a model.",
    "plan": "See whether a run fits and how long it takes, before anything is downloaded.",
    "explain": "Say what a setting does, and when to touch it.",
    "pack": "Pack a tuned model and its pictures into one zip file.",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 a person can mend it, 2 unknown option, 130 interrupted."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries say to programmers; ours are events and errors
    with watched_output():
        try:
            try:
                _main(argv, as_json="--json" in argv)
            finally:
                sys.stdout.flush()  # what fails now would otherwise fail in the interpreter's last moments
        except OutputError as error:
            if why := reason(error):
                print(f"Error: The output could not be written: {why}.", file=sys.stderr)
            sys.exit(1)


def _main(argv: list[str], *, as_json: bool) -> None:
    try:
        sys.exit(_app(argv)(argv, prog_name="phinetune", standalone_mode=not as_json))
    except PhinetuneError as error:
        _show(error, as_json=as_json)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not (as_json and hasattr(error, "format_message")):  # what typer says of wrong options
            raise
        _show(PhinetuneError(error.format_message(), "--help after the command lists its options."), as_json=True)
        sys.exit(2)


def _app(argv: Sequence[str]) -> typer.Typer:
    """All verbs by name and summary; only the one that was asked for is imported."""
    app = typer.Typer(
        help="Turn a spreadsheet of questions and answers into a fine-tuned language model.",
        no_args_is_help=True,
        invoke_without_command=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_options)
    wanted = next((word for word in argv if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        command = importlib.import_module(f"phinetune.cli.{verb}").command if verb == wanted else _unpicked
        app.command(verb, help=command.__doc__ or summary, short_help=summary)(command)
    return app


def _options(version: bool = typer.Option(False, "--version", is_eager=True, help="Show the version.")) -> None:
    if version:
        from importlib.metadata import version as installed_version

        print(f"phinetune {installed_version('phinetune')}")
        raise typer.Exit


def _unpicked() -> None:
    """A verb that is only listed."""


_unpicked.__doc__ = None


def _show(error: PhinetuneError, *, as_json: bool) -> None:
    from phinetune.cli.render import print_json_line, show_error

    if as_json:
        print_json_line({"error": error.message, "hint": error.hint})
    else:
        show_error(error)
