"""SentencePiece vocabularies in .gguf files: transformers, llama.cpp and our own reader find the same ids.

With LLAMA_CPP naming a folder with convert_hf_to_gguf.py, as in test_gguf.py, the entries are compared with its.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
import toys
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, LlamaTokenizerFast, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

import phinetune
from phinetune.artifacts.gguf_vocabulary import add_vocabulary
from phinetune.errors import ModelError
from phinetune.model.gguf_file import open_gguf
from phinetune.model.gguf_tokenizer import read_tokenizer
from phinetune.settings import DEFAULT_TEMPLATE

_spec = importlib.util.spec_from_file_location(
    "gguf_fixtures", Path(__file__).parents[1] / "model" / "gguf_fixtures.py"
)
fixtures = importlib.util.module_from_spec(_spec)
sys.modules["gguf_fixtures"] = fixtures
_spec.loader.exec_module(fixtures)

SIZE = 544
HARD = [
    *("a" + " " * n + "b" for n in range(1, 40)),
    *(" " * n for n in range(1, 40)),
    *("x" + "\n" * n + "-" * n + "=" * n for n in range(1, 20)),
    "🧑🏽‍🚀🚀🚀🚀 👩‍❤️‍💋‍👨",
    "一二三四五六七八九十百千万億兆",
    "\ttabs\t\tand\r\nlines\v\f\x7f",
    "a ▁ b ▁▁ c",
    "<0x41> <0x0A> [PAD540] <unknown>",
]


def _random_texts(count=300):
    draw, letters = random.Random(0), "".join(sorted(set("".join(fixtures.TEXTS)))) + " " * 40 + "etaoin" * 5
    return ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(count)]


BATTERY = [*fixtures.TEXTS, *HARD, *_random_texts()]


@pytest.fixture(scope="module")
def original():
    """A small SentencePiece model of the kind of Llama 2's."""
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(fixtures.TEXTS[1:] * 20),
        model_writer=model,
        vocab_size=520,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def _vocabulary(original):
    vocabulary = {original.id_to_piece(id): id for id in range(len(original))}
    scores = {piece: original.get_score(id) for piece, id in vocabulary.items() if not original.is_byte(id)}
    return vocabulary, generate_merges(vocabulary, scores, skip_tokens=("<unk>", "<s>", "</s>"))


def _with_backend(original, normalizer=None, words=None, merges=None, added=()):
    vocabulary, own = _vocabulary(original)
    raw = Tokenizer(models.BPE(vocabulary, merges or own, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        raw.normalizer = normalizers.Sequence(normalizer)
    if words:
        raw.pre_tokenizer = words
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ("<unk>", "<s>", "</s>")])
    raw.add_tokens([AddedToken(token, normalized=False) for token in added])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


PREPEND, REPLACE = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")


def _llama(original, place):
    """As transformers holds a folder of Llama 2 with a tokenizer.json."""
    vocabulary, merges = _vocabulary(original)
    LlamaTokenizerFast(vocab=vocabulary, merges=merges, legacy=False, add_bos_token=True).save_pretrained(place)
    return AutoTokenizer.from_pretrained(place)


def _written(path, tokenizer, prompt=DEFAULT_TEMPLATE):
    model = toys.llama(vocab_size=SIZE, num_hidden_layers=1)
    fixtures.write_gguf(path, model, lambda writer: add_vocabulary(writer, tokenizer, SIZE, "llama", prompt))
    return path


def _ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def test_the_tokenizer_of_llama_2_is_read_the_same_by_llama_cpp_and_here(original, tmp_path):
    tokenizer = _llama(original, tmp_path / "t")
    path = _written(tmp_path / "t.gguf", tokenizer)
    theirs, ours = fixtures.llama_cpp(path), read_tokenizer(open_gguf(path))
    compared = 0
    for text in BATTERY:
        assert theirs.tokens(text) == _ids(ours, text), text
        if text.startswith((" ", "▁")):  # transformers alone puts no second blank before it
            assert theirs.tokens(text) == original.encode(text), text
            assert theirs.tokens(text) != _ids(tokenizer, text), text
        else:
            assert theirs.tokens(text) == _ids(tokenizer, text), text
            assert theirs.tokens(text, add_special=True) == ours(text).input_ids == tokenizer(text).input_ids
            compared += 1
    assert compared > 250


