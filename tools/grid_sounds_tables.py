"""The tables of the comparison on ESC-10: every arm, and the study's questions one by one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grid_plan import Line, Plan, Runs, of_kind

from speechadapt.metrics.bootstrap import Interval, bootstrap_difference, bootstrap_ratio
from speechadapt.metrics.report import percent

NOTE = (
    "Written by `tools/grid.py sounds --report` from the lines of the results file beside this "
    "page. Every fold was held out once and scored once; the base has heard none of the clips. "
    "Every arm had the same steps and batches. `bottleneck` and `conformer` are the plainest "
    "adapters, beside every feed-forward (Pfeiffer's placement), parallel, without a residual "
    "inside; a name says what differs: `houlsby` stands at attention too and is half as wide, "
    "`w4` is 4 wide, `tokens` lets the convolution run on over the whole token sequence, `8shot` "
    "trains on 8 clips of each class. The rate was chosen in each fold on a fifth of the other "
    "folds, by these two, `knitting`, `full` and `head`; the other arms took theirs. `trained` "
    "leaves the head out. Intervals draw clips; they leave out what another seed would change."
)
HEADER = (
    "| arm | trained, of the base | rates by fold | dev | accuracy | each fold | against `full` | "
    "step |",
    "|---|---|---|---|---|---|---|---|",
)
FAMILIES = ("bottleneck", "conformer")
PLACES = ("", "-houlsby")
JOINS = ("", "-residual", "-sequential", "-sequential-plain")


@dataclass(frozen=True)
class Contrast:
    """One question of the study, as pairs of arms that differ in nothing else.

    Args:
        question: What is compared, the first named first.
        expected: What the study says.
        pairs: The arms.
    """

    question: str
    expected: str
    pairs: tuple[tuple[str, str], ...]


def _across(first: str, second: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of two ways to join, for both families at both placements."""
    return tuple(
        (f"{name}{place}{first}", f"{name}{place}{second}") for name in FAMILIES for place in PLACES
    )


CONTRASTS = (
    Contrast(
        "convolution against bottleneck, same size",
        "convolution better",
        tuple((f"conformer{p}{j}", f"bottleneck{p}{j}") for p in PLACES for j in JOINS),
    ),
    Contrast(
        "the same, small and large",
        "better at every size",
        (("conformer-w2", "bottleneck-w4"), ("conformer-w62", "bottleneck-w96")),
    ),
    Contrast(
        "the same, 8 clips a class",
        "better with few clips",
        (("conformer-8shot", "bottleneck-8shot"),),
    ),
    Contrast("convolution against full fine-tuning", "as good or better", (("conformer", "full"),)),
    Contrast("bottleneck against full fine-tuning", "-", (("bottleneck", "full"),)),
    Contrast(
        "convolution against full fine-tuning, 8 clips a class",
        "better",
        (("conformer-8shot", "full-8shot"),),
    ),
    Contrast(
        "parallel without a residual against with one",
        "without is better",
        _across("", "-residual"),
    ),
    Contrast(
        "sequential with a residual against without",
        "with is better",
        _across("-sequential", "-sequential-plain"),
    ),
    Contrast(
        "parallel against sequential, each as advised",
        "parallel chosen",
        _across("", "-sequential"),
    ),
    Contrast(
        "beside the feed-forward against at attention too, same size",
        "the former chosen",
        tuple((f"{n}{j}", f"{n}-houlsby{j}") for n in FAMILIES for j in JOINS),
    ),
    Contrast(
        "convolution along time in a row against over all tokens",
        "- (the released code runs over all tokens)",
        (("conformer", "conformer-tokens"),),
    ),
    Contrast(
        "knitting attention against bottleneck, same place and size",
        "- (not in it)",
        (("knitting", "bottleneck"),),
    ),
)


def section(name: str, plan: Plan, lines: Sequence[Line]) -> list[str]:
    """Return the paragraphs about one corpus.

    Args:
        name: The corpus.
        plan: What its runs were to be.
        lines: The lines of one protocol.
    """
    runs, tests = of_kind(lines, "run"), of_kind(lines, "test")
    parts = [f"## {name}", _facts(lines)]
    done = [
        one for one in plan.finished(plan.arms, runs) if tests.keys() >= {*plan.chosen([one], runs)}
    ]
    arms = {one: Arm.of(one, plan, runs, tests) for one in done}
    if "full" in arms:
        parts += [_table(arms), "Questions of the study:", _contrasts(arms)]
    left = [one for one in plan.arms if one not in arms]
    if left:
        parts.append(f"Not scored yet: {', '.join(f'`{one}`' for one in left)}.")
    leaders = dict.fromkeys(plan.leaders.get(one, one) for one in plan.arms)
    return [*parts, "Error on dev by learning rate, fold by fold:", _search(leaders, plan, runs)]


