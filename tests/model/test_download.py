"""Every way in which fetching a model can fail: what is said, and that the same command goes on afterwards."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toys
from toy_hub import NAME, Hub, read_files

from phinetune.errors import ModelError
from phinetune.model.download import download

SECRET = "hf_notAnyonesTokenJustLetters"


class _WithoutWaiting:
    """The module `time` for huggingface_hub: it tries as often as always, and does not wait between."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def sleep(self, _: float) -> None:
        pass


@pytest.fixture
def hub(toy_base, tmp_path, monkeypatch):
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    served = Hub({**read_files(toy_base), "pytorch_model.bin": b"never", "modeling_toy.py": b"raise SystemExit"})
    home = tmp_path / "home"
    monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", _WithoutWaiting())
    monkeypatch.setenv("HF_TOKEN", SECRET)
    yield served
    served.close()


def _arrived(hub: Hub, folder: Path) -> None:
    wanted = {name for name in hub.files if not name.endswith((".bin", ".py"))}
    assert {path.name for path in folder.iterdir()} == wanted
    for path in folder.iterdir():
        assert path.read_bytes() == hub.files[path.name]


def test_a_model_arrives_and_neither_pickles_nor_code_are_asked_for(hub):
    _arrived(hub, download(NAME))
    assert not hub.asked_for("pytorch_model.bin")
    assert not hub.asked_for("modeling_toy.py")


def test_what_is_here_is_not_fetched_again(hub):
    first = download(NAME)
    sent = dict(hub.sent)
    assert download(NAME) == first
    assert hub.sent == sent


@pytest.mark.parametrize(
    ("fault", "says", "hint"),
    [
        ("bad_token", r"refused access to org/toy \(HTTP 401\)", "token is wrong"),
        ("forbidden", r"refused access to org/toy \(HTTP 403\)", "may not read this model"),
        ("gated", "Access to org/toy has to be granted", "huggingface.co/org/toy"),
        ("gated_unknown", "Access to org/toy has to be granted", "hf auth login"),
        ("missing", "no model called org/toy", "spelling"),
        ("private", "no model called org/toy", "private"),
        ("empty", "has no main version", "Choose another model"),
        ("too_many", r"asks to wait .* \(HTTP 429\)", "in some minutes"),
        ("error_500", r"could not deliver org/toy \(HTTP 500\)", "later"),
        ("error_503", r"could not deliver org/toy \(HTTP 503\)", "later"),
        ("login_page", "is not Hugging Face", "log in to the network"),
        ("huge", r"disk is too small for org/toy: its files take 1000000\.00 GB, and .* has [\d.]+ GB free", "HF_HOME"),
        ("short", "did not arrive whole", "same command again"),
        ("damaged_weights", "model.safetensors of org/toy is not what Hugging Face has", "same command again"),
        ("damaged_config", "config.json of org/toy is not what Hugging Face has", "same command again"),
        ("breaks", "the connection broke on the way", "same command again"),
    ],
)
def test_each_fault_has_words_of_its_own_and_the_same_command_goes_on_afterwards(hub, fault, says, hint):
    hub.fault = fault
    with pytest.raises(ModelError, match=says) as caught:
        download(NAME)
    assert hint in caught.value.hint
    assert SECRET not in str(caught.value)
    hub.fault = ""
    _arrived(hub, download(NAME))


def test_a_broken_connection_goes_on_in_the_middle_of_the_file(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)  # 10 MB, more than the toy has
    hub.fault = "breaks_once"
    _arrived(hub, download(NAME))
    size = len(hub.files["model.safetensors"])
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    whole_chunks = size // 2 >> 16 << 16
    assert ranges == ["", f"bytes={whole_chunks}-"]
    assert hub.sent["model.safetensors"] <= size + (1 << 16)


def test_files_that_arrived_whole_are_kept_when_another_one_fails(hub):
    hub.fault = "damaged_weights"
    with pytest.raises(ModelError):
        download(NAME)
    before = dict(hub.sent)
    hub.fault = ""
    _arrived(hub, download(NAME))
    assert {name for name in hub.sent if hub.sent[name] != before[name]} == {"model.safetensors"}


@pytest.mark.parametrize("fault", ["error_500", "bad_token", "too_many", "login_page"])
def test_a_model_that_is_here_needs_no_hub(hub, fault):
    folder = download(NAME)
    hub.fault = fault
    assert download(NAME) == folder


def test_a_hub_that_is_down_or_hangs_is_the_network(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    hub.fault = "hangs"
    with pytest.raises(ModelError, match="cannot be reached"):
        download(NAME)
    hub.close()
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        download(NAME)
    assert "smollm2-135m" in caught.value.hint


@pytest.mark.parametrize("failure", [socket.gaierror(-3, "Temporary failure in name resolution"), OSError(101, "net")])
def test_no_name_server_and_no_network_are_the_network(hub, monkeypatch, failure):
    def fails(*_, **__):
        raise failure

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    monkeypatch.setattr(socket.socket, "connect", fails)
    with pytest.raises(ModelError, match="cannot be reached"):
        download(NAME)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs folders that this user may not write")
def test_a_cache_that_cannot_be_written_is_told(hub, tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    with pytest.raises(ModelError, match="cannot be written"):
        download(NAME)


def test_half_a_model_is_not_taken_for_a_whole_one_without_a_network(hub):
    download(NAME, ("config.json", "tokenizer*"))
    hub.fault = "error_500"
    with pytest.raises(ModelError, match="HTTP 500"):
        download(NAME)


def test_checksums_are_those_of_the_hub():
    from phinetune.model.download import _checksum

    path = Path(__file__)
    git = shutil.which("git")
    if git is not None:
        oid = subprocess.run([git, "hash-object", str(path)], capture_output=True, text=True, check=True).stdout.strip()
        assert _checksum(path, "0" * 40) == oid
    assert _checksum(path, "0" * 64) == hashlib.sha256(path.read_bytes()).hexdigest()


def _command(hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": SECRET,
    }
    command = [sys.executable, "-m", "phinetune", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_line_says_it_without_a_traceback_or_the_token_and_then_goes_on(hub, tmp_path):
    sheet = str(toys.write_sheet(tmp_path / "s.xlsx"))
    arguments = ["train", sheet, "--model", NAME, "--out", str(tmp_path / "out"), "--epochs", "1"]
    hub.fault = "gated"
    refused = _command(hub, tmp_path, *arguments)
    assert refused.returncode == 1
    assert "has to be granted first" in refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout
    assert SECRET not in refused.stderr + refused.stdout
    hub.fault = ""
    done = _command(hub, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/model/phinetune.json").is_file()
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize(
    "name", ["../../../../../precious.json", "..\\..\\precious.json", "a/../../../../precious.json"]
)
def test_names_that_lead_out_of_the_cache_are_refused_in_words_and_touch_nothing(hub, tmp_path, name):
    """What calls itself a hub may be anybody (HF_ENDPOINT)."""
    mine = [place / "precious.json" for place in (tmp_path, *tmp_path.glob("*/"))]
    for file in mine:
        file.write_text("mine")
    hub.files[name] = b"theirs"
    with pytest.raises(ModelError, match="lead out of"):
        download(NAME)
    assert all(file.read_text() == "mine" for file in mine)
