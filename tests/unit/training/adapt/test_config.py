from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.bind import bind
from speechadapt.training.adapt.config import Config
from tests import synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return settings of a made pack."""
    root = synthetic.write_pack(tmp_path_factory.mktemp("made") / "pack", ("tones",))
    return {"root": str(root), "train": ["tones"], "dev": ["tones"]}


def problems(data: dict[str, object], **values: object) -> list[str]:
    """Return what is wrong with settings."""
    return bind(Config, {"data": data, **values})[1]


def test_the_defaults_are_a_run(data: dict[str, object]) -> None:
    assert problems(data) == []
    assert problems(data, base="mini-usm", method="pfeiffer", adapter={"bottleneck": 8}) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"method": "lorra"}, "there is no adapter method 'lorra'. Did you mean lora"),
        ({"adapter": {"rnk": 2}}, "no setting 'adapter.rnk'. Did you mean rank"),
        ({"adapter": {"rank": 0}}, "adapter.rank must be 1 or more, got 0"),
        ({"arm": "ful"}, "arm must be one of"),
        ({"normaliser": "verbatm"}, "there is no normaliser 'verbatm'"),
        ({"base": "mini-usn"}, "there is no bundled model or folder 'mini-usn'"),
        ({"head_rate": 0}, "head_rate must be above 0"),
        ({"prefix": {"cache": "memory"}}, "make every input new. Set repeat.batches=N"),
        (
            {"prefix": {"cache": "memory"}, "repeat": {"batches": 2}, "arm": "full"},
            "arm=full has none",
        ),
        ({"repeat": {"batches": 2, "variants": 2}}, "Give one of the two"),
        ({"batch": {"weights": {"tunes": 1.0}}}, "batch.weights names 'tunes'"),
    ],
)
def test_what_does_not_fit_is_said(
    data: dict[str, object], values: dict[str, object], problem: str
) -> None:
    (found,) = problems(data, **values)
    assert problem in found


def test_a_method_that_needs_more_than_transcripts_is_refused(
    data: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from speechadapt.adapters.catalog import method
    from speechadapt.training.adapt import objective as adapted

    needy = replace(method("lora"), needs=frozenset({"language"}))
    monkeypatch.setattr(adapted, "method_of", lambda name: needy)
    (found,) = problems(data)
    assert "method 'lora' reads language of every row" in found


def test_settings_of_a_method_do_not_matter_to_the_other_arms(data: dict[str, object]) -> None:
    assert problems(data, arm="head", adapter={"rnk": 2}, method="lorra") == []


def test_the_bases_weights_are_among_the_sources() -> None:
    ((name, path),) = Config(base="mini-usm").sources().items()
    assert name == "base/model.safetensors"
    assert path.is_file()
    # what lies on a hub is fetched when the run is built, and known by its commit
    assert Config(base="owner/name").sources() == {}
    assert isinstance(path, Path)
