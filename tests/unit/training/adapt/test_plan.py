from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from speechadapt.core.bind import bind
from speechadapt.data.manifest import Utterance
from speechadapt.encoders.catalog import load_encoder
from speechadapt.text.alphabet import english
from speechadapt.training.adapt.budget import Size
from speechadapt.training.adapt.config import Config
from speechadapt.training.adapt.plan import (
    Base,
    Letters,
    choose_letters,
    choose_values,
    read_base,
    schedule,
    share_for,
)
from speechadapt.training.adapt.text import Speller
from speechadapt.training.own.data import Needs
from speechadapt.training.own.split import Parts
from tests.own_data import NEEDS

SPELL = Speller()
SIZE = Size({"rank": 4, "alpha": 4.0}, 1000)
BASE = Base("w2v_bert", NEEDS, None, 10**6, english())
KEPT, NEW = Letters("base", ()), Letters("texts", ("ß",))


def parts(minutes: float, words: str = "one", seconds: float = 4.0) -> Parts:
    """Return so many minutes to learn from and a tenth of them to choose by."""

    def rows(name: str, count: int) -> tuple[Utterance, ...]:
        return tuple(
            Utterance(f"{name}{n}.wav", seconds, text=words, id=f"{name}{n}") for n in range(count)
        )

    count = round(60 * minutes / seconds)
    return Parts(rows("a", count), rows("b", count // 10), (), "recording")


@pytest.mark.parametrize(
    ("texts", "alphabet", "lacking"),
    [
        (["One two", "it's"], "base", ()),
        (["über alles", "straße"], "both", ("ß", "ü")),
        (["واحد", "اثنان"], "texts", tuple(sorted(set("واحداثنان")))),
    ],
)
def test_letters_are_the_bases_where_they_do(
    texts: list[str], alphabet: str, lacking: tuple[str, ...]
) -> None:
    rows = [Utterance("x.wav", text=text) for text in texts]
    found = choose_letters(english(), rows, SPELL)
    assert (found.alphabet, found.lacking) == (alphabet, lacking)
    assert found.keeps_head == (alphabet != "texts")
    assert choose_letters(None, rows, SPELL).alphabet == "texts"


@pytest.mark.parametrize("minutes", [0.5, 10, 45, 150, 600])
@pytest.mark.parametrize("letters", [KEPT, NEW])
def test_the_settings_are_the_tasks_own_and_fit_one_another(
    minutes: float, letters: Letters
) -> None:
    values = choose_values(BASE, parts(minutes), letters, "lora", SIZE)
    config, problems = bind(Config, values)
    # nothing is wrong but that no data is named yet
    assert all("data" in problem for problem in problems)
    trainer = config.trainer
    assert 200 <= trainer.steps <= 6000
    assert trainer.steps / trainer.evaluate_every == pytest.approx(20, rel=0.1)
    assert config.adapter == SIZE.settings
    assert config.batch.batch_s >= 16


def test_more_data_means_more_steps_and_fewer_passes() -> None:
    steps, passes = [], []
    for minutes in (12, 50, 170, 500):
        values = choose_values(BASE, parts(minutes), KEPT, "lora", SIZE)
        steps.append(values["trainer"]["steps"])
        passes.append(steps[-1] * values["batch"]["batch_s"] / (60 * minutes))
    assert steps == sorted(steps)
    assert passes == sorted(passes, reverse=True)
    assert [share_for(60.0 * minutes, KEPT) for minutes in (10, 60, 300)] == [0.01, 0.02, 0.04]
    assert share_for(600.0, NEW) == 0.02


def test_a_new_head_gets_more_time_more_patience_and_a_higher_rate() -> None:
    kept = choose_values(BASE, parts(30), KEPT, "lora", SIZE)
    new = choose_values(BASE, parts(30), NEW, "lora", SIZE)
    assert new["trainer"]["steps"] > kept["trainer"]["steps"]
    assert new["trainer"]["patience"] > kept["trainer"]["patience"]
    assert new["head_rate"] > kept["head_rate"]
    assert (kept["keep_head"], new["keep_head"]) == (True, False)


def test_few_words_choose_by_letters_and_a_head_alone_has_no_method() -> None:
    assert choose_values(BASE, parts(10), KEPT, "lora", SIZE)["score"] == "cer"
    talk = parts(60, words="one two three four five six")
    assert choose_values(BASE, talk, KEPT, "lora", SIZE)["score"] == "headline"
    alone = choose_values(BASE, talk, KEPT, "", None)
    assert (alone["method"], alone["adapter"]) == ("", {})


def test_a_window_costs_the_same_for_every_row() -> None:
    whisper = Base("whisper", Needs(16000, 50.0, 30.0), 30.0, 10**6, None)
    values = choose_values(whisper, parts(30), NEW, "lora", SIZE)
    assert values["batch"]["max_rows"] == 8
    assert values["batch"]["max_s"] == 30.0
    assert values["augment"]["unit_db"] == 40.0


def test_a_schedule_never_scores_less_than_once() -> None:
    assert schedule(3, 20)["evaluate_every"] == 1
    assert schedule(1, 1) == {
        "steps": 1, "warmup_steps": 1, "evaluate_every": 1, "checkpoint_every": 1, "log_every": 1
    }  # fmt: skip


@pytest.mark.parametrize("family", ["w2v_bert", "whisper", "ast"])
def test_a_model_without_a_head_is_read_as_one(
    family: str, tiny_folder: Callable[[str], Path]
) -> None:
    folder = tiny_folder(family)
    encoder = load_encoder(folder)
    base = read_base(encoder, folder)
    assert (base.family, base.alphabet) == (family, None)
    assert base.needs.longest_s == (encoder.window_s or 30.0)
    assert base.parameters == sum(part.numel() for part in encoder.model.parameters())
