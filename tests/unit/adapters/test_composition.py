from __future__ import annotations

import pytest

from speechadapt.adapters.composition import (
    Composed,
    Single,
    average,
    fuse,
    leaves,
    parse,
    renamed,
    route,
    stack,
)
from speechadapt.core.errors import ConfigError

EXAMPLES = {
    "digits": Single("digits"),
    "runs/a b/best": None,
    "fuse( a,b , c )": fuse("a", "b", "c"),
    "stack(fuse(a, b, method=gated), c)": stack(fuse("a", "b", method="gated"), "c"),
    "average(a: .7, b: 0.3)": average({"a": 0.7, "b": 0.3}),
    "average(a: 2, b: 1e-3)": average({"a": 2.0, "b": 0.001}),
    "auto": Composed("route"),
    "auto(index/, top=2, temperature=0.1, strict=true)": route(
        "index/", top=2, temperature=0.1, strict=True
    ),
    "fuse('runs/my (old) one', \"b\")": fuse(Single("runs/my (old) one"), "b"),
    'fuse(a, b, note="2")': fuse("a", "b", note="2"),
}


@pytest.mark.parametrize("text", [text for text, value in EXAMPLES.items() if value is not None])
def test_text_is_read_and_written_back(text):
    value = parse(text)
    assert value == EXAMPLES[text]
    assert parse(str(value)) == value


def test_the_text_of_a_value_is_what_one_would_type():
    assert str(parse("fuse( a ,b,method=gated)")) == "fuse(a, b, method=gated)"
    assert str(average({"a": 0.7, "b": 1.0})) == "average(a: 0.7, b: 1)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "at its end there should be the name"),
        ("fuse(a", "at its end there should be a comma or a closing bracket"),
        ("fuse(a b)", r"at 'b\)' there should be a comma"),
        ("fuse(a))", r"at '\)' there should be the end"),
        ("runs/a best", "at 'best' there should be the end"),
        ("runs/x(a)", "at 'runs/x.*' there should be the kind of a composition"),
        ("average(a: x)", "at 'x.*' there should be a number after the colon"),
        ("average(a: 1, b)", "gives 1 weights for 2 adapters of average"),
        ("fuse(a, key=1, key=2)", "one value for key, which is given twice"),
        ("fuse(a, key=)", r"at '\)' there should be a value for key"),
    ],
)
def test_what_cannot_be_read_is_shown_with_its_place(text, found):
    with pytest.raises(ConfigError, match=found):
        parse(text)


def test_leaves_come_once_and_in_order():
    value = parse("stack(fuse(b, a), a, c)")
    assert leaves(value) == ("b", "a", "c")
    assert str(renamed(value, {"a": "x"})) == "stack(fuse(b, x), x, c)"


def test_an_adapter_called_auto_stands_in_quotes():
    assert parse(str(Single("auto"))) == Single("auto")
