"""Every recipe composes, is described, and makes two steps on made tones with a tiny model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from speechadapt.adapters.attach import attach
from speechadapt.adapters.catalog import method
from speechadapt.adapters.composite_store import CONFIG, WEIGHTS
from speechadapt.adapters.store import save
from speechadapt.config.resolve import resolve
from speechadapt.config.shipped import recipe_names, shipped_folder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.models.card import bundled_models
from speechadapt.text import alphabet
from speechadapt.training.catalog import task_names
from speechadapt.training.conformer import ConformerConfig, new_extractor, new_model, save_model
from speechadapt.training.loop import train
from tests import synthetic
from tests.tiny_tasks import TINY, base_folder, base_words, diffusion_folder, short

RECIPES = recipe_names()
FOLDER = shipped_folder("recipes")
# tasks that name an adapter method
ADAPTED = ("adapt", "conditioned", "microphones", "multitask", "classify", "clean")
TAUGHT = ("distil", "bridge")  # tasks that start from whole models and leave an adapter


@cache
def read(recipe: str) -> dict[str, object]:
    """Return a recipe's own lines, which nobody may change."""
    loaded: dict[str, object] = yaml.safe_load((FOLDER / f"{recipe}.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a made pack that holds every corpus a recipe names."""
    base = yaml.safe_load((shipped_folder("conf") / "data/pack.yaml").read_text())
    speech: set[str] = set()
    labelled: set[str] = set()
    sounds, rooms = set(base["noise"]), set(base["responses"])
    for recipe in RECIPES:
        data = read(recipe)["data"]
        assert isinstance(data, dict)
        if read(recipe)["task"] == "classify":
            labelled |= set(data["train"])
            continue
        speech |= {*data["train"], *data["dev"]}
        sounds |= set(data.get("noise", ()))
        rooms |= set(data.get("responses", ()))
    conditioned = [read(one)["data"] for one in RECIPES if read(one)["task"] == "conditioned"]
    people = {name for data in conditioned for name in data["dev"]}  # who speak more than once
    root = tmp_path_factory.mktemp("made") / "pack"
    synthetic.write_pack(root, sorted(speech - sounds), sorted(sounds - labelled), sorted(rooms))
    synthetic.write_pack(root, sorted(people), dev=4)
    for name in labelled:
        synthetic.write_labelled(root, name, classes=4, clips=6, folds=4)
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random model, for recipes that start from one."""
    folder = tmp_path_factory.mktemp("start")
    shape = ConformerConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3)
    symbols = alphabet.english()
    save_model(new_model(shape, symbols), new_extractor(shape), symbols, folder)
    return folder


def small(recipe: str, pack: Path, start: Path) -> list[str]:
    """Return the words that run a recipe in the small."""
    lines = read(recipe)
    task = str(lines["task"])
    words = [f"recipe={recipe}", f"data.root={pack}", *TINY[task], *short(task)]
    if "method" in lines:
        tiny = asdict(method(str(lines["method"])).tiny) | _memory(lines)
        words += [f"adapter.{key}={_word(tiny[key])}" for key in tiny]
    if task in ADAPTED:
        family = {"classify": "ast", "clean": "w2v_bert"}.get(task)
        words.append(f"base={start if family is None else base_folder(start, family)}")
    if lines["task"] in (*TAUGHT, "vocoder"):
        words += base_words(start, str(lines["task"]))
    return [*words, *_models(lines, start)]


def _memory(lines: Mapping[str, object]) -> dict[str, object]:
    """Return what a recipe says about its adapter's memory, which follows from what is told."""
    adapter = lines.get("adapter")
    kept = adapter if isinstance(adapter, dict) else {}
    return {key: value for key, value in kept.items() if key == "memory"}


def _models(lines: Mapping[str, object], start: Path) -> list[str]:
    """Return the words that name a tiny Conformer where a recipe names a trained model."""
    # An encoder-decoder starts from one of its own kind, which is not at hand here.
    init = {"ctc": start, "diffusion": diffusion_folder(start.parent)}.get(str(lines["task"]), "")
    # A vocoder reads the features as they are where no trained cleaner is at hand.
    named = {"init": init, "teacher": start, "cleaner": "", "start": "", "head": ""}
    heard = [f"encoder={start}"] if lines["task"] == "diffusion" else []
    if "parts" in lines and lines.get("learns") != "joint":
        two = list(lines["parts"])[:2]  # type: ignore[call-overload]
        folders = ",".join(f"{name}:{_part(start, name)}" for name in two)
        heard += ["~parts", f"parts={{{folders}}}", f"tasks=[{','.join(two)}]"]
    return [*(f"{key}={value}" for key, value in named.items() if key in lines), *heard]


def _part(start: Path, name: str) -> Path:
    """Return the folder of a tiny adapter of the tiny Conformer, for recipes that fuse some."""
    folder = start.parent / "parts" / name
    if not folder.is_dir():
        encoder = load_encoder(start)
        save(attach(encoder, "parallel", config=method("parallel").tiny), folder)
    return folder


def _word(value: object) -> object:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_word(one)}' for key, one in value.items())}}}"
    return "null" if value is None else value


def files_of(recipe: str) -> tuple[str, str]:
    """Return what a recipe's run leaves."""
    lines = read(recipe)
    if "parts" in lines:
        return CONFIG, WEIGHTS
    whole = lines.get("arm") == "full"
    adapted = lines["task"] in (*ADAPTED, *TAUGHT) and not whole
    prefix = "adapter_" if adapted else ""
    return f"{prefix}config.json", f"{prefix}model.safetensors"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_makes_two_steps_and_saves_a_model(
    recipe: str, pack: Path, start: Path, tmp_path: Path
) -> None:
    run = resolve(small(recipe, pack, start))
    torch.manual_seed(0)
    objective = run.module.build(run.config)
    assert objective.ids
    assert not any("-dev-" in name for name in objective.ids)
    assert {"train", "a micro-step"} <= set(objective.summary())
    result = train(objective, run.trainer, tmp_path)
    assert result.finished
    assert objective.score in result.scores
    for name in files_of(recipe):
        assert (tmp_path / "last" / name).is_file()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_states_only_its_differences(recipe: str, pack: Path, start: Path) -> None:
    words = _models(read(recipe), start)
    words += base_words(start, str(read(recipe)["task"]))
    run = resolve([f"recipe={recipe}", f"data.root={pack}", *words])
    defaults = asdict(run.module.Config())
    if "method" in read(recipe):
        defaults["adapter"] = asdict(method(run.config.method).config())
    if run.task == "bridge":
        defaults["adapter"] = asdict(method("pea_bridge").config())
    for group, values in read(recipe).items():
        if isinstance(values, dict):
            usual = defaults[group]
            same = [key for key, value in values.items() if _same(usual.get(key), value)]
            assert not same, f"{group}: {same} say what the defaults say"


def _same(default: object, value: object) -> bool:
    if isinstance(default, tuple) and isinstance(value, list):
        return bool(default) and list(default) == value
    return type(default) is type(value) and default == value


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_a_header_with_its_command(recipe: str) -> None:
    text = (FOLDER / f"{recipe}.yaml").read_text()
    header = text[: text.index("\ntask:")]
    assert re.search(rf"^# Command: speechadapt train recipe={recipe}( |$)", header, re.MULTILINE)
    assert re.search(r"^# Time: \S", header, re.MULTILINE)
    assert re.search(r"^# Expected: \S", header, re.MULTILINE)
    assert read(recipe)["task"] in task_names()


@pytest.mark.parametrize("recipe", [name for name in RECIPES if "init" in read(name)])
def test_a_stage_starts_from_a_bundled_model_or_another_recipe(recipe: str) -> None:
    start = str(read(recipe)["init"])
    if start in bundled_models():
        return
    runs, folder, _ = start.split("/")
    assert runs == "runs"
    assert folder in {name.replace("/", "-") for name in RECIPES}


@pytest.mark.parametrize("folder", sorted({name.split("/")[0] for name in RECIPES}))
def test_every_task_folder_has_a_readme_with_its_recipes(folder: str) -> None:
    text = (FOLDER / folder / "README.md").read_text()
    for recipe in RECIPES:
        if recipe.startswith(f"{folder}/"):
            assert f"speechadapt train recipe={recipe}" in text


def test_groups_are_short() -> None:
    for path in shipped_folder("conf").glob("*/*.yaml"):
        assert len(path.read_text().splitlines()) <= 25, path.name
