from __future__ import annotations

from pathlib import Path

from speechadapt.config.plan import describe
from speechadapt.config.resolve import resolve
from speechadapt.training.loop import train
from tests.tiny_tasks import write_recipe


def test_the_plan_says_steps_corpora_size_and_folder(tmp_path: Path) -> None:
    words = write_recipe(tmp_path, "ctc", tmp_path / "pack")
    run = resolve([*words, f"run.folder={tmp_path / 'run'}", "trainer.accumulate=2"], [tmp_path])
    objective = run.module.build(run.config)
    lines = dict(line.split("  ", 1) for line in describe(run, objective).splitlines())
    plan = {name: text.strip() for name, text in lines.items()}
    assert plan["recipe"] == "tiny/ctc (task ctc)"
    assert plan["steps"] == "2, each of 2 micro-step(s) per process"
    count = sum(part.numel() for part in objective.parameters())
    assert plan["parameters"] == f"{count / 1e6:.2f} M trained"
    assert plan["train"].startswith("16 items, 0.1 min: chords 8 (0.1 min), tones 8 (0.1 min)")
    assert plan["noise"] == "2 items, 0.0 min: hiss 2 (0.0 min)"
    assert plan["a micro-step"].endswith("rows")
    assert plan["writes"] == str(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(objective, run.trainer, run.folder)
    assert f"{tmp_path / 'run'} (goes on from step-00000002)" in describe(run, objective)