@pytest.mark.parametrize(
    ("normalizer", "begins"), [([PREPEND, REPLACE], True), ([REPLACE], False)], ids=["blank first", "no blank first"]
)
def test_one_that_always_or_never_puts_a_blank_first_is_read_the_same_throughout(
    original, tmp_path, normalizer, begins
):
    tokenizer = _with_backend(original, normalizer, added=["[INST]"])
    path = _written(tmp_path / "t.gguf", tokenizer, prompt=" {question}{answer}")
    theirs, ours = fixtures.llama_cpp(path), read_tokenizer(open_gguf(path))
    for text in [*BATTERY, "[INST] Hello [INST] world", "Hello</s>there"]:
        assert theirs.tokens(text) == _ids(tokenizer, text) == _ids(ours, text), text
        assert theirs.tokens(text, add_special=True) == tokenizer(text).input_ids, text
    assert open_gguf(path).metadata["tokenizer.ggml.add_space_prefix"] is begins


def test_its_entries_are_those_of_llama_cpps_converter(original, tmp_path):
    entries = open_gguf(_written(tmp_path / "t.gguf", _llama(original, tmp_path / "t"))).metadata
    size = len(original)
    got = {name: entries[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type")}
    assert got["tokens"] == [*map(original.id_to_piece, range(size)), *(f"[PAD{id}]" for id in range(size, SIZE))]
    # the three special tokens stand in added_tokens_decoder, from which the converter takes kind and score
    assert got["scores"] == [-1000.0] * 3 + [original.get_score(id) for id in range(3, size)] + [-1e4] * (SIZE - size)
    kinds = gguf.TokenType
    assert got["token_type"] == (
        [kinds.CONTROL] * 3
        + [kinds.BYTE if original.is_byte(id) else kinds.NORMAL for id in range(3, size)]
        + [kinds.UNUSED] * (SIZE - size)
    )
    flags = {"model": "llama", "pre": "default", "add_space_prefix": True, "add_bos_token": True}
    ids = {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "add_eos_token": False}
    assert {name: entries[f"tokenizer.ggml.{name}"] for name in flags | ids} == flags | ids


@pytest.mark.skipif("LLAMA_CPP" not in os.environ, reason="LLAMA_CPP names no folder with llama.cpp's converters")
def test_llama_cpps_converter_writes_the_same_from_the_sentencepiece_model(original, tmp_path):
    tokenizer = _llama(original, tmp_path / "t")
    toys.llama(vocab_size=SIZE, num_hidden_layers=1, bos_token_id=1, eos_token_id=2).save_pretrained(tmp_path / "t")
    (tmp_path / "t" / "tokenizer.model").write_bytes(original.serialized_model_proto())
    config = tmp_path / "t" / "tokenizer_config.json"  # with what the folders of Llama 2 and Mistral have there
    special = {str(id): {"content": original.id_to_piece(id), "special": True} for id in range(3)}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"added_tokens_decoder": special}))
    place = Path(os.environ["LLAMA_CPP"])
    command = [place / "convert_hf_to_gguf.py", tmp_path / "t", "--outfile", tmp_path / "theirs.gguf"]
    subprocess.run([sys.executable, *command], env={**os.environ, "PYTHONPATH": str(place / "gguf-py")}, check=True)
    ours = open_gguf(_written(tmp_path / "ours.gguf", tokenizer)).metadata
    theirs = {name: value for name, value in open_gguf(tmp_path / "theirs.gguf").metadata.items() if ".ggml." in name}
    nothing = {"tokenizer.ggml.add_sep_token": False}  # as it is when a file does not say so
    assert {name: (nothing | ours).get(name) for name in theirs} == theirs
    assert "tokenizer.ggml.scores" in theirs


