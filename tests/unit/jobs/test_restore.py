from __future__ import annotations

import pytest

from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.jobs.load import LOADER
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.restore import KIND, restore
from speechadapt.jobs.restore_options import RestoreOptions
from speechadapt.jobs.restore_scores import Judges
from speechadapt.jobs.restore_worker import RestoreModel
from speechadapt.models.restorer import Restorer
from speechadapt.models.restorer_tiny import write_tiny_restorer
from tests.e2e.fake_restorer import Halver


def test_an_output_folder_must_be_named():
    with pytest.raises(ConfigError, match="-o names the folder"):
        restore(RestoreOptions(inputs=("a.wav",)))


def test_a_recording_stands_alone_and_has_one_output():
    model = RestoreModel(Halver(RestoreOptions()), Judges())
    assert KIND.limits(RestoreOptions(), model).batch_size == 1
    item = PlanItem("a", "a", "a", "deep/a")
    assert KIND.outputs(RestoreOptions(suffix="-x", format="wav"), item) == ("deep/a-x.wav",)


def test_the_model_is_loaded_in_the_arithmetic_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv(LOADER, raising=False)
    folder = str(write_tiny_restorer(tmp_path / "r"))
    model = KIND.load(RestoreOptions(model=folder, device="cpu"), None)
    assert isinstance(model.restorer, Restorer)
    other = KIND.load(RestoreOptions(model=folder, device="cpu", dtype="bfloat16"), None)
    assert model.fingerprint() != other.fingerprint()
    assert model.fingerprint()["judges"] == {"dnsmos": False, "speaker": None, "words": None}


def test_a_judge_with_the_restorers_own_ears_is_refused(tmp_path, monkeypatch, tiny_recogniser):
    from speechadapt.core.files import atomic_write_json, read_json
    from speechadapt.encoders.source import fingerprint_folder

    monkeypatch.delenv(LOADER, raising=False)
    folder = write_tiny_restorer(tmp_path / "r")
    asked = {"model": str(folder), "device": "cpu", "judge": str(tiny_recogniser)}
    options = RestoreOptions(score=("words",), **asked)
    assert KIND.load(options, None).judges.words is not None
    facts = read_json(folder / "config.json")
    facts["base"]["files"] = fingerprint_folder(tiny_recogniser)
    atomic_write_json(folder / "config.json", facts)
    with pytest.raises(ConfigError, match="judge in its favour"):
        KIND.load(options, None)


def test_judges_that_are_not_there_are_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.delenv(LOADER, raising=False)
    folder = str(write_tiny_restorer(tmp_path / "r"))
    asked = {"model": folder, "device": "cpu", "offline": True}
    with pytest.raises(CatalogError, match="speaker model's folder 'nowhere'"):
        KIND.load(RestoreOptions(score=("speaker",), speaker_model="nowhere", **asked), None)
    with pytest.raises(CatalogError, match="nowhere"):
        KIND.load(RestoreOptions(score=("words",), judge="nowhere", **asked), None)
