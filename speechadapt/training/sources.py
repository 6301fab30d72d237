"""Model folders a run starts from or learns from, as its settings name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_WEIGHTS = "model.safetensors"


def missing_models(folders: Mapping[str, str]) -> list[str]:
    """Say which settings name a folder that holds no model.

    Args:
        folders: Folder by setting; an empty one asks for none.
    """
    return [
        f"{setting} '{folder}' holds no {_WEIGHTS}; give the folder of a trained model, such as "
        f"the `best` of a run, or {setting}= for none."
        for setting, folder in folders.items()
        if folder and not (Path(folder) / _WEIGHTS).is_file()
    ]


def weight_files(folders: Mapping[str, str]) -> dict[str, Path]:
    """Return the weight files behind settings that name model folders, for a run's record.

    Args:
        folders: Folder by setting; an empty one asks for none.
    """
    return {
        f"{setting}/{_WEIGHTS}": Path(folder) / _WEIGHTS
        for setting, folder in folders.items()
        if folder
    }
