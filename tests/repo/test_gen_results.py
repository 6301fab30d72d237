"""`tools/gen_results.py`: tables say what the files hold, and no file says what it must not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_claims
import bench_facts
import gen_results
import pytest

from speechadapt.core.errors import DataError
from speechadapt.core.files import hash_file
from tests.repo.project import ROOT


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Return folders that stand for bundled models."""
    folders = {}
    for name in ("mini-usm", "mini-whisper"):
        folders[name] = tmp_path / "pretrained" / name
        folders[name].mkdir(parents=True)
        (folders[name] / "model.safetensors").write_bytes(name.encode())
    return folders


@pytest.fixture
def results(tmp_path: Path, models: dict[str, Path]) -> gen_results.Results:
    folder = tmp_path / "results"
    folder.mkdir()
    return gen_results.Results(folder, models)


def put(results: gen_results.Results, name: str, content: dict[str, Any]) -> None:
    (results.folder / name).write_text(json.dumps(content))


def scores(results: gen_results.Results, wer: float, **changes: Any) -> dict[str, Any]:
    """Return what `eval_pack.py` writes for greedy search on one set."""
    return {
        "date": "2025-01-02",
        "command": 'python tools/eval_pack.py --model mini-usm --data "$SPEECHADAPT_DATA"',
        "environment": "cpu, float32, 2 threads",
        "weights_sha256": hash_file(results.models["mini-usm"] / "model.safetensors"),
        "fingerprint": {
            "decoder": {"name": "ctc", "beam_size": None, "lm": None, "word_list": None}
        },
        "sets": [
            {
                "set": "fsdd/test_speaker",
                "items": 400,
                "wer": wer,
                "wer_interval": {"low": wer - 0.01, "high": wer + 0.02},
                "speakers": 1,
                "speakers_in_training": 0,
                "texts_in_training": 400,
                "normalisers": ["verbatim 1"],
            }
        ],
        **changes,
    }


def speed(claim: str, value: float, **changes: Any) -> dict[str, Any]:
    """Return what a benchmark writes for one claim."""
    facts = bench_facts.environment("cpu", "float32", 2, "16")
    figure = bench_facts.figure(claim, [value], "runs")
    return bench_facts.result("python tools/x.py", facts, [figure], {}) | changes


def line(text: str, *parts: str) -> str:
    """Return the one table row that holds every part."""
    found = [
        row for row in text.splitlines() if row.startswith("|") and all(p in row for p in parts)
    ]
    assert len(found) == 1, found
    return found[0]


def test_what_has_no_file_is_not_yet_measured(results: gen_results.Results) -> None:
    text = gen_results.render(results)
    bars = sum(len(one.bars) for one in gen_results.RECOGNISERS)
    assert text.count(bench_facts.MISSING) == bars + len(bench_claims.CLAIMS)
    assert " met " not in text
    assert "missed" not in text
    assert "Measured by" not in text


@pytest.mark.parametrize(("wer", "verdict"), [(0.079, "met"), (0.08, "met"), (0.081, "missed")])
def test_a_word_error_rate_stands_beside_its_bar(
    results: gen_results.Results, wer: float, verdict: str
) -> None:
    put(results, "mini-usm.json", scores(results, wer))
    text = gen_results.render(results)
    row = line(text, "FSDD digits, unseen speaker", "mini-usm, greedy")
    rate = f"{100 * wer:.1f} [{100 * wer - 1:.1f}, {100 * wer + 2:.1f}]"
    assert f"| {rate} | <= 8 | {verdict} |" in row
    assert "400 clips, one unseen speaker; all of the texts in training" in row
    assert "2025-01-02, cpu, float32, 2 threads; `python tools/eval_pack.py" in text


@pytest.mark.parametrize(("value", "verdict"), [(4.01, "met"), (3.9, "missed")])
def test_a_speed_stands_beside_its_bar(
    results: gen_results.Results, value: float, verdict: str
) -> None:
    put(results, "bench.json", speed("native_encoder", value))
    row = line(gen_results.render(results), "12 tokens", "encoder at native length")
    assert f"{bench_claims.number(value)}x" in row
    assert f"| >= 4x | {verdict} |" in row


def test_the_clips_a_speed_was_measured_on_are_named(results: gen_results.Results) -> None:
    details = {"source": "200 clips: shipped demo clips, repeated"}
    put(results, "bench.json", speed("native_encoder", 5.0, details=details))
    assert "; 200 clips: shipped demo clips, repeated; `python" in gen_results.render(results)


def test_what_was_measured_elsewhere_says_so(results: gen_results.Results) -> None:
    text = gen_results.render(results)
    assert "measured earlier off the shelf, not re-run here" in text
    shown = [row for row in text.splitlines() if gen_results.POCKETSPHINX_LABEL in row]
    cells = [[cell.strip() for cell in row.split("|")][3] for row in shown[:4]]
    assert cells == ["88", "99", "37", "91"]
    assert "0.16 to 0.58" in shown[4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"command": "python tools/eval_pack.py --data /mnt/pack"},
            "names /mnt/pack in its command",
        ),
        ({"command": "python tools/eval_pack.py --option lm=../x.txt"}, r"names lm=\.\./x\.txt"),
        ({"weights_sha256": "0" * 64}, "other weights than those bundled as mini-usm"),
        ({"weights_sha256": None}, "other weights"),
        ({"date": ""}, "lacks date"),
        (
            {"fingerprint": {"decoder": {"name": "ctc", "beam_size": 8, "lm": "h"}}},
            "decoded as 'beam and n-gram', not 'greedy'",
        ),
    ],
)
def test_a_file_unfit_to_be_shown_is_refused(
    results: gen_results.Results, changes: dict[str, Any], message: str
) -> None:
    put(results, "mini-usm.json", scores(results, 0.05, **changes))
    with pytest.raises(DataError, match=message):
        gen_results.render(results)