def test_runs_of_blanks_that_all_come_last_are_joined_from_the_left(original, tmp_path):
    """As in Mistral 7B, whose runs stand first in the vocabulary, have one score, and lack one of 15."""
    runs = ["▁" * length for length in (2, 4, 8, 5, 16, 6, 12, 13, 10, 14, 3, 9, 7, 11)]
    pieces = [original.id_to_piece(id) for id in range(len(original))]
    others = [piece for piece in pieces[259:] if piece.strip("▁")]
    vocabulary = {piece: id for id, piece in enumerate([*pieces[:259], *runs, *others, "▁"])}
    scores = {piece: float(259 - id) if piece.strip("▁") else -1e9 for piece, id in vocabulary.items() if id > 258}
    tokenizer = _with_backend(original, [PREPEND, REPLACE])
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"] |= {"vocab": vocabulary, "merges": generate_merges(vocabulary, scores)}
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    path = _written(tmp_path / "t.gguf", tokenizer)
    theirs, file = fixtures.llama_cpp(path), open_gguf(path)
    ours = read_tokenizer(file)
    for text in BATTERY:
        assert theirs.tokens(text) == _ids(tokenizer, text) == _ids(ours, text), text
    written = dict(zip(file.metadata["tokenizer.ggml.tokens"], file.metadata["tokenizer.ggml.scores"], strict=True))
    assert {piece: written[piece] for piece in scores} == scores


def test_pieces_that_are_not_numbered_by_their_score_are_scored_by_their_merges(original, tmp_path):
    tokenizer = _with_backend(original, [PREPEND, REPLACE])
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = [piece for piece, id in content["model"]["vocab"].items() if id >= 259]
    shuffled = random.Random(0).sample(pieces, len(pieces))
    content["model"]["vocab"] |= {piece: id for id, piece in enumerate(shuffled, start=259)}
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    path = _written(tmp_path / "t.gguf", tokenizer)
    theirs = fixtures.llama_cpp(path)
    for text in BATTERY:
        assert theirs.tokens(text) == _ids(tokenizer, text), text


def test_what_llama_cpp_would_read_otherwise_is_refused(original, tmp_path):
    def refused(match, tokenizer, prompt=DEFAULT_TEMPLATE):
        with pytest.raises(ModelError, match=match) as caught:
            _written(tmp_path / "t.gguf", tokenizer, prompt)
        assert caught.value.hint

    _, merges = _vocabulary(original)
    both = [PREPEND, REPLACE]
    scattered = random.Random(0).sample(merges, len(merges))
    refused("an order of its own", _with_backend(original, both, merges=scattered))
    refused("an order of its own", _with_backend(original, both, merges=merges[:-1]))
    refused("changes or cuts text", _with_backend(original, [normalizers.NFKC(), *both]))
    refused("changes or cuts text", _with_backend(original, [REPLACE], pre_tokenizers.Digits()))
    refused("changes or cuts text", _with_backend(original, words=pre_tokenizers.Metaspace(split=True)))
    first = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    refused("added tokens inside a text", _with_backend(original, words=first, added=["[INST]"]))
    refused("template begins with a blank", _llama(original, tmp_path / "t"), " {question}{answer}")
    tokenizer = _with_backend(original, both)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"]["vocab"]["<0x4x>"] = content["model"]["vocab"].pop("<0x41>")
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    refused("lacks pieces for some bytes", tokenizer)


def test_a_run_on_such_a_model_is_exported_and_answers_the_same_in_llama_cpp(original, toy_sheet, tmp_path):
    base = tmp_path / "base"
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    toys.llama(vocab_size=SIZE, hidden_size=128, num_attention_heads=4, **ids).save_pretrained(base)
    _llama(original, base)
    run = phinetune.train(
        toy_sheet, model=str(base), out=tmp_path / "run", epochs=20, lr=1e-2, lora_dropout=0.0, patience=0, dtype="fp32"
    )
    [written] = phinetune.export_gguf(run, tmp_path / "t.gguf", quantize=["f32"])
    tuned, theirs = phinetune.open_model(run, dtype="fp32"), fixtures.llama_cpp(written.path)
    for question, _ in toys.PAIRS:
        prompt = tuned.encoder.prompt_ids(question)
        assert theirs.tokens(tuned.encoder.template.prompt(question), add_special=True) == prompt
    forms = phinetune.verify(run, [written.path], sheet=toy_sheet, limit=6)
    assert [form.by for form in forms] == ["phinetune", "phinetune", "llama.cpp"]
    assert [form.kept for form in forms] == [None, True, True], forms
