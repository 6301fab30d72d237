"""`speechadapt adapters|models push|pull` against a hub in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.encoders.catalog import load_encoder
from tests import command
from tests.fake_hub import FakeHub, Repository

# what huggingface_hub says to its HTTP client when it uploads a large file
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def adapter(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved adapter of the tiny Whisper."""
    handle = attach(load_encoder(tiny_folder("whisper")), "lora", config={"rank": 1})
    scores = {"mine": {"headline": "wer", "wer": 0.25}}
    return store.save(handle, tmp_path_factory.mktemp("saved") / "mine", scores=scores)


def head_of(text: bytes) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(text.decode().split("---\n")[1])
    return found


def test_an_adapter_goes_to_the_hub_and_comes_back(
    adapter: Path, hub: FakeHub, tiny_folder: Callable[[str], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("push", adapter, "me/mine", "--licence", "CC BY 4.0", "--language", "fi")
    assert command.call("adapters", *words) == 0
    assert f"{hub.address}/me/mine/commit/" in capsys.readouterr().out
    head = head_of(hub.files("me/mine")["README.md"])
    assert (head["license"], head["language"]) == ("cc-by-4.0", ["fi"])
    assert (head["base_model"], head["metrics"]) == ("whisper", ["wer"])
    back = tmp_path / "back"
    base = tiny_folder("whisper")
    assert command.call("adapters", "pull", "me/mine", "-o", back, "--base", base) == 0
    assert f"{back} holds 'back' for whisper" in capsys.readouterr().out
    for name in (store.WEIGHTS, store.CONFIG):
        assert (back / name).read_bytes() == (adapter / name).read_bytes()


def test_an_adapter_of_another_base_does_not_appear(
    adapter: Path, hub: FakeHub, tiny_folder: Callable[[str], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert command.call("adapters", "push", adapter, "me/mine", "--private") == 0
    assert hub.repositories["me/mine"].private
    words = ("pull", "me/mine", "-o", tmp_path / "x", "--base", tiny_folder("w2v_bert"))
    assert command.call("adapters", *words) == 1
    assert "was trained on whisper (whisper), this encoder is" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_dry_run_lists_what_would_be_sent_and_asks_nobody(
    adapter: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("push", adapter, "me/mine", "--dry-run", "--licence", "MIT", "--private")
    assert command.call("adapters", *words) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"would send 3 files to {hub.address}/me/mine, branch main, private:"
    sizes = [int(line.split()[0].replace(",", "")) for line in lines]
    assert [line.split()[2] for line in lines[:-1]] == ["README.md", store.CONFIG, store.WEIGHTS]
    assert sizes[2] == (adapter / store.WEIGHTS).stat().st_size
    assert sizes[-1] == sum(sizes[:-1])
    assert lines[0].endswith("(its head is completed)")
    assert hub.asked == []


def test_a_model_goes_to_the_hub_and_comes_back(
    hub: FakeHub, tiny_folder: Callable[[str], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_folder("whisper").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert command.call("models", "push", folder, "me/model") == 1
    assert "has no README.md" in capsys.readouterr().err
    (folder / "README.md").write_text("# model\n")
    (folder / "optimizer.pt").write_bytes(b"x")
    assert command.call("models", "push", folder, "me/model") == 1
    assert "optimizer.pt can run code" in capsys.readouterr().err
    (folder / "optimizer.pt").unlink()
    assert hub.asked == []
    assert command.call("models", "push", folder, "me/model", "--revision", "v1") == 0
    assert hub.files("me/model") == {}
    assert command.call("models", "pull", "me/model", "-o", tmp_path / "x", "--revision", "v1") == 0
    assert load_encoder(tmp_path / "x").fingerprint() == load_encoder(folder).fingerprint()


def test_half_a_model_does_not_appear(
    hub: FakeHub, tiny_folder: Callable[[str], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    hub.repositories["me/half"] = Repository(private=False)
    hub.files("me/half")["config.json"] = (tiny_folder("whisper") / "config.json").read_bytes()
    assert command.call("models", "pull", "me/half", "-o", tmp_path / "x") == 1
    assert "holds no safetensors" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
