"""The restoration job: degraded recordings become clean ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from speechadapt.audio.io import AudioStream
from speechadapt.core.errors import AudioError, ConfigError
from speechadapt.jobs.execute import run_job
from speechadapt.jobs.load import LOADER, chosen_device, chosen_dtype, load_by_hook
from speechadapt.jobs.plan import Limits, PlanItem
from speechadapt.jobs.restore_figures import RestoreFigures
from speechadapt.jobs.restore_options import RestoreOptions
from speechadapt.jobs.restore_worker import RestoreModel, RestoreWorker, output_name

if TYPE_CHECKING:
    from speechadapt.jobs.folder import JobFolder
    from speechadapt.jobs.job_worker import WorkerSetup
    from speechadapt.jobs.ledger import Record
    from speechadapt.jobs.restore_file import ChannelRestorer
    from speechadapt.jobs.restore_scores import Judges
    from speechadapt.models.recogniser import Recogniser


def restore(options: RestoreOptions, rescan: bool = True) -> int:
    """Run a restoration job, print its report, and return the exit code (see `run_job`).

    Args:
        options: What was asked for.
        rescan: Whether to look at the inputs again; otherwise the plan's items are taken.

    Raises:
        FingerprintError: The output folder holds a job with other options.
        SpeechadaptError: The inputs, the model or the job folder cannot be used.
    """
    return run_job(options, rescan)


class Restoration:
    """What sets restoration apart from other jobs (see `kind.Kind`)."""

    name = "restore"
    options = RestoreOptions
    packages = ("speechadapt", "soundfile", "soxr")

    def rows(self, folder: JobFolder) -> Path:
        """Return the file of the restored recordings."""
        return folder.restored

    def load(self, options: RestoreOptions, threads: int | None) -> RestoreModel:
        """Load the restorer and those who measure, to run in one thread of the CPU.

        Several threads add in another order, whose last bits show in 16-bit samples; so a job is
        spread over workers alone.

        Raises:
            SpeechadaptError: One of them cannot be found or loaded.
        """
        if not os.environ.get(LOADER):
            import torch

            torch.set_num_threads(1)
        return RestoreModel(_load_restorer(options), _load_judges(options))

    def limits(self, options: RestoreOptions, model: RestoreModel) -> Limits:
        """Return that every recording stands alone."""
        return Limits(batch_size=1)

    def outputs(self, options: RestoreOptions, item: PlanItem) -> tuple[str, ...]:
        """Return the restored file."""
        return (output_name(options, item.stem),)

    def worker(
        self, setup: WorkerSetup, model: RestoreModel, number: int, locked: bool
    ) -> RestoreWorker:
        """Build a worker."""
        return RestoreWorker(setup, model, number, locked)

    def check_output(self, path: Path, record: Record) -> str | None:
        """Say whether a file cannot be decoded or has another length than was journalled."""
        rate, wanted = record.row["restored_rate"], record.row["restored_samples"]
        path.stat()
        try:
            found = sum(len(block) for block in AudioStream(path, rate, minimum_s=0.0))
        except AudioError as error:
            return f"cannot be decoded: {error}"
        return None if found == wanted else f"holds {found} samples, {wanted} were written"

    def figures(self, normaliser: str) -> RestoreFigures:
        """Return scores before and after."""
        return RestoreFigures(normaliser)


KIND = Restoration()


def _load_restorer(options: RestoreOptions) -> ChannelRestorer:
    hooked = load_by_hook(options)
    if hooked is not None:
        made: ChannelRestorer = hooked
        return made
    import torch

    from speechadapt.models.restorer_folder import find_restorer, load_restorer

    restorer = load_restorer(find_restorer(options.model))
    dtype: torch.dtype = getattr(torch, chosen_dtype(options.dtype))
    return restorer.to(chosen_device(options.device), dtype)


def _base_of(options: RestoreOptions) -> str | None:
    """Return the fingerprint of the encoder that the restorer was made from."""
    from speechadapt.models.restorer_folder import find_restorer, read_restorer

    if os.environ.get(LOADER):
        return None
    found = read_restorer(find_restorer(options.model))["base"].get("files")
    return None if found is None else str(found)


def _load_judges(options: RestoreOptions) -> Judges:
    from speechadapt.jobs.restore_scores import Judges
    from speechadapt.metrics.quality_listener import check_listeners

    measures, speaker = options.measures, None
    if "dnsmos" in measures:
        check_listeners(("dnsmos",))
    if "speaker" in measures:
        from speechadapt.models.speaker import load_speaker_model

        speaker = load_speaker_model(options.speaker_model)
    words = None
    if "words" in measures:
        words = _load_judge(options, _base_of(options))
    return Judges("dnsmos" in measures, speaker, words)


def _load_judge(options: RestoreOptions, heard: str | None) -> Recogniser:
    """Load the recogniser, unless it is made of the weights that the restorer hears with."""
    from speechadapt.models.build import load
    from speechadapt.models.recogniser import Recogniser

    device, offline = chosen_device(options.device), options.offline
    judge: object = load(options.judge, device=device, offline=offline)
    if not isinstance(judge, Recogniser):
        raise ConfigError(f"--judge '{options.judge}' is a restorer; a recogniser is needed.")
    source = judge.encoder.source
    if heard is not None and source is not None and source.fingerprint == heard:
        raise ConfigError(
            f"--judge '{options.judge}' has the encoder that the restorer hears with, so it would "
            "judge in its favour. Name another recogniser."
        )
    return judge
