"""From `recipe=... group=option key=value` to one plain tree of values, by Hydra's compose API.

Order of precedence, the last wins: the group `data`, the recipe, the other groups (`trainer`,
`machine`, the user's own) as they are given, single keys. Nothing is known here about which keys
exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from speechadapt.config.shipped import (
    RECIPES,
    group_options,
    recipe_names,
    recipe_parents,
    shipped_folder,
)
from speechadapt.core.errors import near_misses

# An omegaconf DictConfig; its generic base cannot be checked while the tests run.
_Tree: TypeAlias = Any

# The group that is below the recipe, and its option where none is chosen.
_BASE_GROUP, _BASE_OPTION = "data", "pack"


@dataclass
class Composition:
    """What the words of a command line add up to.

    Args:
        recipe: The recipe's name; empty where none (that exists) was given.
        values: The tree of values.
        problems: Everything found wrong with the words.
    """

    recipe: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def compose(words: Sequence[str], folders: Sequence[Path] = ()) -> Composition:
    """Compose a recipe, groups and single keys.

    Args:
        words: `recipe=<task>/<name>`, `group=option`, `key=value`, `~key`, in Hydra's grammar.
        folders: The user's folders with recipes and groups; they go before the shipped ones.

    Returns:
        The composition. Where the recipe is missing there are no values.
    """
    result = Composition()
    for folder in folders:
        if not folder.is_dir():
            result.problems.append(f"--config-dir '{folder}' is no folder.")
    folders = [folder for folder in folders if folder.is_dir()]
    overrides = _parse(words, result)
    options = group_options(folders)
    recipes = [item for item in overrides if item.key_or_group == "recipe"]
    groups = [item for item in overrides if item.key_or_group in options and not item.is_delete()]
    # A value such as data={...} or data.train=[...] is no choice of an option.
    groups = [item for item in groups if isinstance(item.value(), str)]
    singles = [item for item in overrides if item not in recipes and item not in groups]
    result.recipe = _choose_recipe(recipes, folders, result)
    chosen = dict(_choose_option(item, options, result) for item in groups)
    if result.recipe:
        config = _compose(result.recipe, chosen, folders, result)
        for item in singles:
            _apply(config, item, result)
        result.values = _plain(config, result)
    return result


def compose_values(words: Sequence[str]) -> Composition:
    """Compose single keys alone, without recipe and groups.

    Args:
        words: `key=value`, in Hydra's grammar.

    Returns:
        The composition: values by key, and what is wrong with the words.
    """
    result = Composition()
    config = OmegaConf.create()
    for item in _parse(words, result):
        _apply(config, item, result)
    result.values = _plain(config, result)
    return result


def _parse(words: Sequence[str], result: Composition) -> list[Override]:
    parser = OverridesParser.create()
    parsed: list[Override] = []
    for word in words:
        try:
            item = parser.parse_override(word)
        except HydraException as error:
            result.problems.append(f"'{word}' is not key=value: {_first_line(error)}.")
            continue
        if item.is_sweep_override():
            result.problems.append(f"'{word}' gives several values; a run takes one.")
        else:
            parsed.append(item)
    return parsed


def _choose_recipe(given: Sequence[Override], folders: Sequence[Path], result: Composition) -> str:
    names = recipe_names(folders)
    if len(given) != 1:
        asked = "no recipe was given" if not given else "more than one recipe was given"
        result.problems.append(f"{asked}; name one: recipe={'|'.join(names)}.")
        return ""
    name = str(given[0].value())
    if name not in names:
        result.problems.append(f"there is no recipe '{name}'.{near_misses(name, names)}")
        return ""
    return name


def _choose_option(
    item: Override, options: dict[str, list[str]], result: Composition
) -> tuple[str, str]:
    group, name = item.key_or_group, str(item.value())
    if name in options[group]:
        return group, name
    near = near_misses(name, options[group])
    result.problems.append(f"group '{group}' has no option '{name}'.{near}")
    return group, ""


def _compose(
    recipe: str, chosen: Mapping[str, str], folders: Sequence[Path], result: Composition
) -> _Tree:
    first, *others = [folder.resolve() for folder in (*folders, shipped_folder("conf"))]
    parents = [*others, *(folder.resolve() for folder in recipe_parents(folders))]
    path = ",".join(_quoted(f"file://{folder}") for folder in parents if folder != first)
    base = chosen.get(_BASE_GROUP) or _BASE_OPTION
    above = [f"+{group}={name}" for group, name in chosen.items() if name and group != _BASE_GROUP]
    words = [
        f"hydra.searchpath=[{path}]",
        f"+{_BASE_GROUP}={base}",
        f"+{RECIPES}@_global_={recipe}",
        *above,
    ]
    try:
        with initialize_config_dir(str(first), job_name="train", version_base="1.3"):
            config = hydra_compose(overrides=words)
    except yaml.YAMLError as error:
        where = str(error).strip().splitlines()[-1].strip()
        result.problems.append(f"recipe '{recipe}' or a group is not YAML: {where}.")
        return OmegaConf.create()
    except (HydraException, OmegaConfBaseException) as error:
        result.problems.append(f"recipe '{recipe}' cannot be composed: {_first_line(error)}.")
        return OmegaConf.create()
    OmegaConf.set_struct(config, False)
    return config


def _apply(config: _Tree, item: Override, result: Composition) -> None:
    key = item.get_key_element().lstrip("+~")
    try:
        if item.is_delete():
            parent, _, name = key.rpartition(".")
            del (OmegaConf.select(config, parent) if parent else config)[name]
        else:
            OmegaConf.update(config, key, item.value(), merge=True, force_add=True)
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        result.problems.append(f"'{item.input_line}' cannot be applied: {_first_line(error)}.")


def _plain(config: _Tree, result: Composition) -> dict[str, Any]:
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        result.problems.append(f"a value cannot be resolved: {_first_line(error)}.")
        values = OmegaConf.to_container(config)
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip().rstrip(".")
