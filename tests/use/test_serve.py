"""The server over HTTP, on this machine's loopback: what it answers, and to whom."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import toys

import phinetune
from phinetune.errors import ModelError, RunError, SettingsError
from phinetune.settings import DEFAULT_TEMPLATE
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use.serve import stops

pytest.importorskip("xllamacpp")
QUESTION = toys.PAIRS[1][0]
MARK = " the lighthouse."  # in the answer to it


def _post(server_address, what, body, key=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{server_address}{what}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def _post_answer(server_address, body):
    return json.loads(_post(server_address, "/v1/chat/completions", body))["choices"][0]["message"]["content"]


def _chat(question, **options):
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 30} | options


def test_it_answers_as_the_tuned_model_with_the_training_prompt_applied(toy_run):
    expected = phinetune.ask(toy_run, QUESTION, greedy=True, max_new_tokens=30)
    with phinetune.serve(toy_run) as server:
        whole = json.loads(_post(server.address, "/v1/chat/completions", _chat(QUESTION)))
        assert whole["choices"][0]["message"]["content"] == expected  # without the blank before its first word
        prompt = json.loads(_post(server.address, "/apply-template", _chat(QUESTION)))["prompt"]
        assert prompt == PromptTemplate().prompt(QUESTION)
        unsaid = {key: value for key, value in _chat(QUESTION).items() if key != "temperature"}
        again = {_post_answer(server.address, unsaid) for _ in range(3)}  # llama.cpp itself would draw by chance
        assert again == {expected}
        streamed = _post(server.address, "/v1/chat/completions", _chat(QUESTION, stream=True))
        pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        assert len(pieces) > 2
        text = "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces if piece["choices"])
        assert text == expected
        plain = {"prompt": PromptTemplate().prompt(QUESTION), "temperature": 0, "max_tokens": 30}
        completion = json.loads(_post(server.address, "/v1/completions", plain))
        assert completion["choices"][0]["text"].strip() == expected


@pytest.fixture(scope="module")
def toy_server(toy_run):
    with phinetune.serve(toy_run) as server:
        yield server.address


@pytest.fixture
def short_run(toy_run, tmp_path):
    """The run with a template that ends an answer with a mark, and answers of a few tokens."""
    copy = shutil.copytree(toy_run.folder.root, tmp_path / "short", ignore=shutil.ignore_patterns(".served"))
    changes = {"template": f"{DEFAULT_TEMPLATE}{MARK}", "max_new_tokens": 6}
    recipe = json.loads((copy / "model" / "phinetune.json").read_text()) | changes
    (copy / "model" / "phinetune.json").write_text(json.dumps(recipe))
    return copy


def _pieces(streamed, text):
    lines = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    return "".join(text(line["choices"][0]) or "" for line in lines if line["choices"])


def test_it_ends_an_answer_as_ask_does_and_a_request_may_name_another_length_or_end(short_run):
    short, whole = (phinetune.ask(short_run, QUESTION, max_new_tokens=tokens) for tokens in (None, 40))
    assert len(short) < len(whole)
    assert whole + MARK == toys.PAIRS[1][1]
    with phinetune.serve(short_run) as server:
        for expected, options in ((short, {}), (whole, {"max_tokens": 40}), (whole, {"max_completion_tokens": 40})):
            messages = {"messages": [{"role": "user", "content": QUESTION}]} | options
            assert _post_answer(server.address, messages) == expected
            streamed = _post(server.address, "/v1/chat/completions", messages | {"stream": True})
            assert _pieces(streamed, lambda choice: choice["delta"].get("content")) == expected
            plain = {"prompt": PromptTemplate().prompt(QUESTION)} | options
            completion = json.loads(_post(server.address, "/v1/completions", plain))
            assert completion["choices"][0]["text"] == f" {expected}"
            streamed = _post(server.address, "/v1/completions", plain | {"stream": True})
            assert _pieces(streamed, lambda choice: choice["text"]) == f" {expected}"
        cut = _post_answer(server.address, messages | {"stop": ["Tibb"]})
        assert cut == whole.partition("Tibb")[0]


def test_what_a_request_leaves_open_is_sampled_as_ask_does(toy_run):
    with phinetune.serve(toy_run) as server:
        about = json.loads(_post(server.address, "/completion", {"prompt": "?", "n_predict": 1}))["generation_settings"]
        own = {"prompt": "?", "n_predict": 1, "top_k": 7, "min_p": 0.5, "repeat_penalty": 1.5}
        wished = json.loads(_post(server.address, "/completion", own))["generation_settings"]
    assert (about["top_k"], about["min_p"], about["repeat_penalty"], about["temperature"]) == (0, 0, 1, 0)
    order = [sampler for sampler in about["samplers"] if sampler in ("temperature", "top_p")]
    assert order == ["temperature", "top_p"]  # as in generate.choose
    assert (wished["top_k"], wished["min_p"], wished["repeat_penalty"]) == (7, 0.5, 1.5)


def test_blank_lines_before_what_ends_an_answer_are_left_out():
    assert "\n\n### Question:" in stops(PromptTemplate())
    assert stops(PromptTemplate("{question}\t{answer}")) == []


def test_openais_own_client_talks_to_it(toy_run):
    openai = pytest.importorskip("openai")
    expected = phinetune.ask(toy_run, QUESTION, greedy=True, max_new_tokens=30)
    messages = [{"role": "user", "content": QUESTION}]
    with phinetune.serve(toy_run, api_key="sesame") as server:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="sesame", max_retries=0)
        [name] = [model.id for model in client.models.list()]
        asked = {"model": name, "messages": messages, "temperature": 0, "max_tokens": 30}
        whole = client.chat.completions.create(**asked)
        assert whole.choices[0].message.content.strip() == expected
        assert whole.usage.completion_tokens > 1
        stream = client.chat.completions.create(**asked, stream=True)
        pieces = [piece.choices[0].delta.content or "" for piece in stream]
        assert len(pieces) > 2
        assert "".join(pieces).strip() == expected
        prompt = PromptTemplate().prompt(QUESTION)
        plain = client.completions.create(model=name, prompt=prompt, temperature=0, max_tokens=30)
        assert plain.choices[0].text.strip() == expected
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").chat.completions.create(**asked)


def test_a_run_is_packed_once(toy_run):
    with phinetune.serve(toy_run):
        pass
    [packed] = (toy_run.folder.root / ".served").glob("*.gguf")
    before = packed.stat().st_mtime_ns
    with phinetune.serve(toy_run):
        pass
    assert packed.stat().st_mtime_ns == before
    with phinetune.serve(packed) as server:
        assert json.loads(_post(server.address, "/apply-template", _chat("Who?")))["prompt"].startswith("### Question")


def test_a_merged_folder_keeps_its_packed_file_within_itself(toy_run, tmp_path):
    merged = phinetune.merge(toy_run, tmp_path / "model").path
    beside = tmp_path / ".served" / "model-2-0123456789ab.q8_0.gguf"
    beside.parent.mkdir()
    beside.touch()
    with phinetune.serve(merged):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".served", "model"]
    assert [path.name for path in beside.parent.iterdir()] == [beside.name]
    [packed] = (merged / ".served").glob("*.gguf")
    assert packed.stat().st_size > 1000


def test_on_another_base_model_it_is_packed_anew(toy_run, tmp_path):
    base = json.loads((toy_run.folder.model / "adapter_config.json").read_text())["base_model_name_or_path"]
    other = shutil.copytree(base, tmp_path / "other")
    packed = []
    for model in (None, str(other)):
        with phinetune.serve(toy_run, model=model):
            packed += [file.name for file in (toy_run.folder.root / ".served").glob("*.gguf")]
    assert len(set(packed)) == len(packed) == 2


def test_a_key_is_asked_for_when_there_is_one(toy_run):
    with phinetune.serve(toy_run, api_key="open sesame") as server:
        for key in (None, "wrong"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                _post(server.address, "/v1/chat/completions", _chat("Who?"), key)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{server.address}/health", timeout=60)
        assert "choices" in _post(server.address, "/v1/chat/completions", _chat("Who?"), "open sesame")


@pytest.mark.parametrize("key", [None, "sesame"])
def test_a_body_of_megabytes_is_refused_with_and_without_a_key(toy_run, key):
    with phinetune.serve(toy_run, api_key=key) as server:
        with pytest.raises(urllib.error.HTTPError, match="413"):
            _post(server.address, "/v1/chat/completions", _chat("a" * (5 << 20)), key)
        assert "choices" in _post(server.address, "/v1/chat/completions", _chat("Who?"), key)


def test_beyond_this_machine_only_with_a_key_and_never_on_a_taken_port(toy_run):
    with pytest.raises(SettingsError, match=r"Whoever reaches 0\.0\.0\.0 could ask"):
        phinetune.serve(toy_run, host="0.0.0.0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match="cannot be used"):
            phinetune.serve(toy_run, port=taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "says"),
    [("nosuchhost.invalid", "The host nosuchhost.invalid is not known"), ("203.0.113.7", "no address of this machine")],
)
def test_a_host_that_cannot_be_listened_on_is_said(toy_run, host, says):
    with pytest.raises(RunError, match=says) as refused:
        phinetune.serve(toy_run, host=host, api_key="sesame")
    assert "--host" in refused.value.hint


def test_who_asks_nothing_gets_an_error_and_no_answer_to_something_else(toy_run):
    with phinetune.serve(toy_run) as server:
        for messages in ([], [{"role": "user", "content": " "}], [{"role": "user", "content": None}]):
            with pytest.raises(urllib.error.HTTPError) as refused:
                _post(server.address, "/v1/chat/completions", {"messages": messages})
            assert refused.value.code == 400
            assert "Nothing is asked: " in json.load(refused.value)["error"]["message"]
        expected = _post_answer(server.address, _chat(QUESTION))
        assert _post_answer(server.address, _chat(f"  {QUESTION}\n")) == expected
        assert _post_answer(server.address, _chat([{"type": "text", "text": QUESTION}])) == expected


def test_what_cannot_be_answered_is_the_clients_fault_and_is_said_in_words(toy_run):
    asked = _chat(QUESTION)
    image = [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}]
    bodies = [
        *([], "Who?", {}, {"messages": "Who?"}, {"messages": ["Who?"]}, {"messages": [{"content": "Who?"}]}),
        *({"messages": [{"role": "user", "content": content}]} for content in (3, {}, image, [{"type": "text"}])),
        *(asked | wrong for wrong in ({"max_tokens": "5"}, {"temperature": "hot"}, {"stop": 3}, {"stream": "yes"})),
    ]
    with phinetune.serve(toy_run) as server:
        for body in bodies:
            with pytest.raises(urllib.error.HTTPError) as refused:
                _post(server.address, "/v1/chat/completions", body)
            error = json.load(refused.value)["error"]
            assert (refused.value.code, error["type"], error["code"]) == (400, "invalid_request_error", 400)
            assert "json.exception" not in error["message"]
        history = [{"role": "system", "content": ""}, *asked["messages"], {"role": "assistant", "content": None}]
        assert _post_answer(server.address, asked | {"messages": [*history, *asked["messages"]]})


@pytest.mark.parametrize(
    ("place", "body", "status"),
    [
        ("/v1/messages/count_tokens", {"messages": "Who?"}, 400),
        ("/v1/chat/completions", _chat("Who?", tool_choice="x", tools=[{"type": "function", "function": {}}]), 400),
        ("/v1/chat/completions", _chat("Who?", json_schema={"type": "array", "items": {}, "maxItems": 10**9}), 400),
        ("/v1/chat/completions", _chat("Who?", repeat_last_n=2**31 - 1, repeat_penalty=2), 400),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Who?", "name": 3}]}, 400),
        ("/v1/completions", {"prompt": "Who?", "grammar": "root ::= root"}, 400),
        ("/v1/embeddings", {"input": "Who?"}, 404),
        ("/nowhere", {}, 404),
    ],
)
def test_what_the_server_behind_would_break_at_is_refused(toy_server, place, body, status):
    with pytest.raises(urllib.error.HTTPError) as refused:
        _post(toy_server, place, body)
    error = json.load(refused.value)["error"]
    assert (refused.value.code, error["code"]) == (status, status)
    assert error["message"]
    assert _post_answer(toy_server, _chat(QUESTION))


@pytest.mark.parametrize("key", ["ключ", "sesame\n", " sesame", "ses\x00ame"])
def test_a_key_that_no_request_can_carry_is_refused(toy_run, key):
    with pytest.raises(SettingsError, match="no request can carry"):
        phinetune.serve(toy_run, api_key=key)


def test_what_llama_cpp_cannot_load_is_a_clear_error(toy_run, tmp_path):
    lora = phinetune.export_gguf_adapter(toy_run, tmp_path / "lora.gguf")
    with pytest.raises(RunError, match="is an adapter alone, and not a model"):
        phinetune.serve(lora)
    [file] = phinetune.export_gguf(toy_run, tmp_path / "t.gguf", quantize=["q8_0"], check=False)
    other = tmp_path / "other.gguf"
    other.write_bytes(file.path.read_bytes().replace(b"phi2", b"phi7"))
    with pytest.raises(RunError, match=r"llama\.cpp cannot serve .*other\.gguf"):
        phinetune.serve(other)
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        phinetune.serve(tmp_path / "text.gguf")


@pytest.mark.parametrize("flags", [[], ["--log"]])
def test_the_command_serves_until_it_is_told_to_stop_and_its_log_never_tells_what_was_said(toy_run, flags):
    command = [sys.executable, "-m", "phinetune", "serve", str(toy_run.folder.root), "--port", "0", "--json", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as run:
        try:
            address = json.loads(run.stdout.readline())["address"]
            assert "choices" in _post(address, "/v1/chat/completions", _chat("Xylophone?"))
        finally:
            run.send_signal(signal.SIGINT)
        told = run.communicate(timeout=30)[1]
    assert run.returncode == 0
    assert ("tokens per second" in told) == bool(flags)
    assert "Xylophone" not in told


def test_no_web_page_reads_along_and_nobody_sees_the_questions_of_others(toy_run):
    with phinetune.serve(toy_run) as server:
        headers = {"Content-Type": "application/json", "Origin": "http://elsewhere.example"}
        request = urllib.request.Request(
            f"{server.address}/v1/chat/completions", json.dumps(_chat(QUESTION)).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers.get("Access-Control-Allow-Origin", "") in ("", "null")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{server.address}/slots", timeout=60)
        assert refused.value.code in (404, 501)
