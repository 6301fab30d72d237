from __future__ import annotations

import itertools
import math
import random

import pytest

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.decoders.ctc.ngram import NgramModel, read_arpa, train_ngram, write_arpa

LINES = ["turn on the light", "turn off the light", "stop", "turn the fan on", "the light", ""]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one_after_every_context(order):
    model = train_ngram(LINES, order)
    outcomes = [*sorted(model.words), "</s>", "<unk>"]
    contexts = [model.start()]
    contexts += list(itertools.product([*sorted(model.words), "never"], repeat=order - 1))[:200]
    for context in contexts:
        known = tuple(w if w == "<s>" or w in model.words else "<unk>" for w in context)
        total = sum(
            math.exp(model.finish(known) if w == "</s>" else model.step(known, w)[0])
            for w in outcomes
        )
        assert total == pytest.approx(1.0, abs=1e-12)


def test_bigrams_match_kneser_ney_worked_by_hand():
    # "a b", "a c", "a b": bigram counts <s>a 3, ab 2, ac 1, b</s> 2, c</s> 1; n1 = 2, n2 = 2, so
    # D = 2/6. Unigrams count left neighbours: a 1, b 1, c 1, </s> 2; n1 = 3, n2 = 1: D = 3/5, and
    # the mass 4 * 0.6 / 5 goes evenly to five outcomes, the unknown word among them.
    model = train_ngram(["a b", "a c", "a b"], order=2)
    unigram_b = (1 - 0.6) / 5 + (4 * 0.6 / 5) / 5
    bigram = (2 - 1 / 3) / 3 + (1 / 3 * 2 / 3) * unigram_b
    assert math.exp(model.step(("a",), "b")[0]) == pytest.approx(bigram)
    assert math.exp(model.step(("b",), "b")[0]) == pytest.approx((1 / 3 * 1 / 2) * unigram_b)


def test_seen_sentences_are_likelier_than_their_shuffles():
    model = train_ngram(LINES, 3)
    words = LINES[0].split()
    shuffled = words[:]
    random.Random(1).shuffle(shuffled)
    assert model.score(" ".join(words)) > model.score(" ".join(shuffled))


def test_an_unknown_word_is_possible_but_unlikely():
    model = train_ngram(LINES, 2)
    context = model.step(model.start(), "turn")[1]
    assert -math.inf < model.step(context, "zebra")[0] < model.step(context, "on")[0]


def test_arpa_round_trip_keeps_every_probability(tmp_path):
    model = train_ngram(LINES, 3)
    write_arpa(model, tmp_path / "words.arpa")
    again = read_arpa(tmp_path / "words.arpa")
    assert again.order == 3
    assert again.words == model.words
    assert again.log_probs.keys() == model.log_probs.keys()
    assert again.backoffs.keys() == model.backoffs.keys()
    for text in [*LINES, "the zebra stop", "light light light"]:
        assert again.score(text) == pytest.approx(model.score(text), abs=1e-5)


def test_an_arpa_file_of_another_tool_is_read(tmp_path):
    path = tmp_path / "other.arpa"
    path.write_text(
        "\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1.0 <unk>\n-99 <s> -0.5\n-0.3 </s>\n"
        "-0.6 yes -0.2\n\n\\2-grams:\n-0.1 <s> yes\n\n\\end\\\n"
    )
    model = read_arpa(path)
    # "<s> yes" is listed; "yes </s>" backs off: -0.2 - 0.3.
    assert model.score("yes") == pytest.approx((-0.1 - 0.5) * math.log(10))
    assert model.score("no") == pytest.approx((-0.5 - 1.0 - 0.3) * math.log(10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello there\n", "line 1 is no 0-gram|line 1 is no ARPA entry"),
        ("\\1-grams:\nx a\n", "line 2 is no ARPA entry: 'x a'"),
        ("\\2-grams:\n-1 a\n", "line 2 is no 2-gram: '-1 a'"),
        ("\\data\\\n\\end\\\n", "holds no n-grams"),
    ],
)
def test_a_file_that_is_not_arpa_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "bad.arpa"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_arpa(path)


def test_training_refuses_what_it_cannot_use():
    with pytest.raises(ConfigError, match="between 1 and 5, got 6"):
        train_ngram(LINES, 6)
    with pytest.raises(DataError, match="at least one word"):
        train_ngram(["", "  "])
    with pytest.raises(DataError, match=r"spells \['<s>'\]"):
        train_ngram(["a <s> b"])


def test_a_word_missing_from_a_model_without_unknown_word_is_excluded():
    model = NgramModel(1, {("a",): 0.0}, {})
    assert model.step((), "b")[0] == -math.inf
