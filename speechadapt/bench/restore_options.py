"""What can be asked of a measurement of restorers: one frozen value with the defaults and help."""

from __future__ import annotations

from dataclasses import dataclass

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.job_options import at_least, one_of, setting

SIZES = ("full", "mini", "tiny")
VOCODERS = ("wavefit", "istft")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class RestoreBench:
    """Everything a measurement of restorers can be asked.

    Raises:
        ConfigError: A value is out of its range or set; all such values are named at once.
    """

    size: str = setting(
        "mini", "full: w2v-BERT 2.0 cut at layer 8, WaveFit of about 15 M; mini; tiny."
    )
    model: str | None = setting(None, "A restorer's folder instead; random weights where None.")
    vocoder: str = setting("istft", "wavefit or istft, of random weights.")
    iterations: int | None = setting(None, "Of the vocoder; None: as it has.")
    seconds: float = setting(20.0, "Length of the recording.")
    rounds: int = setting(3, "Repetitions after one to warm up.")
    threads: int | None = setting(None, "CPU threads; None: as torch does.")
    device: str = setting("cpu", "cpu, cuda, cuda:1.")
    dtype: str = setting("float32", "Arithmetic: float32, bfloat16, float16.")
    output: str = setting("", "Write the figures to this JSON file.", "-o")

    def __post_init__(self) -> None:
        problems = [
            one_of("--size", self.size, SIZES),
            one_of("--vocoder", self.vocoder, VOCODERS),
            one_of("--dtype", self.dtype, DTYPES),
            at_least("--iterations", self.iterations, 1),
            at_least("--seconds", self.seconds, 0.1),
            at_least("--rounds", self.rounds, 1),
            at_least("--threads", self.threads, 1),
        ]
        found = [problem for problem in problems if problem]
        if found:
            raise ConfigError("\n".join(found))
