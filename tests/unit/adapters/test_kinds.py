from __future__ import annotations

import pytest

from speechadapt.adapters import kinds
from speechadapt.adapters.kinds import Part, Request, kind_names, kind_of, kind_title
from speechadapt.core.errors import CatalogError, ConfigError


def test_the_folder_is_the_list():
    assert {"stack", "fuse", "average"} <= set(kind_names())
    assert kind_title("stack").startswith("Adapters one after the other")


def test_a_file_without_a_kind_is_named(tmp_path, monkeypatch):
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(kinds, "_FOLDER", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "speechadapt.adapters.compose.empty", kinds)
    with pytest.raises(CatalogError, match=r"'empty' was looked for .* publishes no KIND"):
        kind_of("empty")
    with pytest.raises(CatalogError, match="no composition 'full'"):
        kind_of("full")


def test_a_stack_is_no_single_adapter(load, trained):
    encoder = load()
    trained(encoder)
    parts = (Part("a", ("a",)), Part("stack(b, c)", ("b", "c")))
    request = Request(encoder, "x", "mera(a, stack(b, c))", parts, (), None)
    with pytest.raises(ConfigError, match=r"takes single adapters, but 'stack\(b, c\)' is a stack"):
        request.handles()
