"""What goes beside a .gguf file: an Ollama Modelfile and a page with the commands that run it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_GO_TEMPLATE = "{{ .Prompt }}"


@dataclass(frozen=True)
class Use:
    """How the model wants to be asked. `prompt` holds {question}; `stops` end an answer.

    `adapter` is the file of an adapter alone, which stands on the base model in `file`.
    """

    file: str
    prompt: str
    stops: tuple[str, ...]
    temperature: float
    top_p: float
    max_new_tokens: int
    context: int
    adapter: str | None = None


def modelfile(use: Use) -> str:
    """The text of an Ollama Modelfile: template, stop strings and sampling as `ask` has them.

    Ollama's own top_k, min_p and repeat_penalty would change answers; 0, 0 and 1 switch them off.
    Ollama reads what stands between triple quotes as it is, without escapes, and what stands between double braces in
    a template as its own fields.
    """
    template = _GO_TEMPLATE.join(_as_go(part) for part in use.prompt.split("{question}"))
    # Three quotation marks would end what is quoted, and the rest be read as commands of the file.
    stops = "".join(f'PARAMETER stop """{stop}"""\n' for stop in use.stops if '"' not in stop)
    adapter = f"ADAPTER ./{use.adapter}\n" if use.adapter else ""
    return (
        f"FROM ./{use.file}\n"
        f"{adapter}"
        f'TEMPLATE """{template}"""\n'
        f"{stops}"
        f"PARAMETER temperature {use.temperature:g}\n"
        f"PARAMETER top_p {use.top_p:g}\n"
        f"PARAMETER top_k 0\n"
        f"PARAMETER min_p 0\n"
        f"PARAMETER repeat_penalty 1\n"
        f"PARAMETER num_predict {use.max_new_tokens}\n"
        f"PARAMETER num_ctx {use.context}\n"
    )


def _as_go(text: str) -> str:
    """The text within a template of Go between triple quotes: neither a field, nor the end of it, nor anything else."""
    return re.sub(r'\{\{|"', lambda sign: '{{ "{{" }}' if sign[0] == "{{" else '{{ `"` }}', text)


def how_to(use: Use, name: str) -> str:
    """The commands for llama.cpp, Ollama and LM Studio."""
    # llama-completion takes the prompt as it is; -e turns \\n into line breaks. The shell must change nothing in it.
    plain = _on_one_line(use.prompt.replace("{question}", "YOUR QUESTION"))
    prompt, file = shlex.quote(plain), shlex.quote(use.file)
    lora = f" --lora {shlex.quote(use.adapter)}" if use.adapter else ""
    stops = ", ".join(map(_on_one_line, use.stops)) or "(none)"
    beside = f"{use.file} is the base model: the name of your own .gguf file of it belongs there.\n\n" if lora else ""
    studio = (
        "    takes no adapter apart: write the whole model with `phinetune gguf`\n"
        if lora
        else (
            f"    lms import {file}\n"
            f"    and set the prompt format of the model to:   {plain}\n"
            f"    with the stop strings:   {stops}\n"
            f"    and the sampling:   temperature {use.temperature:g}, top P {use.top_p:g}, top K 0, min P 0, "
            f"repeat penalty 1, at most {use.max_new_tokens} tokens\n"
            f"    \\n stands for a line break\n"
        )
    )
    return (
        f"{beside}"
        f"llama.cpp\n"
        f"    llama-completion -m {file}{lora} -no-cnv -e -p {prompt} "
        f"--temp {use.temperature:g} --top-p {use.top_p:g} --top-k 0 --min-p 0 --repeat-penalty 1 "
        f"-n {use.max_new_tokens}\n"
        f"    writes up to end-of-text; an answer ends before any of:   {stops}\n\n"
        f"Ollama\n"
        f"    ollama create {name} -f {shlex.quote(f'{use.adapter or use.file}.Modelfile')}\n"
        f'    ollama run {name} "YOUR QUESTION"\n\n'
        f"LM Studio\n"
        f"{studio}"
    )


def _on_one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
