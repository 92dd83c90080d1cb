"""What goes beside a .gguf file: an Ollama Modelfile and a page with the commands that run it."""

from __future__ import annotations

from dataclasses import dataclass

_GO_TEMPLATE = "{{ .Prompt }}"


@dataclass(frozen=True)
class Use:
    """How the model wants to be asked. `prompt` holds {question}; `stops` end an answer."""

    file: str
    prompt: str
    stops: tuple[str, ...]
    temperature: float
    top_p: float
    max_new_tokens: int
    context: int


def modelfile(use: Use) -> str:
    """The text of an Ollama Modelfile: template, stop strings and sampling as in training.

    Ollama reads what stands between triple quotes as it is, without escapes, and what stands between double braces in
    a template as its own fields.
    """
    template = _GO_TEMPLATE.join(part.replace("{{", '{{ "{{" }}') for part in use.prompt.split("{question}"))
    stops = "".join(f'PARAMETER stop """{stop}"""\n' for stop in use.stops)
    return (
        f"FROM ./{use.file}\n"
        f'TEMPLATE """{template}"""\n'
        f"{stops}"
        f"PARAMETER temperature {use.temperature:g}\n"
        f"PARAMETER top_p {use.top_p:g}\n"
        f"PARAMETER num_predict {use.max_new_tokens}\n"
        f"PARAMETER num_ctx {use.context}\n"
    )


def how_to(use: Use, name: str) -> str:
    """The commands for llama.cpp, Ollama and LM Studio."""
    prompt = use.prompt.replace("{question}", "YOUR QUESTION").replace("\n", "\\n")
    # llama-completion takes the prompt as it is; -e turns \n into line breaks.
    return (
        f"llama.cpp\n"
        f'    llama-completion -m {use.file} -no-cnv -e -p "{prompt}" '
        f"--temp {use.temperature:g} --top-p {use.top_p:g} -n {use.max_new_tokens}\n\n"
        f"Ollama\n"
        f"    ollama create {name} -f {use.file}.Modelfile\n"
        f'    ollama run {name} "YOUR QUESTION"\n\n'
        f"LM Studio\n"
        f"    lms import {use.file}\n"
        f"    and set the prompt format of the model to:   {prompt}\n"
        f"    with the stop strings:   {', '.join(use.stops) or '(none)'}\n"
    )
