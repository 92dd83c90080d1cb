"""What `plan` found -> a page: the verdict in plain words and what to change; behind it memory and time by part."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from phinetune.cli.render import duration
from phinetune.cli.terminal import open_console, safe

_BAR = 16  # letters for the largest part
_PARTS = {
    "program": "Python, PyTorch, libraries",
    "weights": "the frozen base model",
    "adapter": "LoRA, in fp32",
    "gradients": "of the adapter, in fp32",
    "optimizer": "AdamW, two moments in fp32",
    "activations": "kept for the way back",
    "logits": "over the vocabulary, in pieces",
    "allocator": "held beyond what is in use",
}


def show_plan(plan: Any, *, details: bool = False) -> None:
    """Print a `Plan`: the verdict, what to change and the figures it rests on; with `details` all of them."""
    console = open_console()
    console.print(_verdict(plan))
    console.print()
    if changes := [each for each in plan.advice if each.flags]:
        console.print("To change:")
        for each in changes:
            console.print(f"  [bold]{safe(each.flags)}[/bold]  {safe(each.reason)}")
    else:
        console.print("Nothing to change: train with these settings.")
    console.print()
    console.print(_facts(plan) if details else _brief(plan))
    if not details:
        console.print("\n[dim]Memory and time by part, and the reason for every setting: --details[/dim]")
        return
    console.print()
    console.print(_memory(plan))
    if plan.memory_held:
        console.print(f"[dim]{_held(plan)}.[/dim]")
    console.print(f"[dim]How sure: {safe(plan.memory_basis)}.[/dim]")
    if plan.moment == "check":
        console.print(
            "[dim]The peak comes before the first step, when the fast way is checked against the plain one.[/dim]"
        )
    console.print()
    console.print(_advice(plan))


def _brief(plan: Any) -> Table:
    table = Table.grid(padding=(0, 2))
    counted = "" if plan.model_is_counted else ", counted as if it were a Llama"
    table.add_row("Model", f"{safe(plan.model)}, {plan.parameters:,} parameters{counted}")
    table.add_row("Device", _device(plan))
    about = "" if plan.tokens_are_exact else "about "
    table.add_row(
        "Work",
        f"{plan.train_pairs} pairs of at most {about}{plan.longest_pair_tokens:,} tokens, in {plan.steps} steps of "
        f"{plan.batch_size * plan.grad_accum}",
    )
    table.add_row("Memory", f"{_gb(plan.memory_total)} at the peak, {safe(_first_clause(plan.memory_basis))}")
    if plan.memory_held:
        table.add_row("", _held(plan))
    basis = safe(_first_clause(plan.time.basis))
    took = basis if plan.time.total is None else f"about {_about(plan.time.total)}, {basis}"
    table.add_row("Time", took)
    table.add_row("Disk", f"{_gb(plan.disk_total)} of {_gb(plan.disk_free)} free")
    return table


def _held(plan: Any) -> str:
    return (
        f"and about {_gb(plan.memory_held)} more that the run keeps until it ends, for steps recorded as graphs: on a "
        "shared card no other program gets it"
    )


def _first_clause(basis: str) -> str:
    return basis.partition(":")[0]


def _device(plan: Any) -> str:
    here = "found here" if plan.device_found else "as named"
    return f"{safe(plan.device)}, {_gb(plan.memory_of_device)} ({here}), computing in {plan.dtype}"


def _verdict(plan: Any) -> str:
    needs, has = _gb(plan.memory_total), _gb(plan.memory_of_device)
    if not plan.fits:
        short = _gb(plan.memory_total - plan.memory_to_use)
        return f"[bold red]Does not fit:[/bold red] needs about {needs} of {has}, {short} too much."
    text = f"[bold green]Fits:[/bold green] needs about {needs} of {has}."
    if plan.time.total is not None:
        text += f" About {_about(plan.time.total)}" + (", plus the download." if plan.disk["download"] else ".")
    if not plan.fits_on_disk:
        text += f" [bold red]But the disk is too full:[/bold red] {_gb(plan.disk_total)} of {_gb(plan.disk_free)} free."
    if plan.questions_too_long:
        text += " [bold red]But training refuses the sheet:[/bold red] a question leaves no room for an answer."
    return text


def _facts(plan: Any) -> Table:
    table = Table.grid(padding=(0, 2))
    counted = "" if plan.model_is_counted else ", counted as if it were a Llama"
    table.add_row(
        "Model", f"{safe(plan.model)}: {plan.parameters:,} parameters{counted}, from {safe(plan.model_source)}"
    )
    modules = [f"{safe(name)} {_millions(count)}" for name, count in plan.modules.items() if count]
    table.add_row("", f"[dim]{', '.join(modules)}[/dim]")
    table.add_row(
        "Adapter", f"{plan.adapter_parameters:,} trainable parameters on {safe(' '.join(plan.target_modules))}"
    )
    table.add_row("Device", _device(plan))
    how = "counted by the model's tokenizer" if plan.tokens_are_exact else "estimated from the letters"
    table.add_row(
        "Tokens",
        f"{plan.train_tokens_per_epoch:,} an epoch in {plan.train_pairs} pairs, longest {plan.longest_pair_tokens:,}; "
        f"{how}",
    )
    table.add_row(
        "Steps",
        f"{plan.steps}, {plan.batch_size * plan.grad_accum} pairs each; at most {plan.largest_row_tokens:,} tokens "
        f"({plan.pairs_per_row} pair{'s' * (plan.pairs_per_row > 1)}) at once"
        + (", recomputed" if plan.recompute else ""),
    )
    if plan.time.total is None:
        table.add_row("Time", plan.time.basis)
    else:
        table.add_row(
            "Time",
            f"about {_about(plan.time.total)}: {_parts_of_time(plan)}, less if it stops early; "
            f"{plan.time.tokens_per_s:,.0f} tokens/s in the steps, {safe(plan.time.basis)}",
        )
    disk = [f"{name} {_gb(size)}" for name, size in plan.disk.items() if size >= 5_000_000]
    table.add_row("Disk", f"{_gb(plan.disk_total)} of {_gb(plan.disk_free)} free ({', '.join(disk)})")
    return table


def _parts_of_time(plan: Any) -> str:
    time = plan.time
    parts = [
        (time.begin, "to begin"),
        (time.training, "for the steps"),
        (time.recording, f"to record {plan.recorded_sizes} sizes of rows"),
        (time.validation, f"for {plan.validations} validations and what is asked at the end"),
        (time.checkpoints, f"for {plan.checkpoints} checkpoints"),
    ]
    return ", ".join(f"{_about(seconds)} {what}" for seconds, what in parts if seconds >= 0.5)


def _memory(plan: Any) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_footer=True)
    table.add_column("Memory at the peak", "together")
    table.add_column("", _gb(plan.memory_total), justify="right")
    table.add_column("")
    table.add_column("", f"of {_gb(plan.memory_to_use)} that a run may fill")
    largest = max(plan.memory.values())
    for name, size in plan.memory.items():
        bar = "█" * round(_BAR * size / largest) or ("▏" if size else "")
        table.add_row(name, _gb(size), f"[cyan]{bar}[/cyan]", f"[dim]{_PARTS[name]}[/dim]")
    return table


def _advice(plan: Any) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("Advice", "", "why"):
        table.add_column(title, overflow="fold")
    for each in plan.advice:
        value = f"[bold]{safe(each.value)}[/bold]" if each.flags else safe(each.value)
        reason = safe(each.reason) + (f" [bold]{safe(each.flags)}[/bold]" if each.flags else "")
        table.add_row(safe(each.setting), value, reason)
    return table


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e9:.2f} GB"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _about(seconds: float) -> str:
    """No more exact than an estimate is: "40 s", "4 min", "2 h 30 min"."""
    if seconds < 60:
        return duration(max(1, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60 // 10 * 10:02d} min" if minutes < 600 else f"{round(minutes / 60)} h"
