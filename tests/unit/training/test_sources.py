from __future__ import annotations

from pathlib import Path

from speechadapt.models.card import bundled_models
from speechadapt.training.sources import missing_models, model_folder, weight_files


def test_a_folder_without_weights_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "model.safetensors").touch()
    folders = {"init": str(tmp_path / "whole"), "teacher": str(tmp_path), "other": ""}
    found = missing_models(folders)
    assert len(found) == 1
    assert found[0].startswith(f"teacher '{tmp_path}' holds no model.safetensors")


def test_weight_files_stand_under_their_settings(tmp_path: Path) -> None:
    files = weight_files({"init": str(tmp_path), "teacher": ""})
    assert files == {"init/model.safetensors": tmp_path / "model.safetensors"}


def test_a_setting_may_name_a_bundled_model(tmp_path: Path) -> None:
    name, folder = next(iter(bundled_models().items()))
    assert model_folder(name) == folder
    assert model_folder(str(tmp_path)) == tmp_path
    assert missing_models({"teacher": name}) == []
    assert weight_files({"teacher": name}) == {
        "teacher/model.safetensors": folder / "model.safetensors"
    }
