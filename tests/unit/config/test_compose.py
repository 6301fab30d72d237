from __future__ import annotations

import re
from pathlib import Path

import pytest

from speechadapt.config.compose import compose, compose_values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a user's folder, with an odd name, that holds recipes and groups."""
    base = tmp_path / "it's = [mine], $o"
    files = {
        "recipes/mine/plain": "task: ctc\ntrainer: {steps: 7, seed: 1}\ndata: {train: [a]}\n"
        "batch: {weights: {a: 1, b: 2}}\n",
        "recipes/mine/heir": "defaults: [/recipes/mine/plain@_global_, _self_]\n"
        "trainer: {seed: 2}\n",
        "recipes/mine/broken": "task: [\n",
        "recipes/mine/lost": "defaults: [/trainer: nowhere]\ntask: ctc\n",
        "trainer/short": "steps: 3\n",
        "augment/strong": "noise_prob: 0.9\n",
        "data/elsewhere": "root: /elsewhere\ntrain: [x]\n",
    }
    for name, text in files.items():
        path = base / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return base


def test_single_keys_win_over_groups_and_groups_over_the_recipe(folder: Path) -> None:
    words = ["recipe=mine/plain", "trainer=short", "trainer.log_every=4", "+init=x"]
    composed = compose(words, [folder])
    assert composed.problems == []
    assert composed.recipe == "mine/plain"
    assert composed.values["trainer"] == {"steps": 3, "seed": 1, "log_every": 4}
    assert composed.values["init"] == "x"
    assert compose([*words, "trainer.steps=5"], [folder]).values["trainer"]["steps"] == 5


def test_the_recipe_wins_over_the_data_group(folder: Path) -> None:
    values = compose(["recipe=mine/plain", "data=elsewhere"], [folder]).values
    assert values["data"] == {"root": "/elsewhere", "train": ["a"]}


def test_the_data_root_comes_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHADAPT_DATA", "/somewhere")
    assert compose(["recipe=mine/plain"], [folder]).values["data"]["root"] == "/somewhere"
    monkeypatch.delenv("SPEECHADAPT_DATA")
    assert compose(["recipe=mine/plain"], [folder]).values["data"]["root"] == ""


def test_a_recipe_can_start_from_another(folder: Path) -> None:
    values = compose(["recipe=mine/heir"], [folder]).values
    assert values["task"] == "ctc"
    assert values["trainer"] == {"steps": 7, "seed": 2}


def test_a_users_own_group_needs_no_plus(folder: Path) -> None:
    composed = compose(["recipe=mine/plain", "augment=strong"], [folder])
    assert composed.problems == []
    assert composed.values["augment"] == {"noise_prob": 0.9}


def test_lists_maps_and_deletions_are_understood(folder: Path) -> None:
    words = ["data.train=[b,c]", "batch.weights.b=3", "~batch.weights.a", "trainer={steps: 9}"]
    composed = compose(["recipe=mine/plain", *words], [folder])
    assert composed.problems == []
    assert composed.values["data"]["train"] == ["b", "c"]
    assert composed.values["batch"]["weights"] == {"b": 3}
    assert composed.values["trainer"] == {"steps": 9, "seed": 1}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["recipe=mine/plane"], r"there is no recipe 'mine/plane'\. Did you mean mine/plain"),
        ([], r"no recipe was given; name one: recipe=.*mine/heir\|.*mine/plain"),
        (["recipe=mine/plain", "recipe=mine/heir"], "more than one recipe was given"),
        (
            ["recipe=mine/broken"],
            r"recipe 'mine/broken' .* is not YAML: in .*broken\.yaml\", line 2",
        ),
        (["recipe=mine/lost"], "recipe 'mine/lost' cannot be composed: .*nowhere"),
        (["recipe=mine/plain", "trainer=shirt"], "'trainer' has no option 'shirt'.*short"),
        (["recipe=mine/plain", "a b"], "'a b' is not key=value"),
        (["recipe=mine/plain", "trainer.seed=1,2"], "gives several values"),
        (["recipe=mine/plain", "~trainer.sed"], "'~trainer.sed' cannot be applied"),
        (["recipe=mine/plain", "init=${nobody}"], "a value cannot be resolved"),
    ],
)
def test_a_wrong_word_is_named(folder: Path, words: list[str], problem: str) -> None:
    problems = compose(words, [folder]).problems
    assert len(problems) == 1
    assert re.search(problem, problems[0]), problems[0]


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    problems = compose(["recipe=pretrain/best_rq"], [tmp_path / "no"]).problems
    assert problems == [f"--config-dir '{tmp_path / 'no'}' is no folder."]


def test_single_keys_compose_without_a_recipe() -> None:
    found = compose_values(["trainer.steps=5", "adapter={rank: 2}", "roles=[attn.q]", "nonsense"])
    assert found.values == {"trainer": {"steps": 5}, "adapter": {"rank": 2}, "roles": ["attn.q"]}
    (problem,) = found.problems
    assert "'nonsense' is not key=value" in problem
