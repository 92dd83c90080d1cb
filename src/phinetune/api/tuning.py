"""The run of `train()`: a sheet, settings and a folder go in, a tuned model comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel

from phinetune.api.begin import claimed, go_on_from, start_mirror
from phinetune.api.diagnose import diagnosis_of
from phinetune.api.introduce import introduce, read_sheet, settle_rate, warnings_before
from phinetune.api.memory import memory_told, no_memory_to_begin, no_memory_to_go_on, no_memory_to_read, safe_told
from phinetune.api.outputs import Dispensable, run_config, run_record, write_model, write_visuals
from phinetune.api.report import report_on
from phinetune.api.run import Run
from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.artifacts.metrics import MetricsLog, Summary, summary
from phinetune.errors import TrainingError
from phinetune.events import Finished, ModelLoading, RolledBack, Saved, StopReason, Warned
from phinetune.model import lora
from phinetune.model.device import (
    keep_freed_memory,
    peak_memory_gb,
    pick_device,
    pick_dtype,
)
from phinetune.model.identity import identify
from phinetune.model.load import find, load_base
from phinetune.model.memory import RowPlan, plan_rows
from phinetune.run_folder import RunFolder, begin_anew, write_json
from phinetune.settings import TrainSettings
from phinetune.sheet.kept import keep_pairs
from phinetune.sheet.pairs import PairTable
from phinetune.tokens.encode import Encoder
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit

if TYPE_CHECKING:
    from phinetune.api.train import Wanted


def tune(wanted: Wanted) -> Run:
    """See `train`. Raises as that does."""
    folder, overwrite = wanted.folder, wanted.overwrite
    mine = None if overwrite else Checkpoints(folder, {}, wanted.settings.train.keep_checkpoints)
    with (
        claimed(folder, wanted.mirror, resume=wanted.resume, overwrite=overwrite, on_event=wanted.on_event),
        memory_told(lambda: no_memory_to_go_on(wanted.settings, mine)),
    ):
        return _tune(wanted)


def _tune(wanted: Wanted) -> Run:
    """The run, once its folder is ours."""
    folder, settings, on_event = wanted.folder, wanted.settings, wanted.on_event
    device = pick_device(settings.train.device)
    dtype = pick_dtype(device, settings.train.dtype)

    if device.type == "cpu":
        keep_freed_memory()
    with memory_told(lambda: no_memory_to_read(wanted.sheet)):
        pairs, parts = read_sheet(wanted.sheet, settings, on_event)
    base_path = find(settings.model)
    config_record = run_config(settings, pairs, identify(base_path), device, dtype)
    record = run_record(config_record, pairs, parts, wanted.template)
    checkpoints = Checkpoints(folder, record, settings.train.keep_checkpoints)
    start_from, mirror_anew = None, True
    if wanted.resume:
        start_from, mirror_anew = go_on_from(checkpoints, wanted.mirror, wanted.overwrite, on_event)
    begun = checkpoints if start_from is not None else None
    with memory_told(lambda: no_memory_to_begin(settings, dtype, device, begun)):
        on_event(ModelLoading(settings.model))
        base = load_base(settings.model, dtype, device, base_path)
        encoder = Encoder(base.tokenizer, wanted.template, settings.data.max_length)
        corpus = Corpus(encoder.examples(parts.train), encoder.examples(parts.validation))
        model = lora.attach(base.model, settings.lora, base.name_for_peft, settings.train.seed)
        rows = _plan_rows(model, corpus, settings.train, device)
    asked = settings
    settings, why_this_rate = settle_rate(asked, base.model.config, pairs.pairs)
    config_record["settings"]["train"]["learning_rate"] = settings.train.learning_rate
    on_event(introduce(model, asked, why_this_rate, rows.recompute, device, dtype))
    for warning in warnings_before(corpus, settings, device, dtype):
        on_event(warning)

    if start_from is None and begin_anew(folder):
        on_event(Warned("model_put_aside", f"The earlier model is in {folder.model_before} until this run is done."))
    keep_pairs(folder.pairs, parts)
    log, dispensable = MetricsLog(folder), Dispensable(on_event)
    log.replay(checkpoints.history(start_from) if start_from is not None else ())

    def figures_so_far(stopped: StopReason, seconds: float, kept_step: int | None = None) -> Summary:
        trainable, total = lora.count_parameters(model)
        return summary(
            log.rows,
            trainable_parameters=trainable,
            total_parameters=total,
            train_pairs=len(corpus.train),
            validation_pairs=len(corpus.validation),
            answers_cut=sum(example.was_cut for example in (*corpus.train, *corpus.validation)),
            rollbacks=log.rollbacks,
            kept_step=kept_step,
            recalled=log.recalled,
            endings=log.endings,
            stopped=stopped,
            seconds=seconds,
            peak_memory_gb=peak_memory_gb(device),
        )

    finished: Finished | None = None
    with start_mirror(folder, wanted.mirror, anew=mirror_anew) as mirror:
        if start_from is not None:
            mirror.submit(start_from)
        try:
            with safe_told(checkpoints), memory_told(lambda: no_memory_to_go_on(settings)):
                for event in fit(
                    model,
                    corpus,
                    settings.train,
                    replace(checkpoints, in_use=mirror.in_use),
                    pairs_per_row=rows.pairs_per_row,
                    resume_from=start_from,
                    stop_requested=wanted.stop_requested,
                ):
                    with dispensable("the table of figures"):
                        log.consume(event)
                    if isinstance(event, Saved):
                        mirror.submit(event.step)
                    elif isinstance(event, RolledBack):
                        mirror.submit(event.to_step)
                    for each in (event, *mirror.news()):
                        on_event(each)
                    finished = event if isinstance(event, Finished) else None
        except TrainingError:
            # What led to it can be looked at; trouble with that must not hide the reason.
            with dispensable("the figures of the run"):
                seconds = sum(row.seconds for row in log.rows)
                _leave_figures(folder, log, figures_so_far("failed", seconds), config_record, pairs, dispensable)
            raise
        assert finished is not None  # fit() ends with it
        figures = figures_so_far(finished.stopped, finished.seconds, finished.kept_step)
        diagnosis: list[Diagnosis] = []
        with dispensable("pictures and figures"):
            log.write()
            write_visuals(folder, figures, config_record, dispensable)
            diagnosis = diagnosis_of(folder)
        if with_model := finished.stopped != "interrupted":
            write_model(
                checkpoints,
                model,
                base,
                settings,
                wanted.template,
                pairs,
                figures,
                config_record,
                diagnosis,
                dispensable,
            )
        with dispensable("the report"):
            for stale in (folder.answers_json, folder.answers_xlsx, folder.answers_png):  # of an earlier model
                stale.unlink(missing_ok=True)
            write_json(folder.findings_json, pairs.to_json())
            report_on(folder)
        mirror.finish(finished.step, with_model=with_model, on_event=on_event)
    return Run(
        folder=folder,
        steps=finished.step,
        epochs=finished.epochs,
        train_loss=figures["final_train_loss"],
        eval_loss=figures["kept_eval_loss"],
        first_eval_loss=figures["first_eval_loss"],
        kept_step=finished.kept_step,
        best_step=finished.best_step,
        stopped=finished.stopped,
        seconds=finished.seconds,
        real_tokens_per_s=figures["real_tokens_per_s"],
        peak_memory_gb=figures["peak_memory_gb"],
        trainable_parameters=figures["trainable_parameters"],
        skipped_steps=figures["skipped_steps"],
        rollbacks=figures["rollbacks"],
        own_asked=figures["own_asked"],
        own_right_kept=figures["own_right_kept"],
        own_right_last=figures["own_right_last"],
        endings_asked=figures["endings_asked"],
        endings_known=figures["endings_known"],
        diagnosis=tuple(diagnosis),
    )


def _leave_figures(
    folder: RunFolder,
    log: MetricsLog,
    figures: Summary,
    config_record: dict[str, Any],
    pairs: PairTable,
    dispensable: Dispensable,
) -> None:
    """The curves of a run that failed, and the page with their diagnosis."""
    if any(row.tokens for row in log.rows):
        log.write()
        write_visuals(folder, figures, config_record, dispensable)
        write_json(folder.findings_json, pairs.to_json())
        report_on(folder)


def _plan_rows(model: PeftModel, corpus: Corpus, settings: TrainSettings, device: torch.device) -> RowPlan:
    """Decide what goes through the model at once, and turn on recomputation when asked for or needed."""
    lengths = [len(example.ids) for example in (*corpus.train, *corpus.validation)]
    plan = plan_rows(model.get_base_model(), lengths, settings.batch_size, settings.examples_per_step, device)
    if settings.gradient_checkpointing != "auto":
        plan = RowPlan(settings.batch_size, recompute=settings.gradient_checkpointing)
    if plan.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return plan
