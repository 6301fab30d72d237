"""`speechadapt adapters`: listing without torch, and every step in the life of a saved adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from speechadapt.adapters import store
from speechadapt.adapters import verify as verifying
from speechadapt.adapters.attach import attach
from speechadapt.adapters.catalog import method_names, title
from speechadapt.adapters.interop import ctranslate2, ctranslate2_check
from speechadapt.cli import main as command_line
from speechadapt.encoders.catalog import load_encoder
from tests import command
from tests.unit.cli.test_main import HEAVY, loaded_after

run = partial(command.call, "adapters")


DATA = Path(__file__).parents[2] / "data"
Q_WEIGHT = "model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def base(tiny_folder: Callable[[str], Path]) -> Path:
    return tiny_folder("whisper")


@pytest.fixture(scope="module")
def german(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a LoRA that changes something."""
    handle = attach(load_encoder(base), "lora", name="german", config={"rank": 2})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for tensor in handle.parameters():
            tensor.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("saved") / "german"
    return store.save(handle, folder, training={"hours": 2.5}, scores={"dev": {"wer": 0.125}})


@torch.no_grad()
def encoded(base: Path, folder: Path | None, clip: torch.Tensor) -> torch.Tensor:
    """Return the frames of a clip, with or without a saved adapter."""
    encoder = load_encoder(base)
    if folder is not None:
        store.load(encoder, folder, name="it")
    return encoder.encode([clip])[0]


@pytest.mark.parametrize("words", [("list",), ("merge", "--help")])
def test_listing_and_help_load_nothing_heavy(words: tuple[str, ...]) -> None:
    assert not set(HEAVY) & set(loaded_after("adapters", *words))


