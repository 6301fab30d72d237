"""`tools/diffusion_streams.py`: the comparison by items, and a whole run on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import diffusion_streams
import pytest

from tests import synthetic
from tests.tiny_tasks import diffusion_folder, whisper_folder


def test_items_of_all_seeds_are_compared_with_the_fewest_streams() -> None:
    found = {
        2: {1: ({"a": 0.25}, [1, 0], [2, 2]), 2: ({"a": 0.5}, [1, 1], [2, 2])},
        1: {1: ({"a": 0.5}, [2, 0], [2, 2]), 2: ({"a": 0.75}, [2, 1], [2, 2])},
    }
    one, two = diffusion_streams.compare(found)
    assert (one["streams"], two["streams"]) == (1, 2)
    assert one["wer"] == pytest.approx(5 / 8)
    assert two["wer"] == pytest.approx(3 / 8)
    assert two["each_seed"] == {"1": 0.25, "2": 0.5}
    assert two["sets"] == {"a": pytest.approx(0.375)}
    assert "against_least" not in one
    middle, low, high = two["against_least"]
    assert middle == pytest.approx(-1 / 4)
    assert low == pytest.approx(-1 / 2)  # the two items that differ, drawn again and again
    assert high == pytest.approx(0.0)


def test_a_whole_run_trains_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpora = ("fsdd", "orders", "speech_commands", "wake", "vctk", "librispeech")
    pack = synthetic.write_pack(tmp_path / "pack", corpora)
    runs, output = tmp_path / "runs", tmp_path / "found.json"
    small = {
        "init": diffusion_folder(tmp_path),
        "encoder": whisper_folder(tmp_path),
        "model.prefix": 2,
        "repeats": 1,
        "batch.max_rows": 2,
        "dev.items": 1,
        "trainer.steps": 2,
        "trainer.warmup_steps": 0,
        "trainer.evaluate_every": 2,
        "data.noise": [],
        "data.responses": [],
    }
    words = ["--streams", "1", "2", "--seeds", "1", "--sets", "wake/dev"]
    words += ["--runs", str(runs), "--data", str(pack), "--output", str(output)]
    words += [part for key, value in small.items() for part in ("--setting", f"{key}={value}")]
    assert diffusion_streams.main(words) == 0
    made = sorted(one.name for one in runs.iterdir())
    assert [name.rpartition("-")[0] for name in made] == ["streams-1-s1", "streams-2-s1"]
    details = json.loads(output.read_text())["details"]
    assert [one["streams"] for one in details["rows"]] == [1, 2]
    before = (runs / made[1] / "last/model.safetensors").stat().st_mtime_ns
    assert diffusion_streams.main(words) == 0
    assert (runs / made[1] / "last/model.safetensors").stat().st_mtime_ns == before
    other = [*words, "--setting", "trainer.learning_rate=1e-4", "--streams", "2"]
    assert diffusion_streams.main(other) == 0  # other settings are another run
    assert len(list(runs.iterdir())) == 3
    capsys.readouterr()
    assert diffusion_streams.main([*words, "--sets", "wak/dev"]) == 2
    assert "wake/dev" in capsys.readouterr().err
