"""A restorer's folder: whole in itself, the same restorer again, nothing that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

import speechadapt
from speechadapt.adapters.handle import base_of
from speechadapt.core.errors import CatalogError, CheckpointError
from speechadapt.core.files import atomic_write_json, read_json
from speechadapt.encoders.tiny import write_tiny
from speechadapt.models import restorer_folder
from speechadapt.models.build import find_model
from speechadapt.models.restorer import Restorer
from speechadapt.models.restorer_folder import assemble, find_restorer, load_restorer
from speechadapt.restoration.cleaner import make_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.front import FrontConfig
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.vocoder import Speech
from speechadapt.restoration.vocoder_folder import make_vocoder, save_vocoder

NOISE = (0.1 * np.random.default_rng(0).standard_normal(9000)).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory) -> tuple[Path, Path, Path, Restorer]:
    """Write a cleaner and a vocoder; also give them joined in memory."""
    base, root = tiny_folder("w2v_bert"), tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    cleaner = make_cleaner(load_cut(base, 1), config={"bottleneck": 4})
    for parameter in cleaner.handle.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    encoder = cleaner.encoder
    speech = Speech(encoder.dim, encoder.frame_rate, 16000)
    vocoder = make_vocoder(speech, IstftConfig(width=8, layers=1)).eval()
    cleaner.save(root / "c", {"steps": 3}, {"loss": 0.5})
    save_vocoder(vocoder, root / "v", {"base": base_of(encoder), "layer": 1})
    return base, root / "c", root / "v", Restorer(cleaner, vocoder)


def test_a_folder_gives_the_same_restorer_without_its_base(trained, tmp_path: Path) -> None:
    base, cleaner, vocoder, joined = trained
    folder = assemble(cleaner, vocoder, tmp_path / "r", base=base)
    loaded = load_restorer(folder)
    wanted = joined.restore(NOISE, 16000)
    assert np.array_equal(loaded.restore(NOISE, 16000), wanted)
    assert len(loaded.cleaner.encoder.model.encoder.layers) == 1
    assert loaded.cleaner.handle.notes["training"] == {"steps": 3}
    assemble(cleaner, vocoder, folder, base=base)
    assert np.array_equal(load_restorer(folder).restore(NOISE, 16000), wanted)


def test_a_folder_without_the_encoder_reads_a_bundled_base(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "mini-usm"
    cleaner = make_cleaner(load_cut(find_model(name), 1, name=name), config={"bottleneck": 4})
    encoder = cleaner.encoder
    vocoder = make_vocoder(
        Speech(encoder.dim, encoder.frame_rate, 16000), IstftConfig(width=8, layers=1)
    )
    cleaner.save(tmp_path / "c")
    save_vocoder(vocoder, tmp_path / "v", {"base": base_of(encoder), "layer": 1})
    parts = tmp_path / "c", tmp_path / "v"
    whole = assemble(*parts, tmp_path / "whole")
    thin = assemble(*parts, tmp_path / "thin", keeps_encoder=False)
    assert not (thin / "encoder").exists()
    found, wanted = load_restorer(thin), load_restorer(whole)
    assert np.array_equal(found.restore(NOISE, 16000), wanted.restore(NOISE, 16000))
    assert found.fingerprint() == wanted.fingerprint()
    base, local_cleaner, local_vocoder, _ = trained
    asked: list[str] = []

    def other(name: str) -> Path:
        asked.append(name)
        return base

    config = read_json(thin / "config.json")
    config["base"]["name"] = "owner/name"
    atomic_write_json(thin / "config.json", config)
    monkeypatch.setattr(restorer_folder, "find_model", other)
    with pytest.raises(CheckpointError, match="was trained on"):
        load_restorer(thin)
    assert asked == ["owner/name"]
    monkeypatch.undo()
    with pytest.raises(CatalogError, match="no bundled model or folder"):
        assemble(local_cleaner, local_vocoder, tmp_path / "x", base=base, keeps_encoder=False)


def test_a_front_is_part_of_the_folder_and_of_the_fingerprint(trained, tmp_path: Path) -> None:
    base, _, vocoder, plain = trained
    torch.manual_seed(1)
    front = FrontConfig("convolution", width=8, layers=1, kernel=3)
    cleaner = make_cleaner(load_cut(base, 1), config={"bottleneck": 4}, front=front)
    for parameter in cleaner.trained.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    cleaner.save(tmp_path / "c")
    joined = Restorer(cleaner, plain.vocoder)
    loaded = load_restorer(assemble(tmp_path / "c", vocoder, tmp_path / "r", base=base))
    assert np.array_equal(loaded.restore(NOISE, 16000), joined.restore(NOISE, 16000))
    weights = joined.fingerprint()["weights"]
    assert loaded.fingerprint()["weights"] == weights
    assert set(weights) - set(plain.fingerprint()["weights"]) == {"front"}
    half = load_restorer(assemble(tmp_path / "c", vocoder, tmp_path / "h", base=base, half=True))
    assert np.abs(half.restore(NOISE, 16000) - joined.restore(NOISE, 16000)).mean() < 0.02
    assert half.fingerprint()["weights"]["front"] != weights["front"]


def test_half_precision_is_near_and_is_all_there_is(trained, tmp_path: Path) -> None:
    base, cleaner, vocoder, joined = trained
    folder = assemble(cleaner, vocoder, tmp_path / "r", base=base, half=True)
    kinds = set()
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="numpy") as tensors:
            kinds |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}
    assert kinds == {"F16"}
    found = load_restorer(folder).restore(NOISE, 16000)
    wanted = joined.restore(NOISE, 16000)
    assert float(np.abs(found - wanted).mean()) < 0.05 * float(np.abs(wanted).mean())


def test_parts_that_do_not_fit_are_refused(trained, tiny_folder, tmp_path: Path) -> None:
    base, cleaner, _, joined = trained
    facts = {"base": base_of(joined.cleaner.encoder), "layer": 2}
    save_vocoder(joined.vocoder, tmp_path / "v", facts)
    with pytest.raises(CheckpointError, match="the vocoder reads layer 2"):
        assemble(cleaner, tmp_path / "v", tmp_path / "r", base=base)
    other = write_tiny("w2v_bert", tmp_path / "other", seed=3)
    with pytest.raises(CheckpointError, match="was trained on"):
        assemble(cleaner, trained[2], tmp_path / "r", base=other)
    with pytest.raises(CheckpointError, match="was to be read as a restorer"):
        load_restorer(cleaner)
    with pytest.raises(CheckpointError, match="says format None"):
        load_restorer(base)


def test_the_bundled_one_loads_by_its_name_and_is_no_recogniser(
    trained, tmp_path: Path, monkeypatch
) -> None:
    base, cleaner, vocoder, joined = trained
    folder = assemble(cleaner, vocoder, tmp_path / "mini-restorer", base=base)
    bundled = {"mini-restorer": folder}
    monkeypatch.setattr("speechadapt.models.restorer_folder.bundled_models", lambda: bundled)
    soundfile.write(tmp_path / "x.flac", NOISE, 16000)
    restored = speechadapt.load("mini-restorer").restore(tmp_path / "x.flac")
    samples, _ = soundfile.read(tmp_path / "x.flac", dtype="float32")
    np.testing.assert_array_equal(restored.waveforms[0], joined.restore(samples, 16000))
    with pytest.raises(CatalogError, match="'mini-restorer' is a restorer"):
        speechadapt.load(folder)


def test_a_restorer_is_a_bundled_name_or_a_folder(tmp_path: Path, monkeypatch) -> None:
    assert find_restorer(tmp_path) == tmp_path
    with pytest.raises(CatalogError, match="no restorer's folder 'nowhere'"):
        find_restorer("nowhere")
    monkeypatch.setattr("speechadapt.models.restorer_folder.bundled_models", dict)
    with pytest.raises(CatalogError, match="'mini-restorer' did not come with this release"):
        find_restorer()
    bundled = {"mini-restorer": tmp_path}
    monkeypatch.setattr("speechadapt.models.restorer_folder.bundled_models", lambda: bundled)
    assert find_restorer() == find_restorer("mini-restorer") == tmp_path