def test_every_method_is_listed_with_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == method_names()
    assert lines[method_names().index("lora")].endswith(f"  {title('lora')}")
    assert run("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["title"] for row in rows}["lora"] == title("lora")


def test_a_terminal_gets_a_table_that_folds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")  # a width, but no colours
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > len(method_names())
    assert any(line.startswith("lora ") for line in lines)


def test_show_says_what_an_adapter_is_and_what_it_belongs_to(
    german: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", german) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    facts = {name.strip(): text.strip() for name, text in rows.items()}
    assert facts["method"] == "lora, version 1"
    assert "rank=2" in facts["settings"]
    assert facts["base"] == "whisper (whisper), revision local"
    assert facts["parameters"] == "1,664"
    assert facts["training: hours"] == "2.5"
    assert facts["scores: dev"] == '{"wer": 0.125}'
    assert run("show", german, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((german / store.CONFIG).read_text())


def test_verify_tells_on_from_off(
    german: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", german, "--base", base) == 0
    printed = capsys.readouterr().out
    assert "On: a valid frame changes by up to" in printed
    assert "Off: the output equals the base bit for bit." in printed


def test_verify_listens_to_recordings_cut_to_the_window(
    german: Path, base: Path, demo_clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = sorted(demo_clips.glob("*.flac"))[:2]
    audio = [word for clip in clips for word in ("--audio", clip)]
    words = ("verify", german, "--base", base, *audio, "--padding", "native", "--json")
    assert run(*words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sound"] is True
    assert report["changed"] > 0


def test_an_adapter_that_is_not_sound_gives_exit_code_3(
    german: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = verifying.verify

    def silent(*words: object) -> verifying.Report:
        return replace(real(*words), silent=("layer.0.attn.q",))

    monkeypatch.setattr(verifying, "verify", silent)
    assert run("verify", german, "--base", base) == 3
    assert "Never ran: layer.0.attn.q." in capsys.readouterr().out


def test_merge_writes_a_folder_that_transformers_loads(
    german: Path, base: Path, tmp_path: Path, signal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("merge", german, "--base", base, "-o", tmp_path / "merged") == 0
    assert "with 'german' folded in" in capsys.readouterr().out
    clip = signal(16000)
    adapted = encoded(base, german, clip)
    torch.testing.assert_close(
        encoded(tmp_path / "merged", None, clip), adapted, rtol=1e-5, atol=1e-5
    )
    assert not torch.allclose(encoded(base, None, clip), adapted, atol=1e-2)
    assert WhisperModel.from_pretrained(tmp_path / "merged").dtype == torch.float32


def test_merge_writes_the_precision_asked_for(german: Path, base: Path, tmp_path: Path) -> None:
    words = ("--base", base, "-o", tmp_path / "merged", "--dtype", "float16")
    assert run("merge", german, *words) == 0
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["dtype"] == "float16"


def test_export_to_peft_and_import_again_gives_the_same_output(
    german: Path, base: Path, tmp_path: Path, signal, capsys: pytest.CaptureFixture[str]
) -> None:
    out, back = tmp_path / "for peft", tmp_path / "back again"
    assert run("export", "--to", "peft", german, "--base", base, "-o", out) == 0
    capsys.readouterr()
    assert run("import", out, "--base", base, "-o", back) == 0
    assert "holds the peft adapter as 'lora': 1,664 parameters" in capsys.readouterr().out
    clip = signal(16000)
    assert torch.equal(encoded(base, back, clip), encoded(base, german, clip))


def test_an_adapter_of_another_base_is_refused_and_nothing_is_written(
    german: Path,
    tiny_folder: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tiny_folder("w2v_bert")
    for words in (["merge"], ["export", "--to", "peft"]):
        assert run(*words, german, "--base", other, "-o", tmp_path / "out") == 1
        assert "was trained on whisper (whisper)" in capsys.readouterr().err
    assert run("verify", german, "--base", other) == 1
    assert not list(tmp_path.iterdir())


def test_a_base_nobody_has_is_named_with_near_misses(
    german: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", german, "--base", "mini-usmm") == command_line.EXIT_USAGE
    assert "Did you mean mini-usm" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("merge",), ("export", "--to", "peft"), ("import",)])
def test_nothing_is_written_over(
    words: tuple[str, ...],
    german: Path,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(*words, german, "--base", base, "-o", tmp_path) == command_line.EXIT_USAGE
    assert "is there already and not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_damaged_adapter_is_refused(
    german: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = shutil.copytree(german, tmp_path / "damaged")
    weights = (damaged / store.WEIGHTS).read_bytes()
    (damaged / store.WEIGHTS).write_bytes(weights[: len(weights) // 2])
    assert run("show", damaged) == 1
    assert run("verify", damaged, "--base", base) == 1
    assert "damaged or cut short" in capsys.readouterr().err
    assert run("show", tmp_path / "nothing") == 1


def test_import_of_what_no_tool_wrote_is_refused(
    german: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("import", german, "--base", base, "-o", out) == 1
    assert "is an adapter of this package" in capsys.readouterr().err
    assert run("import", german, "--from", "peft", "--base", base, "-o", out) == 1
    assert "peft_type is None" in capsys.readouterr().err
    assert run("import", german, "--from", "other", "--base", base, "-o", out) == 2
    assert not out.exists()


def test_a_pickle_and_half_an_adapter_are_taken_only_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = DATA / "adapterhub"
    encoder = write_hub_base(hub, tmp_path / "base")
    words = ("import", hub / "normed", "--base", encoder, "-o", tmp_path / "out")
    assert run(*words) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert run(*words, "--allow-pickle") == 1
    assert "--encoder-only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(*words, "--allow-pickle", "--encoder-only") == 0
    printed = capsys.readouterr().out
    assert "holds the adapterhub adapter as 'pfeiffer'" in printed
    assert "left out, being outside the encoder: 1 modules" in printed


def test_a_head_comes_along_and_leaves_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = DATA / "peft" / "ast_4_57" / "base"
    ours, again = tmp_path / "ours", tmp_path / "again"
    assert run("import", base.parent / "adapter", "--base", base, "-o", ours) == 0
    assert "a head came along" in capsys.readouterr().out
    assert run("export", "--to", "peft", ours, "--base", base, "-o", again) == 0
    names = set(load_file(again / "adapter_model.safetensors"))
    assert any(name.endswith("classifier.dense.weight") for name in names)


def test_ctranslate2_gets_the_merged_model_and_its_tokens_are_compared(
    german: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[torch.Tensor] = []

    def convert(folder: Path, output: Path, quantisation: str | None) -> Path:
        seen.append(load_file(folder / "model.safetensors")[Q_WEIGHT])
        assert quantisation == "int8"
        output.mkdir()
        return output

    equal = [2, 1]
    monkeypatch.setattr(ctranslate2, "export", convert)
    monkeypatch.setattr(ctranslate2_check, "count_equal", lambda *words: equal.pop(0))
    words = ("export", "--to", "ctranslate2", german, "--base", base, "--quantisation", "int8")
    assert run(*words, "-o", tmp_path / "first") == 0
    assert "same tokens on 2 of 2 clips" in capsys.readouterr().out
    assert run(*words, "-o", tmp_path / "second") == 3
    stored = load_file(base / "model.safetensors")[Q_WEIGHT]
    assert not torch.equal(seen[0], stored)


def write_hub_base(hub: Path, folder: Path) -> Path:
    """Write the model that the stored AdapterHub folders were made for."""
    model = WhisperModel(WhisperConfig(**json.loads((hub / "config.json").read_text())))
    model.encoder.load_state_dict(load_file(hub / "base.safetensors"))
    model.save_pretrained(folder)
    WhisperFeatureExtractor(
        feature_size=model.config.num_mel_bins,
        chunk_length=model.config.max_source_positions // 50,
    ).save_pretrained(folder)
    return folder


def test_new_writes_a_method_once_and_says_how_to_offer_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "own_methods"
    assert run("new", "tiny_gate", "-o", package) == 0
    text = (package / "tiny_gate.py").read_text()
    assert "class TinyGateAdapter(Adapter):" in text
    assert 'tiny_gate = "own_methods.tiny_gate"' in capsys.readouterr().out
    assert run("new", "tiny_gate", "-o", package) == command_line.EXIT_USAGE
    assert run("new", "Tiny", "-o", package) == command_line.EXIT_USAGE
    assert run("new", "lora", "-o", package) == command_line.EXIT_USAGE
    assert [path.name for path in package.iterdir()] == ["tiny_gate.py"]
