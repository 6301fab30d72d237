"""What a run would do, for `speechadapt train --dry-run`."""

from __future__ import annotations

from speechadapt.config.resolve import Run
from speechadapt.training.objective import Objective
from speechadapt.training.state import latest_checkpoint


def describe(run: Run, objective: Objective) -> str:
    """Say what a run trains, on what, for how long, and where it writes.

    Args:
        run: The run.
        objective: As the run's task built it.

    Returns:
        Lines of text.
    """
    trainer = run.trainer
    trained = sum(part.numel() for part in objective.parameters() if part.requires_grad)
    lines = {
        "recipe": f"{run.recipe} (task {run.task})",
        "steps": f"{trainer.steps}, each of {trainer.accumulate} micro-step(s) per process",
        "parameters": f"{trained / 1e6:.2f} M trained",
    }
    lines |= objective.summary()
    target = latest_checkpoint(run.folder / "checkpoints")
    state = "" if target is None else f" (goes on from {target.name})"
    lines["writes"] = f"{run.folder}{state}"
    lines["best"] = (
        f"the lowest '{objective.score}', looked at every {trainer.evaluate_every} steps"
    )
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())
