"""What the README shows of a comparison of ways to serve many tasks: figures beside their bars."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from multitask_plan import FREE, FULL, HEAD, Plan, noted, oracle_of
from multitask_tables import Arm, arms_of, best_untold

from speechadapt.metrics.macro import MacroInterval, macro_relative

# The arms that are no way of serving many tasks, and are not to beat the head alone.
OTHERS = (HEAD, FULL)


def claimed(plan: Plan, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures, of what is known.

    Args:
        plan: Tasks, rates, seeds.
        lines: The lines of one protocol.
    """
    arms = arms_of(plan, lines)
    found = _against(arms)
    for line in noted(lines, "retrieval")[-1:]:
        found += _found_by_sound(line)
    return found


def _against(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    by_name = {one.name: one for one in arms}
    best = best_untold(arms)
    if best is None or not {HEAD, FULL, oracle := oracle_of(best.name)} <= by_name.keys():
        return []
    method = (
        f"`{best.name}`, seeds: {best.seeds}, against `{oracle}` and `{FULL}`; paired 95% "
        "bootstrap, tasks counting alike"
    )
    to_oracle, to_full = (
        macro_relative(best.test["cer"], by_name[name].test["cer"]) for name in (oracle, FULL)
    )
    high = 1 + to_oracle.high
    found = [
        _ratio("multitask_oracle", to_oracle, method),
        _figure("multitask_oracle_high", (high, high, high), method),
        _ratio("multitask_full", to_full, method),
    ]
    share = 100 * best.held / best.encoder
    found.append(_figure("multitask_held", (share,) * 3, f"counted, of `{best.name}`"))
    ways = [one for one in arms if one.name not in OTHERS]
    head = by_name[HEAD].test["cer"]
    unsure = [one.name for one in ways if macro_relative(one.test["cer"], head).high >= 0]
    names = ", ".join(f"`{name}`" for name in unsure) or "none"
    text = f"{names} of {len(ways)}: upper end of the paired 95% interval at 0 or above"
    found.append(_figure("multitask_head", (float(len(unsure)),) * 3, text))
    return found


def _found_by_sound(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    left = [100 * one["abstain"] for one in line["left_out"].values()]
    rates = [100 * one for one in line["accuracy"].values()]
    single = {"retrieval_false": "false_abstain", "retrieval_sounds": "sounds_abstain"}
    found = [
        _figure(
            "retrieval_accuracy",
            (statistics.fmean(rates), min(rates), max(rates)),
            f"test recordings, mean, min and max of {len(rates)} tasks",
        )
    ]
    for claim, key in single.items():
        found.append(_figure(claim, (100 * line[key],) * 3, "test recordings, threshold from dev"))
    text = f"each of {len(left)} corpora left out with its noisy siblings; mean, min and max"
    found.append(
        _figure("retrieval_left_out", (statistics.fmean(left), min(left), max(left)), text)
    )
    return found


def _ratio(claim: str, value: MacroInterval, method: str) -> dict[str, Any]:
    return _figure(claim, (1 + value.estimate, 1 + value.low, 1 + value.high), method)


def _figure(claim: str, values: tuple[float, float, float], method: str) -> dict[str, Any]:
    value, low, high = values
    return {"claim": claim, "value": value, "low": low, "high": high, "method": method}


def told(plan: Plan, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what stands beside the figures: ways by name, and how they were scored.

    Args:
        plan: Tasks, rates, seeds.
        lines: The lines of one protocol.
    """
    arms = arms_of(plan, lines)
    return {
        "tasks": list(plan.tasks),
        "untrained": list(FREE),
        "dev_cer": {one.name: one.dev for one in sorted(arms, key=lambda one: one.dev)},
        "seeds": {one.name: one.seeds for one in arms},
    }
