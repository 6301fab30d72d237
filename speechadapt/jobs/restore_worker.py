"""The worker of a restoration: surveys ahead, restores, measures, and asks the gate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from soundfile import LibsndfileError

from speechadapt.core.errors import AudioError, MissingExtra
from speechadapt.engines.base import Unit
from speechadapt.jobs.gate import reasons
from speechadapt.jobs.job_worker import JobWorker, WorkerSetup
from speechadapt.jobs.ledger import Status
from speechadapt.jobs.listen import Problem, problem_of
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.recognise import is_out_of_memory
from speechadapt.jobs.restore_file import ChannelRestorer, FileRestorer, Made, Survey, survey
from speechadapt.jobs.restore_options import RestoreOptions
from speechadapt.jobs.restore_scores import Judges, Verdict, measure
from speechadapt.jobs.result import Result, failed_result
from speechadapt.jobs.rows import make_row
from speechadapt.jobs.run import Assignment

NO_SIGNAL, KEPT, UNSCORED = "no_signal", "kept_original", "gate_unscored"


@dataclass(frozen=True)
class RestoreModel:
    """What a restoration job loads.

    Args:
        restorer: Restores.
        judges: Measure.
    """

    restorer: ChannelRestorer
    judges: Judges

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells it from every other model and setting, JSON types only."""
        return {"restorer": self.restorer.fingerprint(), "judges": self.judges.fingerprint()}


class RestoreWorker(JobWorker):
    """Restores assignments (see `engines.base.Worker`).

    Args:
        setup: What it needs.
        model: The restorer and the judges.
        number: The worker's number.
        locked: Whether to hold the workers' lock, so that a later driver waits for this process.
    """

    def __init__(
        self, setup: WorkerSetup, model: RestoreModel, number: int, locked: bool = False
    ) -> None:
        super().__init__(setup, number, locked)
        self._options: RestoreOptions = setup.options
        self._judges = model.judges
        self._files = FileRestorer(model.restorer, setup.options, self.staging / "made")

    def prepare(self, unit: Unit) -> list[Survey]:
        """Read the recordings once."""
        return [self._survey(item) for item in unit.payload.items]

    def work(self, assignment: Assignment, prepared: list[Survey]) -> Sequence[Result]:
        """Restore what is still to be written."""
        self._files.clear()
        return [self._restore(known) for known in prepared if known.item.id in assignment.todo]

    def release(self) -> None:
        """Remove what was made and not moved away."""
        self._files.clear()

    def _survey(self, item: PlanItem) -> Survey:
        began = time.perf_counter()
        try:
            with self.copies.near(item) as near:
                known = survey(near)
            return replace(known, item=item, decode_s=time.perf_counter() - began)
        except AudioError as error:
            return Survey(item, problem=problem_of(error))

    def _restore(self, known: Survey) -> Result:
        item = known.item
        if known.problem is not None and not known.samples:
            return failed_result(item, known.problem, decode_s=known.decode_s)
        try:
            with self.copies.near(item) as near:
                return self._restore_near(replace(known, item=near), item)
        except AudioError as error:
            return failed_result(item, problem_of(error), known.audio_s, known.decode_s)

    def _restore_near(self, known: Survey, item: PlanItem) -> Result:
        try:
            made = self._files.restore(known)
            verdict = measure(known.item, made.path, self._judges, self._options.normaliser)
            met, missing = reasons(self._options.conditions, verdict.values)
            if met:
                kept = self._files.keep(known)
                kept.decode_s += made.decode_s
                kept.write_s += made.write_s
                made = replace(kept, model_s=made.model_s)
        except Exception as error:
            return failed_result(item, _problem(error), known.audio_s, known.decode_s)
        flags = [NO_SIGNAL] if all(known.flat) else []
        flags += [KEPT] if met else []
        flags += [UNSCORED] if missing else []
        return self._result(replace(known, item=item), made, verdict, met, tuple(flags))

    def _result(
        self,
        known: Survey,
        made: Made,
        verdict: Verdict,
        met: tuple[str, ...],
        flags: tuple[str, ...],
    ) -> Result:
        item, problem = known.item, known.problem
        name = output_name(self._options, item.stem)
        status: Status = "flagged" if met else "ok"
        if problem is not None:
            status = "partial"
        row = make_row(
            item,
            status,
            pred_text=verdict.before if met else verdict.after,
            flags=flags,
            reason=None if problem is None else problem.reason,
            duration=known.audio_s,
        )
        row |= {
            "restored_filepath": name,
            "sample_rate": known.sample_rate,
            "restored_rate": made.sample_rate,
            "restored_samples": made.samples,
            "channels": len(known.flat),
            "level_db": known.level_db,
            "restored_level_db": made.level_db,
            "clipped_rate": round(known.clipped_rate, 6),
            "bandwidth_hz": known.bandwidth_hz,
            "restored_bandwidth_hz": made.bandwidth_hz,
            "kept_original": list(met),
            "scores": verdict.shown,
        }
        if verdict.before is not None:
            row["pred_before"] = verdict.before
        return Result(
            item,
            status,
            row,
            files={name: made.path},
            reason=None if problem is None else problem.reason,
            message="; ".join((*([] if problem is None else [problem.message]), *met)),
            flags=flags,
            audio_s=known.audio_s,
            model_audio_s=known.audio_s,
            decode_s=known.decode_s + made.decode_s,
            model_s=made.model_s,
            write_s=made.write_s,
        )


def output_name(options: RestoreOptions, stem: str) -> str:
    """Return the path of an output, relative to the output folder.

    Args:
        options: What was asked for.
        stem: The item's.
    """
    return f"{stem}{options.suffix}.{options.format}"


def _problem(error: Exception) -> Problem:
    if isinstance(error, AudioError | MissingExtra):
        return problem_of(error)
    text = str(error).strip().partition("\n")[0]
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, OSError | LibsndfileError):
        return Problem("WRITE", message)
    return Problem("OOM" if is_out_of_memory(error) else "MODEL", message)
