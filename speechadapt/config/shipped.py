"""Where recipes and configuration groups lie: shipped ones, then folders the user names.

In an installed package `conf` and `recipes` are inside it; in a checkout they stand beside it. A
user's folder is laid out alike: `recipes/<task>/<name>.yaml` and `<group>/<option>.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import speechadapt
from speechadapt.core.errors import ConfigError

RECIPES = "recipes"


def shipped_folder(name: str) -> Path:
    """Return the shipped folder `conf` or `recipes`.

    Raises:
        ConfigError: The installation lacks it.
    """
    package = Path(speechadapt.__file__).parent
    for parent in (package, package.parent):
        if (parent / name).is_dir():
            return parent / name
    raise ConfigError(f"the installation has no folder '{name}'; install speechadapt again.")


def recipe_parents(folders: Sequence[Path]) -> list[Path]:
    """Return the folders that may hold `recipes`, the user's first."""
    return [*folders, shipped_folder(RECIPES).parent]


def recipe_names(folders: Sequence[Path] = ()) -> list[str]:
    """List the recipes as `<task>/<name>`, sorted.

    Args:
        folders: The user's folders.
    """
    found = {
        path.relative_to(parent / RECIPES).with_suffix("").as_posix()
        for parent in recipe_parents(folders)
        for path in (parent / RECIPES).glob("*/*.yaml")
    }
    return sorted(found)


def group_options(folders: Sequence[Path] = ()) -> dict[str, list[str]]:
    """List the options of every configuration group, sorted.

    Args:
        folders: The user's folders; each sub-folder but `recipes` is a group.
    """
    options: dict[str, set[str]] = {}
    for parent in (*folders, shipped_folder("conf")):
        for path in parent.glob("*/*.yaml"):
            if path.parent.name != RECIPES:
                options.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(options.items())}
