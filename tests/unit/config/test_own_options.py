from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.config.own_options import Options, Request, read_options
from speechadapt.core.errors import CatalogError, ConfigError


def read(*options: str, method: str = "", budget: tuple[str, ...] = ()) -> Options:
    return read_options(Request(("data",), Path("out"), "", method, budget, options))


def test_options_go_to_their_groups() -> None:
    found = read(
        "trainer.steps=50",
        "adapter.rank=3",
        "data.require.clean=true",
        "split.speakers=folder",
        "check.max_s=8",
        "data.edge_s=0",
        budget=("1%", "5min"),
    )
    assert found.values == {
        "trainer": {"steps": 50},
        "adapter": {"rank": 3},
        "data": {"require": {"clean": True}, "edge_s": 0},
    }
    assert (found.split.speakers, found.check.max_s) == ("folder", 8.0)
    assert (found.budget.share, found.budget.minutes) == (0.01, 5.0)
    assert (found.method, found.arm) == ("lora", "adapter")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rank=4", r"no setting 'rank'. Did you mean adapter.rank\?"),
        ("steps=4", r"no setting 'steps'. Did you mean trainer.steps\?"),
        ("trainer.stepz=4", r"no setting 'trainer.stepz'. Did you mean trainer.steps"),
        ("adapter.bottleneck=4", "no setting 'adapter.bottleneck'"),
        ("split.tset=0.1", "no setting 'split.tset'. Did you mean split.test"),
        ("split.test=2", "split.test must be between 0 and 1, got 2"),
        ("trainer.steps=many", "trainer.steps must be a whole number, got 'many'"),
        ("adapter.rank=0", "adapter.rank must be 1 or more, got 0"),
        ("language", "'language' is not key=value"),
        ("arm=full", "leaves no adapter; speechadapt train does that"),
    ],
)
def test_a_wrong_option_is_refused_with_what_would_do(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(option)
    assert len(str(caught.value).splitlines()) == 1


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read("rank=4", "trainer.steps=0", budget=("much",))
    assert len(str(caught.value).splitlines()) == 3


def test_methods_are_known_by_name_and_named_once() -> None:
    assert read("method=pissa").method == "pissa"
    assert read("adapter.bottleneck=4", method="parallel").method == "parallel"
    with pytest.raises(ConfigError, match="--method lora and -O method=pissa"):
        read("method=pissa", method="lora")
    with pytest.raises(CatalogError, match=r"no adapter method 'lra'\. Did you mean lora"):
        read(method="lra")


def test_the_run_lies_beside_the_adapter() -> None:
    assert Request(("x",), Path("models/german")).folder == Path("models/german.run")
