"""`plan()`: will it fit, and how long will it take, before anything is downloaded or loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from phinetune import settings as settings_module
from phinetune.errors import ModelError
from phinetune.model.find_shape import FoundModel, find_shape
from phinetune.model.gguf_file import open_gguf
from phinetune.model.gguf_tokenizer import read_tokenizer
from phinetune.model.hardware import Device, pick
from phinetune.model.shape import adapter_shape
from phinetune.settings import DataSettings, Settings
from phinetune.sheet.findings import Pair
from phinetune.sheet.pairs import find_pairs
from phinetune.sheet.split import split
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate, unescape
from phinetune.training.advice import Advice, advise, advise_length
from phinetune.training.planned_time import Time, time_of
from phinetune.training.planning import (
    PairTokens,
    Scene,
    Workload,
    count_steps,
    disk_of,
    held_by_graphs,
    memory_of,
    rows_of,
)

# Bytes of UTF-8 text a token where no tokenizer is at hand: those of Phi-2 and SmolLM2 give 3.5 to 4.5 on English
# sheets and 3.0 to 3.2 on Python code (seven sheets). Fewer bytes are more tokens: the careful side.
_BYTES_A_TOKEN = 3.6
_NO_LIMIT = 131_072


@dataclass(frozen=True)
class Plan:
    """What a run would need. Memory, disk and download in bytes, times in seconds.

    `memory` is by part at the peak, which comes in `moment`; `memory_held` is what recorded graphs keep beside it on a
    GPU. The seconds of `time` and its `tokens_per_s` are None where no rate is known. `largest_row_tokens`: what goes
    through the model at once, `pairs_per_row` pairs.
    """

    model: str
    model_source: str
    model_is_counted: bool
    parameters: int
    modules: dict[str, int]
    adapter_parameters: int
    target_modules: tuple[str, ...]
    device: str
    device_found: bool
    dtype: str
    tokens_are_exact: bool
    train_pairs: int
    validation_pairs: int
    train_tokens_per_epoch: int
    answer_tokens_per_epoch: int
    longest_pair_tokens: int
    answers_cut: int
    questions_too_long: int
    max_length: int
    batch_size: int
    grad_accum: int
    pairs_per_row: int
    recompute: bool
    largest_row_tokens: int
    steps: int
    steps_per_epoch: int
    validations: int
    checkpoints: int
    recorded_sizes: int
    moment: str
    memory: dict[str, int]
    memory_total: int
    memory_held: int
    memory_basis: str
    memory_of_device: int
    memory_to_use: int
    fits: bool
    time: Time
    disk: dict[str, int]
    disk_total: int
    disk_free: int
    advice: tuple[Advice, ...]

    @property
    def fits_on_disk(self) -> bool:
        return self.disk_total <= self.disk_free

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"fits_on_disk": self.fits_on_disk, "seconds": self.time.total}


def plan(
    sheet: str | Path,
    *,
    out: str | Path = ".",
    device: str = "auto",
    preset: str | None = None,
    config: str | Path | None = None,
    assignments: Iterable[str] = (),
    download_config: bool = False,
    measured_tokens_per_s: float | None = None,
    **options: Any,
) -> Plan:
    """Memory, steps, time and disk of the run that `train` with the same settings would be, and advice.

    `device`: auto for what training would take here, cpu, t4, a100, a100-80gb, h100 or h200. `options` are the settings
    of `train`. Nothing is fetched, unless `download_config` asks for the model's config and tokenizer.
    `measured_tokens_per_s` is the speed of real steps (see `measure_speed`) and takes the place of the table of rates.
    Raises SheetError, SettingsError or ModelError that tells what is at fault.
    """
    settings = settings_module.load(preset=preset, config=config, flags=options, assignments=assignments)
    hardware = pick(settings.train.device if device == "auto" else device)
    found = find_shape(settings.model, download_config=download_config)
    scene = Scene(
        shape=found.shape,
        adapter=adapter_shape(found.shape, settings.lora.r, settings.lora.target_modules),
        workload=_workload(sheet, settings, found),
        settings=settings.train,
        device=hardware,
        dtype=hardware.dtype if settings.train.dtype == "auto" else settings.train.dtype,
    )
    return _plan(scene, settings, found, hardware, Path(out), measured_tokens_per_s)


def _plan(
    scene: Scene, settings: Settings, found: FoundModel, hardware: Device, out: Path, speed: float | None
) -> Plan:
    work, train = scene.workload, settings.train
    steps = count_steps(scene, rows_of(scene))
    memory = memory_of(scene, steps)
    time = time_of(scene, steps, speed)
    disk = disk_of(scene, found.download_bytes)
    return Plan(
        model=settings.model,
        model_source=found.source,
        model_is_counted=scene.shape.is_counted,
        parameters=scene.shape.parameters,
        modules=scene.shape.modules(),
        adapter_parameters=scene.adapter.parameters,
        target_modules=tuple(layer.name for layer in scene.adapter.layers),
        device=hardware.name,
        device_found=hardware.found,
        dtype=scene.dtype,
        tokens_are_exact=work.is_exact,
        train_pairs=len(work.train),
        validation_pairs=len(work.validation),
        train_tokens_per_epoch=sum(pair.tokens for pair in work.train),
        answer_tokens_per_epoch=sum(pair.answer for pair in work.train),
        longest_pair_tokens=work.longest_uncut,
        answers_cut=work.cut - work.filled,
        questions_too_long=work.filled,
        max_length=settings.data.max_length,
        batch_size=train.batch_size,
        grad_accum=train.grad_accum,
        pairs_per_row=steps.plan.pairs_per_row,
        recompute=steps.plan.recompute,
        largest_row_tokens=steps.largest_row,
        steps=steps.total,
        steps_per_epoch=steps.per_epoch,
        validations=steps.validations,
        checkpoints=steps.saves,
        recorded_sizes=len(steps.graphs),
        moment=memory.moment,
        memory=memory.parts,
        memory_total=memory.total,
        memory_held=held_by_graphs(scene, steps),
        memory_basis=_memory_basis(hardware),
        memory_of_device=hardware.memory,
        memory_to_use=scene.room,
        fits=memory.total <= scene.room,
        time=time,
        disk=disk,
        disk_total=sum(disk.values()),
        disk_free=_free(out),
        advice=(*advise(scene, steps, memory, time), advise_length(scene, settings.data.max_length)),
    )


def _memory_basis(hardware: Device) -> str:
    """How far the memory can be trusted; benchmarks/plan_accuracy.py holds it against measured peaks."""
    if hardware.kind == "cpu":
        return "within 11 % of the peak of fifteen measured runs on a CPU"
    found = "three runs of Phi-2 on an H200 peaked 6 % below, 1 % below and 16 % above what they said"
    if "H200" in hardware.name:
        return f"an estimate: {found}"
    return f"an estimate: the same sums held for runs on a CPU, and {found}; on this kind of device none was measured"


def _workload(sheet: str | Path, settings: Settings, found: FoundModel) -> Workload:
    """The pairs in tokens, read and divided as training does."""
    data = settings.data
    table = find_pairs(Path(sheet), question=data.question, answer=data.answer, sheet=data.sheet, limit=data.limit)
    parts = split(table.pairs, data.validation_share, data.seed)
    template = PromptTemplate(unescape(data.template))
    tokenizer = _tokenizer(found)
    if tokenizer is None:
        whole = [[_estimate(template, pair) for pair in part] for part in (parts.train, parts.validation)]
    else:
        whole = [_count(tokenizer, template, data, part) for part in (parts.train, parts.validation)]
    everything = [pair for part in whole for pair in part]
    cut = [tuple(_cut(pair, data.max_length) for pair in part) for part in whole]
    return Workload(
        train=cut[0],
        validation=cut[1],
        cut=sum(pair.tokens > data.max_length for pair in everything),
        longest_uncut=max(pair.tokens for pair in everything),
        is_exact=tokenizer is not None,
        filled=sum(pair.tokens - pair.answer >= data.max_length for pair in everything),
    )


def _count(tokenizer: Any, template: PromptTemplate, data: DataSettings, pairs: Sequence[Pair]) -> list[PairTokens]:
    Encoder(tokenizer, template, data.max_length).examples(pairs)  # refuses what training would refuse
    examples = Encoder(tokenizer, template, _NO_LIMIT).examples(pairs)
    return [PairTokens(len(example.ids), example.answer_tokens) for example in examples]


def _estimate(template: PromptTemplate, pair: Pair) -> PairTokens:
    prompt, answer = (
        max(1, round(len(text.encode()) / _BYTES_A_TOKEN))
        for text in (template.prompt(pair.question), template.completion(pair.answer))
    )
    return PairTokens(prompt + answer + 1, answer + 1)


def _cut(pair: PairTokens, max_length: int) -> PairTokens:
    over = max(0, pair.tokens - max_length)
    return PairTokens(pair.tokens - over, max(1, pair.answer - over))


def _tokenizer(found: FoundModel) -> Any:
    """The model's tokenizer, where it is on this machine; None elsewhere. Loading it takes a second and no torch."""
    if found.files is None:
        return None
    if found.files.is_file():
        return read_tokenizer(open_gguf(found.files))
    if not (found.files / "tokenizer.json").is_file():
        return None
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(found.files)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ModelError(
            f"The tokenizer in {found.files} cannot be read: {str(error).partition(chr(10))[0]}", "Get it again."
        ) from None
    return tokenizer if tokenizer.eos_token_id is not None else None


def _free(out: Path) -> int:
    """Bytes free where the run would be written."""
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free
