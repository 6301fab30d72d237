"""What can be asked of a comparison of adapter methods: one frozen value with defaults and help."""

from __future__ import annotations

from dataclasses import dataclass

from speechadapt.adapters.catalog import method_names
from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.jobs.job_options import at_least, setting, words_of


@dataclass(frozen=True)
class AdapterBench:
    """Everything a comparison of adapter methods can be asked.

    Raises:
        ConfigError: A value is out of its range or set; all such values are named at once.
    """

    model: str = setting("mini-usm", "Whose encoder is adapted: bundled name, folder or hub id.")
    methods: str = setting("", "Methods, such as lora,parallel; empty takes all there are.")
    share: float = setting(4.0, "Most trained parameters, in percent of the encoder's.")
    recipe: str = setting("", "A recipe of the task adapt to score every method with; none: speed.")
    data: str = setting("", "The data pack's folder; default: SPEECHADAPT_DATA.")
    steps: int = setting(0, "With --recipe, training steps; 0: as the recipe says.")
    rates: str = setting("", "With --recipe, learning rates to choose from; none: the method's.")
    full_rates: str = setting("", "With --recipe, rates of full fine-tuning; none: --rates.")
    seed: int = setting(1, "With --recipe, seed of every run.")
    clips: int = setting(8, "Shipped clips in the timed batch.")
    rounds: int = setting(3, "Timed rounds; a method and the bare encoder take turns.")
    threads: int = setting(1, "CPU threads.")
    device: str = setting("cpu", "cpu, cuda, cuda:1.")
    output: str = setting(
        "", "Folder for adapters.json, .md and .png; what stands in it is not measured again.", "-o"
    )

    def __post_init__(self) -> None:
        problems = [problem for problem in self._problems() if problem]
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def method_list(self) -> tuple[str, ...]:
        """Methods, sorted."""
        return tuple(sorted(words_of(self.methods))) or tuple(method_names())

    @property
    def rate_list(self) -> tuple[float, ...]:
        """Learning rates, ascending; empty leaves each method its own."""
        return _ascending(self.rates)

    @property
    def full_rate_list(self) -> tuple[float, ...]:
        """Learning rates of full fine-tuning, ascending."""
        return _ascending(self.full_rates) or self.rate_list

    def _problems(self) -> list[str | None]:
        known = method_names()
        unknown = [name for name in words_of(self.methods) if name not in known]
        return [
            *(
                f"--methods: there is no method '{name}'.{near_misses(name, known)}"
                for name in unknown
            ),
            _rates_problem("--rates", self.rates),
            _rates_problem("--full-rates", self.full_rates),
            at_least("--share", self.share, 1e-3),
            at_least("--steps", self.steps, 0),
            # two recordings of two rows each, for methods that read other rows of a recording
            at_least("--clips", self.clips, 4),
            at_least("--rounds", self.rounds, 1),
            at_least("--threads", self.threads, 1),
        ]


def _ascending(text: str) -> tuple[float, ...]:
    return tuple(sorted(float(word) for word in words_of(text)))


def _rates_problem(flag: str, text: str) -> str | None:
    try:
        if all(float(word) > 0 for word in words_of(text)):
            return None
    except ValueError:
        pass
    return f"{flag} takes numbers above 0, such as 1e-3,3e-3, got {text!r}."
