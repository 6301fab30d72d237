from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.encoders.catalog import (
    families,
    family_module,
    family_of,
    load_encoder,
    locate,
)
from speechadapt.encoders.source import fingerprint_folder


def test_every_module_with_a_model_type_is_a_family():
    assert dict(families()) == {
        "ast": "audio-spectrogram-transformer",
        "w2v_bert": "wav2vec2-bert",
        "whisper": "whisper",
    }


def test_listing_families_loads_neither_torch_nor_transformers():
    code = (
        "import sys; from speechadapt.encoders.catalog import families; assert families(); "
        "print([name for name in ('torch', 'transformers', 'torchaudio') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("family", list(families()))
def test_a_folders_config_tells_its_family(family, tiny_folder):
    assert family_of(tiny_folder(family)) == family
    assert load_encoder(tiny_folder(family)).family == family


def test_an_unknown_family_names_near_misses():
    with pytest.raises(CatalogError, match=r"no encoder family is called 'wisper'.*whisper"):
        family_module("wisper")


def test_a_model_type_nobody_loads_names_those_on_offer(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    with pytest.raises(CatalogError, match=r"type 'wav2vec2'.*wav2vec2-bert"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_an_unusable_config_is_an_error(text, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is missing or names no model_type"):
        load_encoder(tmp_path)


def test_a_missing_folder_names_its_neighbours(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder("ast"), tmp_path / "mini-ast")
    with pytest.raises(CatalogError, match=r"there is no model folder.*Did you mean mini-ast"):
        load_encoder(tmp_path / "mini-asd")


def test_a_folder_wins_over_a_hub_id_of_the_same_name(tiny_folder, tmp_path, monkeypatch):
    shutil.copytree(tiny_folder("ast"), tmp_path / "owner" / "model")
    monkeypatch.chdir(tmp_path)
    assert locate("owner/model")[1] == "local"


def test_a_revision_of_a_folder_is_refused(tiny_folder):
    with pytest.raises(ConfigError, match="revision 'v1' was asked of the local folder"):
        load_encoder(tiny_folder("ast"), revision="v1")


def test_offline_and_not_cached_says_where_it_looked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CatalogError, match=r"'owner/absent' is neither .*local hub cache"):
        load_encoder("owner/absent", offline=True)


def test_a_hub_model_is_fetched_at_its_revision_and_reports_the_commit(
    tiny_folder, tmp_path, monkeypatch
):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = shutil.copytree(tiny_folder("w2v_bert"), tmp_path / "snapshots" / commit)
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    encoder = load_encoder("owner/model", revision="v2", offline=True)
    assert (asked["name"], asked["revision"], asked["local_files_only"]) == (
        "owner/model",
        "v2",
        True,
    )
    assert not any(pattern.endswith((".bin", ".pt")) for pattern in asked["allow_patterns"])
    assert encoder.source.name == "owner/model"
    assert encoder.source.revision == commit
    assert encoder.source.fingerprint == fingerprint_folder(snapshot)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"padding": "natif"}, "encoder.padding 'natif'"), ({"dtype": "float"}, "encoder.dtype")],
)
def test_unknown_options_are_refused_before_anything_is_read(options, text):
    with pytest.raises(ConfigError, match=text):
        load_encoder("/nowhere/at/all", **options)


def test_precision_and_freezing_are_applied(tiny_folder):
    encoder = load_encoder(tiny_folder("whisper"), dtype="float16", padding="native")
    assert encoder.padding == "native"
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float16}
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