def _facts(lines: Sequence[Line]) -> str:
    first = next(one for one in lines if one["kind"] == "run")
    return (
        f"Per cent of the clips, {first['steps']} steps. {first['processor']}, {first['threads']} "
        f"thread, {first['date']}; `{first['command']}`, then the same with `--report`."
    )


@dataclass(frozen=True)
class Arm:
    """What is known of one arm after all folds.

    Args:
        name: The arm.
        run: A line of one of its runs.
        rates: By fold.
        dev: Error on dev, the mean over the folds.
        wrong: For each clip of the corpus, whether it was missed when its fold was held out.
        each: Error by fold.
        step_s: Median over the folds.
    """

    name: str
    run: Line
    rates: tuple[float, ...]
    dev: float
    wrong: dict[str, int]
    each: tuple[float, ...]
    step_s: float

    @classmethod
    def of(cls, name: str, plan: Plan, runs: Runs, tests: Runs) -> Arm:
        """Return what the lines of an arm's chosen runs say.

        Args:
            name: The arm.
            plan: What its runs were to be.
            runs: Finished runs.
            tests: Their test scores.
        """
        chosen = plan.chosen([name], runs)
        found = [tests[run] for run in chosen]
        pairs = (zip(one["items"], one["edits"], strict=True) for one in found)
        return cls(
            name,
            runs[chosen[0]],
            tuple(run.rate for run in chosen),
            statistics.fmean(runs[run]["dev"] for run in chosen),
            {item: wrong for fold in pairs for item, wrong in fold},
            tuple(statistics.fmean(one["edits"]) for one in found),
            statistics.median(runs[run]["step_s"] for run in chosen),
        )

    @property
    def accuracy(self) -> Interval:
        """Share of the clips whose class is found."""
        right = [1 - one for one in self.wrong.values()]
        return bootstrap_ratio(right, [1] * len(right))

    def row(self, against: Arm | None) -> str:
        """Return the arm's row of the table.

        Args:
            against: The arm it is compared with.
        """
        between = "-"
        if against is not None and against is not self:
            between = percent(difference([(self, against)]))
        cells = (
            f"`{self.name}`",
            f"{100 * self.run['trained'] / self.run['encoder']:.2f} %",
            ", ".join(f"{rate:g}" for rate in self.rates),
            f"{100 * (1 - self.dev):.1f}",
            percent(self.accuracy),
            ", ".join(f"{100 * (1 - one):.0f}" for one in self.each),
            between,
            f"{self.step_s:.2f} s",
        )
        return "| " + " | ".join(cells) + " |"


def difference(pairs: Iterable[tuple[Arm, Arm]]) -> Interval:
    """Return how much more of the clips the first arms get right than the second ones.

    Clips are drawn with their results in all pairs.

    Args:
        pairs: Arms that were given the same clips.
    """
    pairs = list(pairs)
    items = sorted(pairs[0][0].wrong)
    first, second = ([sum(pair[n].wrong[item] for pair in pairs) for item in items] for n in (0, 1))
    return bootstrap_difference(second, first, [len(pairs)] * len(items))


def _table(arms: dict[str, Arm]) -> str:
    ranked = sorted(arms.values(), key=lambda one: (-one.accuracy.estimate, one.name))
    few = [one for one in ranked if one.run["shots"]]
    rows = [one.row(arms["full"]) for one in ranked if not one.run["shots"]]
    rows += [one.row(arms.get("full-8shot")) for one in few]
    return "\n".join((*HEADER, *rows))


def _contrasts(arms: dict[str, Arm]) -> str:
    rows = [
        "| question | the study | pairs | accuracy, first and second | difference | here |",
        "|---|---|---|---|---|---|",
    ]
    for contrast in CONTRASTS:
        pairs = [(arms[a], arms[b]) for a, b in contrast.pairs if a in arms and b in arms]
        if not pairs:
            continue
        means = [statistics.fmean(pair[n].accuracy.estimate for pair in pairs) for n in (0, 1)]
        found = difference(pairs)
        cells = (
            contrast.question,
            contrast.expected,
            f"{len(pairs)} of {len(contrast.pairs)}",
            ", ".join(f"{100 * one:.1f}" for one in means),
            percent(found),
            verdict(found),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def verdict(found: Interval) -> str:
    """Say in words on which side of zero an interval lies.

    Args:
        found: A difference, the first minus the second.
    """
    if found.low > 0:
        return "first better"
    return "second better" if found.high < 0 else "not told apart"


def _search(names: Iterable[str], plan: Plan, runs: Runs) -> str:
    head = ("arm", *(f"{rate:g}" for rate in plan.rates))
    rows = [head, ("---",) * len(head)]
    for name in names:
        cells = [f"`{name}`"]
        for rate in plan.rates:
            found = [runs.get(run) for run in plan.search(name) if run.rate == rate]
            cells.append(
                ", ".join("-" if one is None else f"{100 * one['dev']:.0f}" for one in found)
            )
        rows.append(tuple(cells))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
