"""Models a run starts from or learns from, as its settings name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from speechadapt.models.card import bundled_models

_WEIGHTS = "model.safetensors"


def model_folder(name: str) -> Path:
    """Return the folder of a model that a setting names.

    Args:
        name: A bundled model or a folder, such as the `best` of a run.
    """
    return bundled_models().get(name, Path(name))


def missing_models(names: Mapping[str, str]) -> list[str]:
    """Say which settings name no model that is here.

    Args:
        names: Bundled model or folder by setting; an empty one asks for none.
    """
    return [
        f"{setting} '{name}' holds no {_WEIGHTS}; give the folder of a trained model, such as "
        f"the `best` of a run, a bundled model ({', '.join(bundled_models())}), or {setting}= for "
        "none."
        for setting, name in names.items()
        if name and not (model_folder(name) / _WEIGHTS).is_file()
    ]


def weight_files(names: Mapping[str, str]) -> dict[str, Path]:
    """Return the weight files behind settings that name models, for a run's record.

    Args:
        names: Bundled model or folder by setting; an empty one asks for none.
    """
    return {
        f"{setting}/{_WEIGHTS}": model_folder(name) / _WEIGHTS
        for setting, name in names.items()
        if name
    }