def test_another_normaliser_is_refused(results: gen_results.Results) -> None:
    content = scores(results, 0.05)
    content["sets"][0]["normalisers"] = ["whisper 1 [en]"]
    put(results, "mini-usm.json", content)
    with pytest.raises(DataError, match="not verbatim"):
        gen_results.render(results)


def test_smoke_runs_and_strangers_are_refused_together(results: gen_results.Results) -> None:
    put(results, "bench.json", speed("native_encoder", 5.0, quick=True))
    put(results, "other.json", speed("native_encoder", 5.0))
    with pytest.raises(DataError, match="is of a smoke run") as caught:
        gen_results.render(results)
    assert "other.json is shown nowhere" in str(caught.value)


def test_scores_of_a_model_that_is_not_bundled_are_refused(results: gen_results.Results) -> None:
    content = scores(results, 0.05)
    results.models = {}
    put(results, "mini-usm.json", content)
    with pytest.raises(DataError, match="mini-usm, which is not bundled"):
        gen_results.render(results)


def test_the_search_is_read_from_the_settings() -> None:
    ctc = {"name": "ctc", "beam_size": None, "lm": None, "word_list": None}
    assert gen_results.search_of(ctc) == "greedy"
    assert gen_results.search_of(ctc | {"beam_size": 8}) == "beam"
    assert gen_results.search_of(ctc | {"lm": "hash"}) == "beam and n-gram"
    assert gen_results.search_of({"name": "whisper_ar", "padding": "full"}) == "padded"
    assert gen_results.search_of({"name": "whisper_ar", "padding": "native"}) == "native length"
    diffusion = {"name": "masked_diffusion", "strategy": "pdd", "num_steps": 4}
    diffusion |= {"num_candidates": 15, "select": "mbr"}
    assert gen_results.search_of(diffusion) == "pdd 15 4 mbr"


def test_learning_curves_are_linked(results: gen_results.Results, tmp_path: Path) -> None:
    for name in ("words.png", "weights.png"):
        (results.folder / name).write_bytes(b"")
    (results.folder / "arms.md").write_text("![weights](weights.png)")
    page = gen_results.render(results, tmp_path)
    assert "[words](results/words.png)" in page
    assert "weights.png" not in page  # a page of its own shows it


def test_only_the_text_between_the_markers_is_replaced() -> None:
    page = f"before\n{gen_results.BEGIN}\nold\n{gen_results.END}\nafter\n"
    wanted = f"before\n{gen_results.BEGIN}\nnew\n{gen_results.END}\nafter\n"
    assert gen_results.replaced(page, "new") == wanted
    for broken in ("no markers", page + page, gen_results.END + gen_results.BEGIN):
        with pytest.raises(DataError, match="once each"):
            gen_results.replaced(broken, "new")


def test_a_stale_page_is_noticed_and_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"a\n{gen_results.BEGIN}\nold\n{gen_results.END}\n")
    monkeypatch.setattr(gen_results, "ROOT", tmp_path)
    assert gen_results.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert gen_results.main([]) == 0
    assert gen_results.main(["--check"]) == 0
    assert "FSDD digits" in page.read_text()


def test_the_readme_is_fresh() -> None:
    command = [sys.executable, "tools/gen_results.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_set_of_the_table_is_one_that_is_scored() -> None:
    import eval_pack

    assert set(gen_results.SETS) <= set(eval_pack.SETS["test"])
    assert {name for one in gen_results.RECOGNISERS for name in one.bars} <= set(gen_results.SETS)
    assert set(gen_results.POCKETSPHINX) <= set(gen_results.SETS)


def probe(results: gen_results.Results, weights: str) -> dict[str, Any]:
    """Return what `probe.py` writes."""
    return {
        "date": "2025-01-02",
        "command": 'python tools/probe.py --model mini-ast --data "$SPEECHADAPT_DATA"',
        "environment": "cpu, float32, 1 threads",
        "weights_sha256": weights,
        "sets": [
            {
                "set": "esc10/test, linear probe",
                "accuracy": 0.8125,
                "accuracy_interval": {"low": 0.725, "high": 0.8875},
                "items": 80,
                "note": "layer 2",
            }
        ],
    }


def test_a_probe_of_the_bundled_encoder_gets_a_sentence(results: gen_results.Results) -> None:
    folder = results.folder.parent / "pretrained" / "mini-ast"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"ast")
    models = {**results.models, "mini-ast": folder}
    found = gen_results.Results(results.folder, models)
    put(found, "mini-ast.json", probe(found, hash_file(folder / "model.safetensors")))
    assert list(gen_results.probes(found)) == [
        "Frozen `mini-ast`, esc10/test, linear probe: accuracy 81.2 % [72.5, 88.8], 80 clips; "
        "layer 2."
    ]


def test_a_probe_of_other_weights_is_refused(results: gen_results.Results) -> None:
    put(results, "mini-ast.json", probe(results, "another"))
    with pytest.raises(DataError, match="holds scores of mini-ast, which is not bundled"):
        _ = results.files
