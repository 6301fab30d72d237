"""What an adaptation may cost: trained parameters, and minutes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from speechadapt.adapters.attach import choose_sites
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.norms import norm_sites
from speechadapt.core.bind import bind
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site
from speechadapt.training.objective import Objective

_WIDTHS = ("rank", "bottleneck", "parallel_rank", "sequential_rank")
_UNITS = {
    "": ("parameters", 1.0),
    "k": ("parameters", 1e3),
    "M": ("parameters", 1e6),  # a small m might as well mean minutes
    "%": ("share", 0.01),
    "s": ("minutes", 1 / 60),
    "min": ("minutes", 1.0),
    "h": ("minutes", 60.0),
}
_FORM = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(k|M|%|s|min|h)?")
_TIMED_STEPS = 2


@dataclass(frozen=True)
class Budget:
    """The most that may be spent; None sets no limit.

    Args:
        parameters: Trained parameters of the adapter, its head not counted.
        share: The same as a share of the encoder's parameters.
        minutes: Time of training.
    """

    parameters: float | None = None
    share: float | None = None
    minutes: float | None = None

    def most(self, encoder: int) -> float | None:
        """Return the most parameters for an encoder of so many."""
        limits = [] if self.parameters is None else [self.parameters]
        limits += [] if self.share is None else [self.share * encoder]
        return min(limits, default=None)


def parse_budget(words: Sequence[str]) -> Budget:
    """Read budgets such as `200k`, `1.5M`, `2%`, `20min` and `2h`.

    Args:
        words: At most one of each kind.

    Raises:
        ConfigError: A word is none of these, is 0, or is the second of its kind.
    """
    found: dict[str, float] = {}
    for word in words:
        match = _FORM.fullmatch(word.strip())
        if match is None or not float(match[1]) > 0:
            raise ConfigError(
                f"--budget takes parameters (200k, 1.5M, 2%) or time (20min, 2h), got {word!r}."
            )
        kind, factor = _UNITS[match[2] or ""]
        if kind in found:
            raise ConfigError(f"--budget was given twice for {kind}; {word!r} is the second.")
        found[kind] = float(match[1]) * factor
    return Budget(**found)


@dataclass(frozen=True)
class Size:
    """How large an adapter is.

    Args:
        settings: The method's settings that make it so large.
        parameters: Trained parameters.
    """

    settings: Mapping[str, Any]
    parameters: int


def size_adapter(
    encoder: Encoder,
    name: str,
    given: Mapping[str, Any],
    roles: Sequence[str],
    train_norms: str,
    most: float,
    firm: bool = True,
) -> Size:
    """Choose the widest adapter of a method that keeps to a number of parameters.

    Args:
        encoder: What it is for.
        name: The method.
        given: Settings the user chose; a width among them is left as it is.
        roles: Role patterns; empty takes the method's own.
        train_norms: Which norms are trained beside it.
        most: Parameters not to be exceeded.
        firm: Whether to refuse where even the narrowest adapter is too large; it is taken if not.

    Raises:
        CatalogError: There is no such method.
        ConfigError: A setting does not fit, or, where `firm`, the narrowest adapter is too large.
        SiteError: A pattern matches nothing.
    """
    method = method_of(name)
    method = method.of(bind(method.config, given)[0])
    sites = choose_sites(encoder, list(roles) or list(method.roles))
    norms = norm_sites(encoder, train_norms, sites)
    own = {entry.name for entry in fields(method.config)}
    widths = [width for width in _WIDTHS if width in own]
    if set(widths) & given.keys():
        widths = []

    def sized(width: int) -> Size:
        settings = {**_strength(name, width, own, widths), **dict.fromkeys(widths, width), **given}
        config: Any
        config, problems = bind(method.config, settings, "adapter")
        if problems:
            raise ConfigError("\n".join(problems))
        total = sum(method.parameters(site, config) for site in sites)
        if method.shared_parameters is not None:
            total += method.shared_parameters(sites, config)
        return Size(settings, total + sum(2 * site.dim_out for site in norms))

    least = sized(1)
    if firm and least.parameters > most:
        raise ConfigError(
            f"a budget of {most:,.0f} parameters was given, but the smallest adapter of the method "
            f"'{name}' with these settings has {least.parameters:,}. Raise --budget, give "
            "-O roles=[...] for fewer places, or take a smaller --method such as adapter_bias."
        )
    return _widest(sized, _limit(sites), most) if widths else least


def _widest(sized: Any, limit: int, most: float) -> Size:
    """Return the size of the largest width that is not too many; parameters grow with it."""
    low, high = 1, limit
    while low < high:
        middle = (low + high + 1) // 2
        if sized(middle).parameters <= most:
            low = middle
        else:
            high = middle - 1
    found: Size = sized(low)
    return found


def _limit(sites: Sequence[Site]) -> int:
    return max(1, min(min(site.dim_in, site.dim_out) for site in sites))


def _strength(name: str, width: int, own: set[str], widths: Sequence[str]) -> dict[str, Any]:
    """Keep the scale alpha / rank that the method's defaults have."""
    if "alpha" not in own or "rank" not in widths:
        return {}
    usual = method_of(name).config()
    return {"alpha": width * float(usual.alpha) / int(usual.rank)}


@dataclass(frozen=True)
class Pace:
    """How long parts of a run take.

    Args:
        step_s: One optimiser step, in seconds.
        evaluation_s: One scoring of the dev recordings.
    """

    step_s: float
    evaluation_s: float

    def seconds(self, steps: int, evaluations: int) -> float:
        """Return the length of a run."""
        return steps * self.step_s + evaluations * self.evaluation_s

    def evaluations(self, minutes: float, usual: int) -> int:
        """Return how often to score in so many minutes: a quarter of the time at most."""
        room = 60 * minutes / 4 / max(self.evaluation_s, 1e-6)
        return max(1, min(usual, int(room)))

    def steps(self, minutes: float, evaluations: int) -> int:
        """Return the steps that fit into so many minutes with so many evaluations."""
        left = 60 * minutes - evaluations * self.evaluation_s
        return int(left / max(self.step_s, 1e-6))


def measure_pace(objective: Objective, accumulate: int = 1) -> Pace:
    """Time a few steps without updates, and one evaluation; nothing trained is changed.

    The objective is moved to where it would be trained.

    Args:
        objective: The task; use another one to train.
        accumulate: Micro-steps per optimiser step.
    """
    objective.to("cuda" if torch.cuda.is_available() else "cpu")
    objective.train()
    _micro_step(objective, 0)  # the first one also allocates and decodes
    started = time.perf_counter()
    for number in range(_TIMED_STEPS):
        _micro_step(objective, 1 + number)
    step_s = (time.perf_counter() - started) / _TIMED_STEPS * accumulate
    objective.eval()
    started = time.perf_counter()
    with torch.no_grad():
        objective.evaluate()
    return Pace(step_s, time.perf_counter() - started)


def _micro_step(objective: Objective, number: int) -> None:
    batch = {name: part.to(objective.device) for name, part in objective.batch(number, 0).items()}
    loss, _ = objective(batch)
    loss.backward()
    objective.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
