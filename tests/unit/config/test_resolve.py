from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.config.resolve import resolve
from speechadapt.core.errors import ConfigError
from tests.tiny_tasks import write_recipe


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Words that run a tiny CTC recipe."""
    return write_recipe(tmp_path, "ctc", tmp_path / "pack")


def test_a_run_is_a_task_with_plain_dataclasses(words: list[str], tmp_path: Path) -> None:
    run = resolve([*words, "trainer.betas=[0.8,0.99]"], [tmp_path])
    assert (run.recipe, run.task, run.folder) == ("tiny/ctc", "ctc", Path("runs/tiny-ctc"))
    assert run.config == run.module.Config(**vars(run.config))
    assert run.config.data.train == ("tones", "chords")
    assert run.trainer.betas == (0.8, 0.99)
    assert run.settings()["batch"]["join_prob"] == 0.5
    assert set(run.sources()) == {
        f"manifests/{name}.jsonl" for name in ("tones", "chords", "hiss", "room")
    }


def test_the_folder_of_a_run_can_be_given(words: list[str], tmp_path: Path) -> None:
    assert resolve([*words, "run.folder=out/x"], [tmp_path]).folder == Path("out/x")


def test_everything_wrong_with_a_run_is_reported_at_once(words: list[str], tmp_path: Path) -> None:
    wrong = [
        "trainer.stepz=4",
        "trainer.learning_rate=fast",
        "trainer=debugg",
        "augment.speed=[1.2,0.8]",
        "augment.noise_prob=7",
        "batch.weights.tonnes=3",
        "data.dev=[tone]",
        "data.noise=[nothing]",
        "init=/nowhere",
        "colour=3",
        "run.foldr=x",
    ]
    with pytest.raises(ConfigError) as caught:
        resolve([*words, *wrong], [tmp_path])
    message = str(caught.value)
    assert message.startswith("11 problems with the settings:\n  - ")
    for part in (
        "there is no setting 'trainer.stepz'. Did you mean steps?",
        "trainer.learning_rate must be a number, got 'fast'.",
        "group 'trainer' has no option 'debugg'. Did you mean debug?",
        "augment.speed must go from the lower to the higher value, got [1.2, 0.8].",
        "augment.noise_prob must be between 0 and 1, got 7.",
        "batch.weights names 'tonnes', which is not in data.train. Did you mean tones?",
        "data.dev: no corpus 'tone' under data.root. Did you mean tones?",
        "data.noise: no corpus 'nothing' under data.root.",
        "init '/nowhere' holds no model.safetensors",
        "there is no setting 'colour'.",
        "there is no setting 'run.foldr'. Did you mean folder?",
    ):
        assert part in message


def test_a_missing_split_and_a_missing_root_are_said(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"data\.dev: corpus 'hiss' has no split 'dev'"):
        resolve([*words, "data.dev=[hiss]"], [tmp_path])
    with pytest.raises(ConfigError, match="has no folder 'manifests'"):
        resolve([*words, f"data.root={tmp_path}"], [tmp_path])
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"set data\.root=FOLDER or SPEECHADAPT_DATA=FOLDER"):
        resolve([*words, "data.root="], [tmp_path])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trainer: {steps: 3}\n", "names no task; give it a line 'task: ...'"),
        ("task: ctcc\n", r"there is no training task 'ctcc'\. Did you mean ctc"),
    ],
)
def test_a_recipe_without_a_known_task_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "recipes/mine/bad.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        resolve(["recipe=mine/bad"], [tmp_path])
