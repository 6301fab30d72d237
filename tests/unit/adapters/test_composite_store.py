from __future__ import annotations

import json
import shutil

import pytest
import torch

from speechadapt.adapters import store
from speechadapt.adapters.attach import remove
from speechadapt.adapters.composed import compose
from speechadapt.adapters.composite_store import (
    CONFIG,
    WEIGHTS,
    fingerprint,
    is_composition,
    load_composite,
    read_composite,
    save_composite,
)
from speechadapt.adapters.handle import attachment, attachments
from speechadapt.core.errors import CheckpointError, ConfigError

TEXT = "stack(fuse(a, b, key_width=4), c)"


@pytest.fixture
def saved(load, trained, frames, move, tmp_path):
    """Save three adapters, load them, compose and save the composition; return what it gives."""
    first = load()
    for handle in trained(first):
        store.save(handle, tmp_path / handle.name)
    encoder = load()
    for name in "abc":
        store.load(encoder, tmp_path / name, activate=False)
    names = compose(encoder, TEXT)
    move(attachment(encoder, names[0]))

    def save(**options: object):
        head = {"weight": torch.ones(2, 2)}
        return save_composite(encoder, TEXT, tmp_path / "mixed", head=head, **options)

    return save, encoder, frames(encoder, names)


def test_a_composition_saved_by_reference_comes_back(saved, load, frames, tmp_path):
    save, _, wanted = saved
    folder = save(training={"steps": 3})
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", CONFIG, WEIGHTS]
    assert is_composition(folder)
    encoder = load()
    names = load_composite(encoder, folder)
    assert torch.equal(frames(encoder, names), wanted)
    assert list(attachments(encoder))[:3] == ["a", "b", "c"]
    assert read_composite(folder).head["weight"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert read_composite(folder).details["training"] == {"steps": 3}


def test_folders_may_move_together(saved, load, frames, tmp_path):
    save, _, wanted = saved
    save()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("a", "b", "c", "mixed"):
        shutil.move(tmp_path / name, moved / name)
    encoder = load()
    assert torch.equal(frames(encoder, load_composite(encoder, moved / "mixed")), wanted)


def test_a_bundle_needs_nothing_else(saved, load, frames, tmp_path):
    save, _, wanted = saved
    folder = save(bundle=True)
    for name in "abc":
        shutil.rmtree(tmp_path / name)
    alone = tmp_path / "far" / "away"
    alone.parent.mkdir()
    shutil.move(folder, alone)
    encoder = load()
    assert torch.equal(frames(encoder, load_composite(encoder, alone)), wanted)


def test_a_missing_part_is_named_with_the_places_looked_at(saved, load, tmp_path):
    save, *_ = saved
    folder = save()
    shutil.move(tmp_path / "b", tmp_path / "kept")
    encoder = load()
    with pytest.raises(CheckpointError, match=r"made of 'b' \(parallel\), which is in none of"):
        load_composite(encoder, folder)
    assert attachments(encoder) == {}
    load_composite(encoder, folder, parts={"b": tmp_path / "kept"})


def test_a_part_that_changed_since_is_named(saved, load, frames, tmp_path):
    save, *_ = saved
    folder = save()
    other = load()
    handle = store.load(other, tmp_path / "b")
    with torch.no_grad():
        next(handle.parameters()).view(-1)[0] += 1e-3
    store.save(handle, tmp_path / "b")
    encoder = load()
    with pytest.raises(CheckpointError, match=r"made with 'b' .* changed since"):
        load_composite(encoder, folder)
    assert attachments(encoder) == {}
    assert not any(one._forward_hooks for one in encoder.modules())


def test_a_part_on_the_encoder_is_taken_if_it_is_the_same(saved, load, frames, tmp_path):
    save, _, wanted = saved
    folder = save()
    encoder = load()
    handle = store.load(encoder, tmp_path / "a")
    assert torch.equal(frames(encoder, load_composite(encoder, folder)), wanted)
    assert attachment(encoder, "a") is handle
    for name in list(attachments(encoder)):
        if name != "a":
            remove(encoder, name)
    with torch.no_grad():
        next(handle.parameters()).view(-1)[0] += 1e-3
    with pytest.raises(
        CheckpointError, match=r"made with 'a' .* the one on the encoder is another"
    ):
        load_composite(encoder, folder)
    assert list(attachments(encoder)) == ["a"]


def test_a_part_trained_along_is_bundled_or_refused(saved, load, frames):
    save, encoder, _ = saved
    with torch.no_grad():
        next(attachment(encoder, "c").parameters()).view(-1)[0] += 1e-3
    with pytest.raises(CheckpointError, match=r"'c' .* was changed since it was loaded"):
        save()
    wanted = frames(encoder, encoder.attached.default.rows[0])
    fresh = load()
    assert torch.equal(frames(fresh, load_composite(fresh, save(bundle=True))), wanted)


def test_another_base_is_refused_and_the_part_named(saved, tiny_folder, tmp_path):
    from speechadapt.encoders.catalog import load_encoder
    from speechadapt.encoders.tiny import write_tiny

    save, *_ = saved
    other = load_encoder(write_tiny("whisper", tmp_path / "other", seed=7), padding="native")
    with pytest.raises(CheckpointError, match="adapter 'a' was trained on"):
        load_composite(other, save())
    assert attachments(other) == {}


def test_a_fingerprint_is_of_the_adapter_on_disk_and_in_memory(load, trained, tmp_path):
    encoder = load()
    first, second, _ = trained(encoder)
    store.save(first, tmp_path / "a", training={"steps": 1})
    again = load()
    loaded = store.load(again, tmp_path / "a", name="other")
    mark = fingerprint(first)
    assert mark == fingerprint(loaded) == fingerprint(store.read(tmp_path / "a"))
    assert mark != fingerprint(second)


def test_a_composition_is_not_saved_as_an_adapter(load, trained, tmp_path):
    encoder = load()
    trained(encoder)
    (name,) = compose(encoder, "fuse(a, b)")
    with pytest.raises(ConfigError, match="is composed of others"):
        store.save(attachment(encoder, name), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("key", ["format", "parts", "composition", "format_version"])
def test_a_damaged_file_is_refused(saved, key):
    save, *_ = saved
    folder = save()
    details = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    details[key] = 99 if key == "format_version" else "fuse("
    (folder / CONFIG).write_text(json.dumps(details), encoding="utf-8")
    with pytest.raises(CheckpointError, match="was to be read as a composition"):
        read_composite(folder)
