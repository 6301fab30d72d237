from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from speechadapt.core.bind import bind, check
from speechadapt.core.limits import Count, PositiveInterval, Probability, Range


@dataclass(frozen=True)
class Inner:
    """Settings within settings."""

    rate: Probability = 0.1
    count: Count = 3
    speed: PositiveInterval = (0.9, 1.1)
    pair: Annotated[tuple[int, int], Range(0.0)] = (0, 1)


@dataclass(frozen=True)
class Outer:
    """Settings of every kind."""

    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()
    weights: Mapping[str, Probability] = field(default_factory=dict)
    kind: Literal["no", "bf16"] = "no"
    flag: bool = False
    text: str = ""
    maybe: int | None = None

    def problems(self) -> list[str]:
        """Refuse one name."""
        return ["names holds 'bad'."] if "bad" in self.names else []


def test_defaults_stand_where_nothing_is_given() -> None:
    assert bind(Outer, {}) == (Outer(), [])


def test_values_of_every_kind_are_taken_over() -> None:
    values = {
        "inner": {"rate": 1, "count": 4.0, "speed": [1, 2], "pair": [2, 3]},
        "names": ["a", "b"],
        "weights": {"a": 1},
        "kind": "bf16",
        "flag": True,
        "text": 5,
        "maybe": 7,
    }
    wanted = Outer(Inner(1.0, 4, (1.0, 2.0), (2, 3)), ("a", "b"), {"a": 1.0}, "bf16", True, "5", 7)
    assert bind(Outer, values) == (wanted, [])
    assert bind(Outer, {"maybe": None}) == (Outer(), [])


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"txt": 1}, "there is no setting 'txt'. Did you mean text?"),
        ({"inner": {"cuont": 1}}, "there is no setting 'inner.cuont'. Did you mean count?"),
        ({"inner": 3}, "inner must be a group of settings, got 3."),
        ({"inner": {"rate": "high"}}, "inner.rate must be a number, got 'high'."),
        ({"inner": {"rate": True}}, "inner.rate must be a number, got True."),
        ({"inner": {"rate": 1.5}}, "inner.rate must be between 0 and 1, got 1.5."),
        ({"inner": {"count": 0}}, "inner.count must be 1 or more, got 0."),
        ({"inner": {"count": 1.5}}, "inner.count must be a whole number, got 1.5."),
        ({"inner": {"speed": 1}}, "inner.speed must be a list, got 1."),
        ({"inner": {"speed": [1]}}, "inner.speed must be a list of 2 values, got [1]."),
        ({"inner": {"pair": [1, "x"]}}, "inner.pair item 1 must be a whole number, got 'x'."),
        ({"names": "a"}, "names must be a list, got 'a'."),
        ({"weights": {"a": 2}}, "weights 'a' must be between 0 and 1, got 2."),
        ({"weights": [1]}, "weights must map names to values, got [1]."),
        ({"flag": "yes"}, "flag must be true or false, got 'yes'."),
        ({"maybe": "x"}, "maybe must be a whole number, got 'x'."),
        ({"names": ["bad"]}, "names holds 'bad'."),
    ],
)
def test_what_does_not_fit_is_said_by_its_path(values: dict[str, Any], problem: str) -> None:
    _, problems = bind(Outer, values)
    assert problems == [problem]


def test_another_schemas_values_are_taken_as_they_are() -> None:
    @dataclass(frozen=True)
    class Outside:
        settings: Mapping[str, Any] = field(default_factory=dict)

    values = {"rank": 2, "share": 0.5, "names": ["a"], "none": None, "on": True}
    filled, problems = bind(Outside, {"settings": values})
    assert problems == []
    assert filled.settings == values
    assert bind(Outside, {"settings": 3})[1] == ["settings must map names to values, got 3."]


def test_one_of_a_few_words_names_them() -> None:
    _, problems = bind(Outer, {"kind": "bf61"})
    assert problems == ["kind must be one of ['no', 'bf16'], got 'bf61'. Did you mean bf16."]


def test_everything_wrong_is_reported_at_once_and_the_rest_is_kept() -> None:
    values = {"inner": {"rate": 2, "count": 5}, "flag": 3, "names": ["bad"], "colour": 1}
    outer, problems = bind(Outer, values)
    assert len(problems) == 4
    assert outer == Outer(inner=Inner(count=5), names=("bad",))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (Outer(inner=Inner(rate=1.5)), "adapter.inner.rate must be between 0 and 1, got 1.5."),
        (Outer(flag=3), "adapter.flag must be true or false, got 3."),  # type: ignore[arg-type]
        (Outer(kind="x"), "adapter.kind must be one of"),  # type: ignore[arg-type]
        (Outer(names=("bad",)), "names holds 'bad'."),
    ],
)
def test_what_code_has_filled_is_checked_like_what_a_file_says(
    settings: Outer, problem: str
) -> None:
    problems = check(settings, "adapter")
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_what_is_in_range_passes_the_check() -> None:
    assert check(Outer(inner=Inner(rate=1), maybe=3, weights={"a": 0.5})) == []


def test_a_path_stands_before_every_problem() -> None:
    _, problems = bind(Outer, {"txt": 1, "inner": {"rate": 2}}, "adapter")
    assert problems == [
        "there is no setting 'adapter.txt'. Did you mean text?",
        "adapter.inner.rate must be between 0 and 1, got 2.",
    ]
