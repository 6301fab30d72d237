"""What can be asked of a comparison of decoders: one frozen value with the defaults and help."""

from __future__ import annotations

from dataclasses import dataclass

from speechadapt.core.errors import ConfigError
from speechadapt.decoders.masked_diffusion.options import SELECTIONS
from speechadapt.jobs.job_options import NORMALISERS, at_least, one_of, setting, words_of

SIZES = ("paper", "mini", "tiny")
PARTS = ("length", "candidates", "reuse")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class DecoderBench:
    """Everything a comparison of decoders can be asked.

    Raises:
        ConfigError: A value is out of its range or set; all such values are named at once.
    """

    model: str = setting("mini-diffusion", "A diffusion decoder: bundled name, folder or hub id.")
    sets: tuple[str, ...] = setting(
        (), "A set of the data pack, CORPUS/SPLIT (repeatable); none: the shipped clips."
    )
    data: str = setting("", "The data pack's folder; default: SPEECHADAPT_DATA.")
    ctc: str | None = setting(None, "An adapter with a CTC head, as one more side.")
    random: str | None = setting(
        None, "Random weights of a size in place of --model, for speed alone: paper, mini, tiny."
    )
    parts: str = setting(",".join(PARTS), "With --random, what is timed: length,candidates,reuse.")
    num_candidates: str = setting("1,2,4,8,15", "Candidates of the diffusion sides.")
    num_steps: str = setting("1,2,4,8", "Steps of the diffusion sides.")
    selections: str = setting(",".join(SELECTIONS), "Selections of the diffusion sides.")
    seconds: str = setting("5,10,20,30", "With --random, lengths of the clips in seconds.")
    tokens_per_s: float = setting(3.0, "With --random, tokens said in a second.")
    limit: int = setting(0, "Most clips of a set; 0 takes all.")
    normaliser: str = setting("verbatim", "Normaliser of the scores: verbatim, whisper, basic.")
    batch_size: int = setting(1, "Clips in a batch.")
    rounds: int = setting(3, "Timed passes; the sides take turns.")
    threads: int = setting(1, "CPU threads.")
    device: str = setting("cpu", "cpu, cuda, cuda:1, mps.")
    dtype: str = setting("float32", "Arithmetic: float32, float16, bfloat16.")
    output: str = setting("", "Folder for decoders.json, decoders.md and decoders.png.", "-o")

    def __post_init__(self) -> None:
        problems = [problem for problem in self._problems() if problem]
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def candidate_counts(self) -> tuple[int, ...]:
        """Numbers of candidates, ascending."""
        return _numbers(self.num_candidates)

    @property
    def step_counts(self) -> tuple[int, ...]:
        """Numbers of steps, ascending."""
        return _numbers(self.num_steps)

    @property
    def lengths_s(self) -> tuple[int, ...]:
        """Lengths of the random clips in whole seconds, ascending."""
        return _numbers(self.seconds)

    @property
    def selection_names(self) -> tuple[str, ...]:
        """Selections, in the order of `SELECTIONS`."""
        return tuple(name for name in SELECTIONS if name in words_of(self.selections))

    @property
    def part_names(self) -> tuple[str, ...]:
        """Parts of a comparison with random weights, in the order of `PARTS`."""
        return tuple(name for name in PARTS if name in words_of(self.parts))

    def _problems(self) -> list[str | None]:
        lists = {"--selections": (self.selections, SELECTIONS), "--parts": (self.parts, PARTS)}
        return [
            *(
                one_of(flag, word, known)
                for flag, (text, known) in lists.items()
                for word in words_of(text)
            ),
            *(f"{flag} names nothing." for flag, (text, _) in lists.items() if not words_of(text)),
            one_of("--random", self.random, SIZES),
            one_of("--normaliser", self.normaliser, NORMALISERS),
            one_of("--dtype", self.dtype, DTYPES),
            _numbers_problem("--num-candidates", self.num_candidates),
            _numbers_problem("--num-steps", self.num_steps),
            _numbers_problem("--seconds", self.seconds),
            at_least("--tokens-per-s", self.tokens_per_s, 0.1),
            at_least("--limit", self.limit, 0),
            at_least("--batch-size", self.batch_size, 1),
            at_least("--rounds", self.rounds, 1),
            at_least("--threads", self.threads, 1),
            *(_set_problem(name) for name in self.sets),
        ]


def _set_problem(name: str) -> str | None:
    if len(name.split("/")) == 2:
        return None
    return f"--sets takes CORPUS/SPLIT, such as fsdd/dev, got {name!r}."


def _numbers_problem(flag: str, text: str) -> str | None:
    if all(word.isdigit() and int(word) for word in words_of(text)) and words_of(text):
        return None
    return f"{flag} takes numbers of 1 or more, such as 1,2,4, got {text!r}."


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(word) for word in words_of(text)}))
