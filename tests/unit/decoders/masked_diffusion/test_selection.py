from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import jiwer
import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.decoders.masked_diffusion.options import SELECTIONS, DiffusionOptions
from speechadapt.decoders.masked_diffusion.selection import (
    Candidate,
    Slot,
    Written,
    align,
    disagreement,
    expected_errors,
    select,
    vote,
)


def written(text: str, probability: float = 0.5) -> Written:
    return Written(text, (len(text),), (math.log(probability),))


def candidate(text: str, probability: float = 0.5, end: float | None = 0.5) -> Candidate:
    words = tuple(written(word, probability) for word in text.split())
    return Candidate(words, None if end is None else math.log(end))


def small_sets(count: int) -> list[list[list[str]]]:
    """Small random lists of texts over three words."""
    draw = random.Random(0)
    return [
        [[draw.choice("abc") for _ in range(draw.randint(0, 4))] for _ in range(draw.randint(2, 4))]
        for _ in range(count)
    ]


def test_expected_errors_are_the_mean_error_rates_by_brute_force() -> None:
    for texts in small_sets(60):
        texts = [text for text in texts if text] or [["a"]]
        if len(texts) == 1:
            assert expected_errors(texts) == [0.0]
            continue
        for row, risk in enumerate(expected_errors(texts)):
            rates = [
                jiwer.wer(" ".join(other), " ".join(texts[row]))
                for at, other in enumerate(texts)
                if at != row
            ]
            assert risk == pytest.approx(sum(rates) / len(rates))


def test_mbr_takes_the_text_of_least_risk_and_confidence_the_surest() -> None:
    texts = [candidate("a b d", 0.9), candidate("a b c", 0.3), candidate("a b c d", 0.4)]
    kept = {
        name: select(texts, DiffusionOptions(select=name)).best
        for name in ("confidence", "mbr", "mbr+confidence")
    }
    assert kept["confidence"] == 0
    risks = expected_errors([one.keys for one in texts])
    assert kept["mbr"] == min(range(3), key=lambda row: risks[row])
    scores = [one.confidence - 0.5 * risk for one, risk in zip(texts, risks, strict=True)]
    assert kept["mbr+confidence"] == scores.index(max(scores))


def test_equal_risks_are_told_apart_by_confidence_and_then_by_order() -> None:
    texts = [candidate("a"), candidate("b", 0.8), candidate("c", 0.8)]
    assert select(texts, DiffusionOptions(select="mbr")).best == 1


def test_the_end_counts_as_a_token_so_that_silence_can_win() -> None:
    assert candidate("a b", 0.4, 0.7).confidence == pytest.approx((0.4 + 0.4 + 0.7) / 3)
    assert candidate("a b", 0.4, None).confidence == pytest.approx(0.4)
    assert candidate("", end=None).confidence == 0.0
    texts = [candidate("", end=0.99), candidate("um", 0.2, 0.3)]
    assert select(texts, DiffusionOptions(select="confidence")).best == 0


def cheapest(slots: Sequence[Slot], words: Sequence[str], laid: int) -> float:
    """The least cost of laying words over slots, by trying every alignment."""
    if not slots and not words:
        return 0.0
    ways = []
    if slots and words:
        same = words[0] in {word.key for word in slots[0].words}
        ways.append((0.0 if same else 1.0) + cheapest(slots[1:], words[1:], laid))
    if slots:
        ways.append((0.0 if len(slots[0].words) < laid else 1.0) + cheapest(slots[1:], words, laid))
    if words:
        ways.append(1.0 + cheapest(slots, words[1:], laid))
    return min(ways)


def cost_of(before: Sequence[Slot], after: Sequence[Slot], laid: int) -> float:
    """What an alignment cost, read off the slots before and after."""
    total, at = 0.0, 0
    for slot in after:
        old = before[at] if at < len(before) else None
        if old is not None and slot.words[: len(old.words)] == old.words:
            at += 1
            if len(slot.words) > len(old.words):
                total += 0.0 if old.holds(slot.words[-1].key) else 1.0
            else:
                total += 0.0 if len(old.words) < laid else 1.0
        else:
            assert len(slot.words) == 1
            total += 1.0
    assert at == len(before)
    return total


def test_every_text_is_laid_at_the_least_cost_by_brute_force() -> None:
    for number, texts in enumerate(small_sets(60)):
        laid = [
            Candidate(tuple(written(word, 0.01 * (10 * at + number % 7 + 1)) for word in text), 0.0)
            for at, text in enumerate(texts)
        ]
        for count in range(1, len(laid)):
            before, after = align(laid[:count]), align(laid[: count + 1])
            assert cost_of(before, after, count) == cheapest(before, texts[count], count)
            spelled = [slot.words[-1].text for slot in after if slot.words[-1] in laid[count].words]
            assert spelled == texts[count]


def score(path: Sequence[Written | None], slots: Sequence[Slot], voters: int) -> float:
    total = 0.0
    for word, slot in zip(path, slots, strict=True):
        if word is None:
            total += 0.5 * (voters - len(slot.words)) / voters + 0.5 * 0.7
        else:
            same = [one.probability for one in slot.words if one.key == word.key]
            total += 0.5 * len(same) / voters + 0.5 * max(same)
    return total


def test_the_vote_is_the_best_path_through_the_slots_by_brute_force() -> None:
    draw = random.Random(1)
    for texts in small_sets(15):
        laid = [
            Candidate(tuple(written(word, draw.uniform(0.05, 0.99)) for word in text), 0.0)
            for text in texts
        ]
        slots = align(laid)
        ways = [[*slot.words, *([None] if len(slot.words) < len(laid) else [])] for slot in slots]
        best = max(
            (score(path, slots, len(laid)) for path in itertools.product(*ways)), default=0.0
        )
        kept = vote(slots, len(laid), 0.5, 0.7)
        matching = [
            path
            for path in itertools.product(*ways)
            if [one.key for one in path if one is not None] == [one.key for one in kept]
        ]
        assert max(score(path, slots, len(laid)) for path in matching) == pytest.approx(best)


def test_rover_puts_words_of_several_texts_together() -> None:
    texts = [
        candidate("turn the fight on"),
        candidate("learn the light on"),
        candidate("turn a light on"),
    ]
    found = select(texts, DiffusionOptions(select="rover"))
    assert [word.text for word in found.words] == "turn the light on".split()


def test_rover_drops_what_hardly_anyone_heard() -> None:
    texts = [candidate("turn it on"), candidate("turn it um on", 0.3), candidate("turn it on")]
    found = select(texts, DiffusionOptions(select="rover"))
    assert [word.text for word in found.words] == "turn it on".split()


@pytest.mark.parametrize("name", SELECTIONS)
def test_one_text_is_kept_as_it_is(name: str) -> None:
    only = candidate("alone here")
    found = select([only], DiffusionOptions(select=name))
    assert (found.words, found.best, found.disagreement) == (only.words, 0, 0.0)


def test_case_does_not_tell_words_apart() -> None:
    assert expected_errors([one.keys for one in (candidate("On"), candidate("on"))]) == [0.0, 0.0]


def test_disagreement_is_the_mean_share_of_differing_words() -> None:
    assert disagreement([["a", "b"], ["a", "c"], ["a", "b"]]) == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert disagreement([["a"], []]) == 1.0
    assert disagreement([[], []]) == 0.0


def test_an_unknown_way_to_choose_is_refused() -> None:
    with pytest.raises(ConfigError, match="select knows no 'best'"):
        DiffusionOptions(select="best")
