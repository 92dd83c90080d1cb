"""phinetune gguf"""

from __future__ import annotations

from pathlib import Path

import typer

import phinetune
from phinetune.cli.options import ALLOW_BIN, AS_JSON
from phinetune.cli.render import Bar, print_json, print_line


def command(
    run: str = typer.Argument(help="Folder that `phinetune train` wrote to, such as . for this one."),
    to: Path | None = typer.Option(
        None, "--to", help="The .gguf file to write. [dim]\\[default: model.KIND.gguf][/dim]"
    ),
    quantize: str = typer.Option(
        "f16",
        help="How to pack: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, q4_0, …; an unknown one lists all.",
    ),
    several: str | None = typer.Option(None, "--all", help="Several packings at once: q8_0,q4_k_m"),
    adapter: bool = typer.Option(
        False,
        "--adapter",
        help="The adapter alone, a few MB, in f16 or f32, for --lora beside the .gguf base model you have.",
    ),
    model: str | None = typer.Option(None, help="Where the base model is now, if it has moved since training."),
    check: bool = typer.Option(
        True,
        "--check/--no-check",
        help="Read each file back and compare its loss with the adapter's, one weight in memory at a time.",
    ),
    allow_bin: bool = ALLOW_BIN,
    as_json: bool = AS_JSON,
) -> None:
    """Write the tuned model as a .gguf file for llama.cpp, Ollama and LM Studio.

    Example: phinetune gguf . --to my-model.gguf --quantize q4_k_m
    """
    kinds = quantize if several is None else several
    if adapter:
        path = phinetune.export_gguf_adapter(run, to or Path("lora.gguf"), kind=kinds, model=model, allow_bin=allow_bin)
        size = path.stat().st_size / 1e6
        if as_json:
            print_json({"path": str(path), "megabytes": size})
            return
        print_line(f"Wrote the adapter alone to {path} ({size:.1f} MB).")
        print_line(f"How to run it beside the base model's .gguf in llama.cpp and Ollama: {path}.txt")
        return
    with Bar(silent=as_json) as bar:
        written = phinetune.export_gguf(
            run, to, quantize=kinds, model=model, allow_bin=allow_bin, check=check, on_progress=bar.show
        )
    if as_json:
        print_json([vars(each) | {"path": str(each.path)} for each in written])
        return
    for each in written:
        print_line(f"{each.path} ({each.kind}, {each.megabytes:.0f} MB){_compared(each)}.")
    print_line(f"How to run it in llama.cpp, Ollama and LM Studio: {written[0].path}.txt")


def _compared(exported: phinetune.Exported) -> str:
    if exported.loss is None:
        return ", not compared"
    return f": loss {exported.loss:.3f} on {exported.measured_on}, {exported.adapter_loss:.3f} with the adapter"
