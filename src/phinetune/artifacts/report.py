"""A run folder -> one HTML page that explains the run to the person whose sheet it was.

    training_metrics.json  training_config.json  data_findings.json  comparison.json  the pictures
      ─►  training_visuals/report.html

One file: pictures and style are inside, nothing is fetched, no script runs. It prints, follows the reader's light or
dark screen, and fits a phone. Whatever comes from the sheet or from a model is escaped: text, never markup.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from phinetune.artifacts.comparison import read_comparison
from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.artifacts.score_table import is_too_few, score_table
from phinetune.errors import RunError
from phinetune.run_folder import RunFolder, write_text
from phinetune.settings import Settings

_EXAMPLES = 4  # of the worst and of the best answers
_MOST_FINDINGS = 30
_FIRST_ROWS = 8  # of a finding
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --quiet: #667085; --line: #e3e6ec; --paper: #ffffff; --card: #f6f7f9;
        --good: #00795a; --note: #0072b2; --warning: #b54708; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ee; --quiet: #9aa3b2; --line: #303643; --paper: #14171d; --card: #1c2028;
          --good: #4cc9a4; --note: #6cb8ee; --warning: #f0a35e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 60rem; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; }
p { margin: .5rem 0; } .quiet { color: var(--quiet); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0; }
.figures div { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; }
.figures b { display: block; font-size: 1.45rem; line-height: 1.3; }
.said { border-left: .25rem solid var(--note); padding: .1rem 0 .1rem .9rem; margin: .8rem 0; }
.said.good { border-color: var(--good); } .said.warning { border-color: var(--warning); }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: .6rem; margin: .8rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .45rem .8rem .45rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; } td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.value { overflow-wrap: anywhere; width: 30%; }
pre, code { font: .92em ui-monospace, "SF Mono", Consolas, monospace; }
pre { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; overflow-x: auto; }
details { margin: .3rem 0; } summary { cursor: pointer; }
.answer { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 6rem; max-height: 15rem; overflow-y: auto; }
@media (max-width: 40rem) {
  .wide img { min-width: 40rem; }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  th, td { display: block; border: 0; padding: .1rem 0; } td.number { white-space: normal; }
  table:has([data-head]) th[scope="col"], td:empty { display: none; }
  [data-head]::before { content: attr(data-head); display: block; color: var(--quiet); font-size: .85rem; } }
@media print { body { max-width: none; padding: 0; } .answer { max-height: none; } h2 { break-after: avoid; }
  img, tr, .said { break-inside: avoid; } details::details-content { content-visibility: visible; height: auto; } }
"""


def write_report(folder: RunFolder, diagnosis: Sequence[Diagnosis]) -> Path:
    """Write the page of a run and return its place.

    Raises RunError when the run has no figures yet, one of its files is damaged, or the page cannot be written.
    """
    figures, config = _read(folder.metrics_json), _read(folder.config_json)
    findings = _read(folder.findings_json) if folder.findings_json.is_file() else None
    comparison = read_comparison(folder)
    title = f"{config['settings']['model']} on {config['data_file']['name']}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="quiet">{escape(_story(figures, config))}</p>',
        _headline(figures, comparison),
        _section("Did it work?", _diagnosis(diagnosis)),
        _section("How the loss fell", _pictures(folder)),
        _section("Before and after", _comparison(folder, comparison)),
        _section("Your sheet", _findings(findings)),
        _section("What next", _next(folder, figures)),
        _section("Every setting", _settings(config["settings"])),
        _section("To do it again", _versions(config)),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + "\n</body>\n</html>\n"
    )
    write_text(folder.report_html, page)
    return folder.report_html


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing, so there is nothing to report yet.", "Train first.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}.", "Train again; the model itself is not touched.") from None


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}" if body else ""


