"""Folders on a hub: sent as one commit, fetched whole or not at all, pickles never."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.models.hub import HubFile, endpoint, files_to_send, pull, push
from tests.fake_hub import FakeHub, Repository

# what huggingface_hub says to its HTTP client when it uploads a large file
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a card, weights, a file in a folder, and hidden files."""
    root = tmp_path / "mine"
    contents = {
        "README.md": b"# mine\n",
        "model.safetensors": b"\x08" + b"w" * 900,
        "parts/a/config.json": b"{}",
        ".git/config": b"secret",
        "parts/.hidden": b"secret",
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def nothing(folder: Path) -> None:
    """Find every folder right."""


def test_hidden_files_are_left_out_and_the_card_may_be_another(folder: Path) -> None:
    files = files_to_send(folder, card="# longer card\n")
    assert [(one.name, one.size) for one in files] == [
        ("README.md", 14), ("model.safetensors", 901), ("parts/a/config.json", 2),
    ]  # fmt: skip


def test_what_is_sent_comes_back_byte_for_byte(folder: Path, hub: FakeHub, tmp_path: Path) -> None:
    address = push(files_to_send(folder, card="# sent\n"), "me/mine")
    assert address.startswith(f"{hub.address}/me/mine/commit/")
    pull("me/mine", tmp_path / "back", nothing)
    found = {
        path.relative_to(tmp_path / "back").as_posix(): path.read_bytes()
        for path in (tmp_path / "back").rglob("*")
        if path.is_file()
    }
    assert found == {
        "README.md": b"# sent\n",
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
        "parts/a/config.json": b"{}",
    }
    assert not hub.repositories["me/mine"].private
    commits = [path for command, path in hub.asked if "/commit/" in path]
    assert commits == ["api/models/me/mine/commit/main"]


def test_a_branch_is_made_and_fetched_from(folder: Path, hub: FakeHub, tmp_path: Path) -> None:
    push([HubFile("README.md", folder / "README.md", b"# first\n")], "me/mine")
    push([HubFile("README.md", folder / "README.md", b"# second\n")], "me/mine", revision="next")
    for revision, text in (("main", "# first\n"), ("next", "# second\n")):
        pull("me/mine", tmp_path / revision, nothing, revision=revision)
        assert (tmp_path / revision / "README.md").read_text() == text


def test_private_means_private_or_nothing_is_sent(folder: Path, hub: FakeHub) -> None:
    push(files_to_send(folder), "me/hidden", private=True)
    assert hub.repositories["me/hidden"].private
    push(files_to_send(folder), "me/hidden", private=True)
    hub.repositories["me/open"] = Repository(private=False)
    with pytest.raises(ConfigError, match="to be private, but is there already and public"):
        push(files_to_send(folder), "me/open", private=True)
    assert hub.files("me/open") == {}


def test_pickles_are_never_sent(folder: Path) -> None:
    (folder / "head.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"but head\.bin can run code .* as safetensors"):
        files_to_send(folder)
    (folder / "head.bin").unlink()
    packed = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, packed)
    for content in (b"\x80\x04K\x01.", packed.getvalue()):
        (folder / "weights.dat").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"but weights\.dat can run code"):
            files_to_send(folder)


def test_a_folder_without_a_card_is_refused(folder: Path) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(CheckpointError, match=r"has no README\.md. Write one that says"):
        files_to_send(folder)


def test_pickles_are_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    files = {"README.md": b"#", "pytorch_model.bin": b"x", "a/model.safetensors": b"y"}
    hub.repositories["them/old"] = Repository(False, {"main": files})
    pull("them/old", tmp_path / "old", nothing)
    assert not (tmp_path / "old" / "pytorch_model.bin").exists()
    assert (tmp_path / "old" / "a" / "model.safetensors").read_bytes() == b"y"


def test_nothing_appears_where_the_check_fails(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["them/bad"] = Repository(False, {"main": {"README.md": b"#"}})

    def refuse(folder: Path) -> None:
        assert (folder / "README.md").is_file()
        raise CheckpointError("of another base")

    with pytest.raises(CheckpointError, match="of another base"):
        pull("them/bad", tmp_path / "bad", refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["hub-cache"]


def test_what_is_there_is_not_overwritten(hub: FakeHub, folder: Path) -> None:
    with pytest.raises(ConfigError, match="is there already and not empty"):
        pull("them/any", folder, nothing)
    assert hub.asked == []


def test_what_is_not_on_the_hub_is_said_so(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"'me/none' at 'main' .* has no such thing for you"):
        pull("me/none", tmp_path / "x", nothing)
    hub.repositories["me/mine"] = Repository(False)
    with pytest.raises(CatalogError, match="'me/mine' at 'v9' was to be fetched from"):
        pull("me/mine", tmp_path / "x", nothing, revision="v9")


def test_a_token_that_may_not_write_is_named_as_what_is_missing(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(CheckpointError, match="Give a token that may write: HF_TOKEN"):
        push(files_to_send(folder), "me/mine")


def test_a_hub_out_of_reach_and_a_wrong_name_are_said_so(
    folder: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="is named owner/name, got 'mine'"):
        push(files_to_send(folder), "mine")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert endpoint() == "http://127.0.0.1:9"
    with pytest.raises(CheckpointError, match=r"'me/mine' was to be sent to http://127\.0\.0\.1:9"):
        push(files_to_send(folder), "me/mine")
