from __future__ import annotations

import json
import shutil

import pytest
import torch

from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.models import build
from speechadapt.models.build import default_model, find_model, load


@pytest.fixture
def shelf(tmp_path, monkeypatch, ctc_folder):
    """A folder of bundled models that holds one."""
    shutil.copytree(ctc_folder, tmp_path / "mini-toy")
    monkeypatch.setattr(build, "_PRETRAINED", tmp_path)
    return tmp_path


def test_a_bundled_model_is_found_by_name_and_is_the_default(shelf):
    assert find_model("mini-toy") == shelf / "mini-toy"
    assert default_model() == "mini-toy"
    assert find_model() == shelf / "mini-toy"


def test_default_txt_names_the_default(shelf, whisper_folder):
    shutil.copytree(whisper_folder, shelf / "a-whisper")
    assert default_model() == "a-whisper"
    (shelf / "default.txt").write_text("mini-toy\n")
    assert default_model() == "mini-toy"


def test_an_unknown_name_names_its_near_misses(shelf):
    with pytest.raises(CatalogError, match=r"'mini-tyo'\. Did you mean mini-toy\?"):
        load("mini-tyo")


def test_a_bundled_model_has_no_revision(shelf):
    with pytest.raises(ConfigError, match="revision 'main' was asked of 'mini-toy'"):
        find_model("mini-toy", revision="main")


def test_without_bundled_models_a_name_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_PRETRAINED", tmp_path)
    with pytest.raises(CatalogError, match="no model came with the package"):
        load()


def test_a_hub_id_that_is_not_here_is_refused_offline():
    with pytest.raises(CatalogError, match="nobody/such-a-model"):
        load("nobody/such-a-model", offline=True)


def test_half_precision_weights_compute_in_float32(ctc_folder):
    recogniser = load(ctc_folder)
    assert recogniser.decoder.name == "ctc"
    parameters = [*recogniser.encoder.parameters(), *recogniser.decoder.parameters()]
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert recogniser.encoder.frame_rate == 25.0


def test_the_architecture_picks_the_decoder_and_options_reach_it(whisper_folder):
    recogniser = load(whisper_folder, padding="native", language="de", beam_size=2)
    assert recogniser.decoder.name == "whisper_ar"
    assert recogniser.decoder.options.padding == recogniser.encoder.padding == "native"
    assert recogniser.decoder.options.beam_size == 2


def test_a_decoder_the_architecture_does_not_have_is_refused(ctc_folder):
    with pytest.raises(ConfigError, match=r"'whisper_ar' was asked of tiny-ctc"):
        load(ctc_folder, decoder="whisper_ar")
    with pytest.raises(CatalogError, match=r"no decoder 'ctx'\. Did you mean ctc"):
        load(ctc_folder, decoder="ctx")


def test_an_unknown_option_is_refused(ctc_folder):
    with pytest.raises(ConfigError, match="ctc has no option 'patience'"):
        load(ctc_folder, patience=2)
    with pytest.raises(ConfigError, match="ctc has no option 'padding'"):
        load(ctc_folder, padding="native")


def test_the_cards_one_language_is_the_models(tmp_path, ctc_folder):
    folder = shutil.copytree(ctc_folder, tmp_path / "spoken")
    card = {
        "name": "spoken",
        "summary": "A toy.",
        "encoder": "w2v_bert",
        "parameters": 1,
        "licence": "CC0",
        "languages": ["en"],
    }
    (folder / "card.json").write_text(json.dumps(card))
    assert load(folder, language="en").language == "en"
    with pytest.raises(ConfigError, match="language 'de' was asked of a model whose card"):
        load(folder, language="de")


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold an object"):
        load(tmp_path)


def test_loading_says_nothing(ctc_folder, capfd):
    load(ctc_folder)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