def _story(figures: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    minutes = figures["seconds"] / 60
    took = f"{figures['seconds']:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"
    return (
        f"Trained for {figures['epochs']:g} epochs, {figures['steps']} steps, on {figures['train_pairs']} pairs, with "
        f"{figures['validation_pairs']} held out. It took {took} on {config['device']} in {config['dtype']}."
    )


def _headline(figures: Mapping[str, Any], comparison: Mapping[str, Any] | None) -> str:
    boxes = []
    after = figures.get("kept_eval_loss", figures["best_eval_loss"])  # a run of an earlier version kept the best
    if after is not None:
        before = figures["first_eval_loss"]
        shown = f"{after:.2f}" if before is None else f"{before:.2f} → {after:.2f}"
        boxes.append((shown, "loss on held-out answers"))
    if comparison is not None:
        boxes += _compared(comparison)
    elif figures.get("endings_asked"):
        boxes.append((f"{figures['endings_known']} of {figures['endings_asked']}", "held-out answers it would end"))
    if figures.get("own_asked"):
        boxes.append((f"{figures['own_right_kept']} of {figures['own_asked']}", "training answers given word for word"))
    if figures["real_tokens_per_s"] is not None:
        boxes.append((f"{figures['real_tokens_per_s']:.0f}", "tokens a second"))
    if figures["peak_memory_gb"] is not None:
        boxes.append((f"{figures['peak_memory_gb']:.1f} GB", "memory at the peak"))
    inner = "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for value, name in boxes)
    return f'<div class="figures">{inner}</div>' if boxes else ""


def _compared(comparison: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The boxes of a comparison. Percents of a handful of questions sound surer than they are: they are counted."""
    scores, asked = comparison["scores"], len(comparison["pairs"])
    few = is_too_few(scores["f1"])
    # Hardly any answer has a whole sentence word for word; a comparison of an earlier version does not say.
    if comparison.get("asks_for_sentences"):
        before, after = (f"{scores['f1'][side]['mean']:.2f}" for side in ("base", "tuned"))
        first = (f"{before} → {after}", f"word overlap with {asked} of your answers" + ", too few to tell" * few)
    else:
        right = scores["right"]
        count, (before, after) = right.get("count", asked), (right[side]["mean"] for side in ("base", "tuned"))
        if is_too_few(right):
            counted = f"{before * count:.0f} → {after * count:.0f} of {count}"
            first = (counted, "answers right, too few to tell")
        else:
            first = (f"{before:.0%} → {after:.0%}", f"of {count} answers right")
    stopped = comparison["tuned"]["stopped_by_itself"]
    return [first, (f"{stopped * asked:.0f} of {asked}" if few else f"{stopped:.0%}", "stop by themselves")]


def _diagnosis(diagnosis: Sequence[Diagnosis]) -> str:
    return "\n".join(
        f'<div class="said {escape(each.severity)}"><p>{escape(each.sentence)}</p>'
        + (f'<p class="quiet">{escape(each.advice)}</p>' if each.advice else "")
        + "</div>"
        for each in diagnosis
    )


def _pictures(folder: RunFolder) -> str:
    described = (
        (folder.comparison_png, "Training and held-out loss over the steps of the run"),
        (folder.curves_png, "Training loss, held-out loss and learning rate, one panel each"),
    )
    return "\n".join(_image(path, words) for path, words in described if path.is_file())


def _image(path: Path, words: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<div class="wide"><img src="data:image/png;base64,{data}" alt="{escape(words)}"></div>'


def _comparison(folder: RunFolder, comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return (
            "<p>The base model and the tuned one have not been asked side by side yet. Do it with "
            "<code>phinetune compare</code>; this page then shows the answers of both.</p>"
        )
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in comparison["verdict"])
    picture = _image(
        folder.answers_png, "Scores of both models, and the loss of every answer; the table below has the figures"
    )
    pairs = comparison["pairs"]
    worst, best = pairs[:_EXAMPLES], pairs[_EXAMPLES:][-_EXAMPLES:]
    parts = [said, picture, _scores(comparison), "<h3>Furthest from what you expect</h3>", _examples(worst)]
    if best:
        parts += ["<h3>Closest</h3>", _examples(reversed(best))]
    return "\n".join(parts)


def _scores(comparison: Mapping[str, Any]) -> str:
    table = score_table(comparison["scores"], comparison["judge"])
    heads = ["Score", "Base model", "Tuned model", "Difference"]
    if table.has_intervals:
        heads = [*heads[:-1], "Difference (95 % interval)", "By chance"]
    rows = ""
    for row in table.rows:
        cells = zip(heads[1:], (row.base, row.tuned, row.difference, row.by_chance), strict=False)
        rows += f'<tr><th scope="row">{escape(row.name)}</th>' + "".join(
            f'<td class="number" data-head="{head}">{escape(cell)}</td>' for head, cell in cells
        )
        rows += "</tr>"
    note = f'<p class="quiet">{escape(table.note)}</p>' if table.note is not None else ""
    return _table(heads, rows) + note


def _examples(pairs: Iterable[Mapping[str, Any]]) -> str:
    heads = ("Question", "Expected", "Base model", "Tuned model", "F1")
    rows = []
    for pair in pairs:
        texts = (pair["question"], pair["expected"], pair["base"]["answer"], pair["tuned"]["answer"])
        cells = [f'<div class="answer">{escape(text)}</div>' for text in texts] + [f"{pair['tuned']['f1']:.2f}"]
        # On a phone the cells stand one below the other, each with its head before it.
        rows.append("".join(f'<td data-head="{head}">{cell}</td>' for head, cell in zip(heads, cells, strict=True)))
    return _table(heads, "".join(f"<tr>{row}</tr>" for row in rows))


def _findings(findings: Mapping[str, Any] | None) -> str:
    if findings is None:
        return ""
    parts = [
        f"<p>{findings['pairs']} pairs from {escape(str(findings['file']))}: questions in "
        f"<b>{escape(str(findings['question_column']))}</b>, answers in "
        f"<b>{escape(str(findings['answer_column']))}</b>.</p>"
    ]
    parts += [
        f'<div class="said warning"><p>{escape(warning["message"])}</p>{_rows(warning)}</div>'
        for warning in findings["warnings"]
    ]
    if skipped := findings["skipped"]:
        rows = "".join(
            f'<tr><td class="number">{escape(_place(each.get("sheet"), str(each["row"])))}</td>'
            f"<td>{escape(each['reason'])}</td></tr>"
            for each in skipped[:_MOST_FINDINGS]
        )
        more = f"<p>… and {len(skipped) - _MOST_FINDINGS} more.</p>" if len(skipped) > _MOST_FINDINGS else ""
        listed = _table(("Row", "Why"), rows) + more
        parts.append(f"<details><summary>{len(skipped)} rows were not used</summary>{listed}</details>")
    elif not findings["warnings"]:
        parts.append('<div class="said good"><p>Nothing in it stood out.</p></div>')
    return "\n".join(parts)


def _rows(warning: Mapping[str, Any]) -> str:
    """The first rows of a finding, by sheet where there are several, and how many more."""
    rows = warning["rows"]
    if not rows:
        return ""
    sheets = warning.get("sheets") or [None] * len(rows)
    by_sheet = groupby(list(zip(sheets, rows, strict=True))[:_FIRST_ROWS], key=itemgetter(0))
    named = "; ".join(_place(sheet, ", ".join(str(row) for _, row in group)) for sheet, group in by_sheet)
    rest = len(rows) - _FIRST_ROWS
    # Of empty rows only the first are recorded; the message counts them all.
    more = "" if rest <= 0 else " …" if warning["code"] == "empty_rows" else f" and {rest:,} more"
    return f'<p class="quiet">Row{"s" * (len(rows) > 1)} {escape(named)}{more}</p>'


def _place(sheet: str | None, rows: str) -> str:
    return rows if sheet is None else f"{rows} of {sheet}"


def _next(folder: RunFolder, figures: Mapping[str, Any]) -> str:
    inside = folder.root.resolve() == Path.cwd()
    place = "." if inside else escape(shlex.quote(folder.root.resolve().name))
    where = "from the folder of this run" if inside else "from the folder above this run"
    if figures["stopped"] == "failed":
        return "<p>The run ended with an error, so there is no tuned model. Begin anew with --overwrite.</p>"
    again = "" if figures["stopped"] != "interrupted" else "<p>The run was interrupted: go on with --resume.</p>"
    commands = (
        (f'phinetune ask {place} "…"', "ask it something"),
        (f"phinetune chat {place}", "one question after the other"),
        (f"phinetune answer {place} --sheet new_questions.xlsx", "a whole list, in one more column"),
        (f"phinetune compare {place} --sheet test.xlsx", "try it on questions that it has never seen"),
        (f"phinetune gguf {place} --quantize q4_k_m", "a file for llama.cpp, Ollama and LM Studio"),
        (f"phinetune merge {place} --to merged", "a folder for plain transformers"),
        (f"phinetune serve {place}", "an interface for other programs"),
    )
    rows = "".join(f"<tr><td><code>{command}</code></td><td>{words}</td></tr>" for command, words in commands)
    return again + _table((f"In a terminal, {where}", "What for"), rows)


def _settings(values: Mapping[str, Any]) -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        for leaf, declared in inner.items() if inner else [(name, field)]:
            value = values[name][leaf] if inner else values[name]
            words = declared.json_schema_extra if isinstance(declared.json_schema_extra, dict) else {}
            changed = value != declared.default
            said = [str(words[part]) for part in ("more", "less", "when") if part in words]
            explained = "".join(f"<p>{escape(text)}</p>" for text in said)
            rows.append(
                f"<tr><td><code>{escape(f'{name}.{leaf}' if inner else name)}</code></td>"
                f'<td class="value">{"<b>" * changed}{escape(_shown(value))}{"</b>" * changed}</td>'
                f"<td><details><summary>{escape(declared.description or '')}</summary>{explained}</details></td></tr>"
            )
    return _table(("Setting", "Value", "What it does (bold values are not the default)"), "".join(rows))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value.replace("\n", "\\n")
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _versions(config: Mapping[str, Any]) -> str:
    facts = {
        "data file": f"{config['data_file']['name']} (SHA-256 {config['data_file']['sha256'][:16]}…)",
        "seed": config["seed"],
        "device": f"{config['device']}, {config['dtype']}",
        "versions": ", ".join(f"{name} {number}" for name, number in config["versions"].items())
        + f", Python {config['python']}",
    }
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td>{escape(str(value))}</td></tr>' for name, value in facts.items()
    )
    return f'<div class="wide"><table>{rows}</table></div>'


def _table(heads: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
