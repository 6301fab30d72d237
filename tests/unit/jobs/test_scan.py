from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.jobs.scan import AUDIO_SUFFIXES, Item, scan

LHOTSE = Path(__file__).parents[2] / "data" / "lhotse"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of (empty) audio files; a scan reads no sound."""
    root = tmp_path / "in"
    for name in ("b.wav", "a.flac", "sub/c.MP3", "sub/deep/d.opus", "sub-2/e.m4a", "notes.md"):
        place(root / name)
    return root


def place(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def manifest(path: Path, *rows: dict[str, Any]) -> Path:
    return place(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def names(items: tuple[Item, ...]) -> list[str]:
    return [item.audio_filepath for item in items]


def stems(items: tuple[Item, ...]) -> list[str]:
    return [item.output_stem for item in items]


def test_a_folder_is_walked_in_byte_order_and_its_tree_is_kept(tree: Path) -> None:
    found = scan([tree]).items
    assert names(found) == ["a.flac", "b.wav", "sub/c.MP3", "sub/deep/d.opus", "sub-2/e.m4a"]
    assert stems(found) == ["a", "b", "sub/c", "sub/deep/d", "sub-2/e"]
    assert [item.path for item in found] == [tree / name for name in names(found)]
    assert [item.id for item in found] == names(found)
    assert not any(item.from_manifest for item in found)


def test_every_audio_suffix_is_found(tmp_path: Path) -> None:
    for suffix in AUDIO_SUFFIXES:
        place(tmp_path / f"x{suffix}")
    assert len(scan([tmp_path]).items) == len(AUDIO_SUFFIXES) == 10


def test_hidden_names_and_the_output_folder_are_left_out(tree: Path) -> None:
    for name in (".hidden/x.wav", "._b.wav", "out/y.wav", "out/.speechadapt/z.wav"):
        place(tree / name)
    assert names(scan([tree], tree / "out").items) == names(scan([tree / "."], tree / "out").items)
    assert not {"out/y.wav", "._b.wav", ".hidden/x.wav"} & set(
        names(scan([tree], tree / "out").items)
    )


def test_links_to_folders_are_followed_once(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    elsewhere = place(tree.parent / "elsewhere" / "f.wav").parent
    (tree / "linked").symlink_to(elsewhere)
    found = names(scan([tree]).items)
    assert "linked/f.wav" in found
    assert len(found) == 6


def test_a_broken_link_is_listed_so_that_it_fails_by_name(tree: Path) -> None:
    (tree / "gone.wav").symlink_to(tree / "nowhere.wav")
    assert "gone.wav" in names(scan([tree]).items)


def test_a_folder_named_like_audio_is_listed_and_walked(tree: Path) -> None:
    place(tree / "x.wav" / "inside.flac")
    found = scan([tree]).items
    assert {"x.wav", "x.wav/inside.flac"} <= set(names(found))
    assert len(set(stems(found))) == len(found)


def test_a_folder_named_like_audio_that_is_given_is_only_walked(tmp_path: Path) -> None:
    place(tmp_path / "x.wav" / "inside.flac")
    assert names(scan([tmp_path / "x.wav"]).items) == ["inside.flac"]


def test_names_may_hold_anything(tmp_path: Path) -> None:
    odd = ["line\nbreak.wav", "\u8a9e\u97f3.flac", "a b'\"$.mp3", "[x].wav"]
    try:
        place(tmp_path / os.fsdecode(b"bad-\xff.wav"))
        odd.append(os.fsdecode(b"bad-\xff.wav"))
    except OSError:
        pass  # the file system takes no such name
    for name in odd:
        place(tmp_path / name)
    found = scan([tmp_path]).items
    assert set(names(found)) == set(odd)
    assert all(item.path.exists() for item in found)


def test_a_file_that_exists_is_no_pattern(tmp_path: Path) -> None:
    place(tmp_path / "[x].wav")
    assert names(scan([tmp_path / "[x].wav"]).items) == ["[x].wav"]


def test_a_file_is_an_item_whatever_its_suffix(tmp_path: Path) -> None:
    place(tmp_path / "speech.raw")
    assert names(scan([tmp_path / "speech.raw"]).items) == ["speech.raw"]


def test_globs_find_audio_and_walk_folders(tree: Path) -> None:
    found = names(scan([str(tree / "*")]).items)
    assert found == ["a.flac", "b.wav", "sub/c.MP3", "sub/deep/d.opus", "sub-2/e.m4a"]
    assert names(scan([str(tree / "**" / "*.opus")]).items) == ["d.opus"]


def test_several_inputs_are_named_from_their_common_folder(tmp_path: Path) -> None:
    first, second = place(tmp_path / "a" / "x.wav"), place(tmp_path / "b" / "x.wav")
    for inputs in ([first, second], [first.parent, second.parent], [str(tmp_path / "?" / "x.wav")]):
        assert names(scan(inputs).items) == ["a/x.wav", "b/x.wav"]


def test_a_file_named_twice_is_one_item(tree: Path) -> None:
    assert len(scan([tree, tree / "a.flac", str(tree / "*.flac")]).items) == 5


def test_include_and_exclude_match_paths_and_names(tree: Path) -> None:
    assert names(scan([tree], include=["*.wav", "sub/*"]).items) == [
        "b.wav",
        "sub/c.MP3",
        "sub/deep/d.opus",
    ]
    assert names(scan([tree], exclude=["sub*", "a.*"]).items) == ["b.wav"]


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    place(tmp_path / "notes.md")
    with pytest.raises(ConfigError, match=r"looked for audio \(\.aac .*\) in '.*'; found none\."):
        scan([tmp_path])
    place(tmp_path / "x.wav")
    with pytest.raises(ConfigError, match="found 1 files, all left out by --include and --exclude"):
        scan([tmp_path], include=["y*"])


def test_inputs_that_do_not_exist_are_named_together(tmp_path: Path) -> None:
    place(tmp_path / "x.wav")
    with pytest.raises(ConfigError, match=r"input '.*p\.wav' does not exist\.\ninput '.*q\.wav'"):
        scan([tmp_path / "x.wav", tmp_path / "p.wav", tmp_path / "q.wav"])


def test_manifest_rows_keep_their_strings_and_fields(tmp_path: Path) -> None:
    path = manifest(
        tmp_path / "data" / "m.jsonl",
        {
            "audio_filepath": "../audio/x.wav", "duration": 2.0, "offset": 1.5, "text": "hello",
            "lang": "en", "speaker": "s1", "id": "u1",
        },
        {"audio_filepath": str(tmp_path / "audio" / "y.flac")},
    )  # fmt: skip
    first, second = scan([path]).items
    assert first == Item(
        id="u1",
        audio_filepath="../audio/x.wav",
        path=tmp_path / "audio" / "x.wav",
        offset_s=1.5,
        duration_s=2.0,
        text="hello",
        lang="en",
        speaker="s1",
        from_manifest=True,
        output_stem="audio/x",
    )
    assert second.path == tmp_path / "audio" / "y.flac"
    assert not Path(second.output_stem).is_absolute()


def test_rows_of_one_recording_get_stems_by_their_times(tmp_path: Path) -> None:
    rows = [{"audio_filepath": "x.wav", "offset": 2.5 * i, "duration": 2.5} for i in range(2)]
    found = scan([manifest(tmp_path / "m.jsonl", *rows, {"audio_filepath": "y.wav"})]).items
    assert stems(found) == ["x-0.00-2.50", "x-2.50-5.00", "y"]


def test_a_row_that_is_there_twice_is_two_items(tmp_path: Path) -> None:
    row = {"audio_filepath": "x.wav"}
    found = scan([manifest(tmp_path / "m.jsonl", row, row, row)]).items
    assert [item.id for item in found] == ["x.wav", "x.wav#2", "x.wav#3"]
    assert len(set(stems(found))) == 3


def test_a_malformed_manifest_names_its_lines(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", {"audio_filepath": "x.wav"}, {"text": "no path"})
    with pytest.raises(DataError, match=r"m\.jsonl line 2: 'audio_filepath' is missing"):
        scan([path])


def test_a_list_gives_one_path_a_line(tmp_path: Path) -> None:
    place(tmp_path / "in" / "x.txt", b"said in x")
    place(tmp_path / "in" / "x.wav")
    path = place(tmp_path / "list.txt", b"in/x.wav\r\n\nmissing.wav\nbad-\xff.wav\n")
    found = scan([path]).items
    assert names(found) == ["in/x.wav", "missing.wav", os.fsdecode(b"bad-\xff.wav")]
    assert found[0].text == "said in x"
    assert stems(found)[0] == "in/x"


def test_a_text_beside_audio_is_a_reference_and_no_list(tmp_path: Path) -> None:
    place(tmp_path / "x.flac")
    place(tmp_path / "x.txt", "\ufeffhello\n  w\u00f6rld\n".encode())
    found = scan([tmp_path / "x.flac", tmp_path / "x.txt"]).items
    assert [(item.audio_filepath, item.text) for item in found] == [("x.flac", "hello w\u00f6rld")]


def test_a_reference_that_cannot_be_read_costs_no_item(tmp_path: Path) -> None:
    for name in ("bytes.wav", "folder.wav", "good.wav"):
        place(tmp_path / name)
    place(tmp_path / "bytes.txt", b"caf\xe9")
    (tmp_path / "folder.txt").mkdir()
    place(tmp_path / "good.txt", b"good")
    found = scan([tmp_path])
    assert [item.text for item in found.items] == [None, None, "good"]
    first, second = map(str, found.problems)
    assert first.endswith("bytes.txt' cannot be read: it is not UTF-8.")
    assert "folder.txt' is no text file" in second


def test_the_same_stem_keeps_the_suffix_of_its_source(tmp_path: Path) -> None:
    for name in ("x.wav", "x.flac", "y.wav", "z.wav.mp3", "z.wav", "z.ogg"):
        place(tmp_path / name)
    found = scan([tmp_path]).items
    assert dict(zip(names(found), stems(found), strict=True)) == {
        "x.flac": "x.flac",
        "x.wav": "x.wav",
        "y.wav": "y",
        "z.ogg": "z.ogg",
        "z.wav": "z.wav",
        "z.wav.mp3": "z.wav.mp3",
    }


def test_stems_that_stay_the_same_are_refused(tmp_path: Path) -> None:
    rows = ({"audio_filepath": "../x.wav"}, {"audio_filepath": "x.wav"})
    with pytest.raises(ConfigError, match=r"would write the same outputs: .* \(both 'x\.wav'\)"):
        scan([manifest(tmp_path / "data" / "m.jsonl", *rows)])


def test_outputs_beside_their_inputs_are_refused(tree: Path) -> None:
    for output in (tree, tree / "sub" / ".."):
        with pytest.raises(
            ConfigError, match=r"'a\.flac' would land beside it .* choose an output"
        ):
            scan([tree], output)
    assert scan([tree / "a.flac"], tree / "out").items


def test_no_stem_leaves_the_output_folder(tmp_path: Path) -> None:
    rows = [{"audio_filepath": name} for name in ("../../x.wav", "/abs/y.wav", "a/../../z.wav")]
    for stem in stems(scan([manifest(tmp_path / "m.jsonl", *rows)]).items):
        assert not os.path.isabs(stem)
        assert ".." not in Path(stem).parts


def test_cuts_of_lhotse_are_items(tmp_path: Path) -> None:
    whole, part, silent = scan([LHOTSE / "cuts.jsonl.gz"], tmp_path).items
    assert [each.id for each in (whole, part, silent)] == ["a-whole", "a-part", "b/silent.1"]
    assert whole.path == part.path == LHOTSE / "audio" / "a.flac"
    assert (whole.text, part.text, silent.text) == ("z\u00e9ro un", "un deux", None)
    assert (part.offset_s, part.duration_s, part.lang) == (0.125, 0.25, "fr")
    assert part.output_stem == "audio/a-0.12-0.38"


def test_a_manifest_may_be_called_json_but_not_the_facts_beside_a_recording(tmp_path: Path) -> None:
    place(tmp_path / "a.wav")
    rows = place(tmp_path / "train.json", b'{"audio_filepath": "b.wav"}\n')
    place(tmp_path / "a.json", b"{}")
    found = scan([tmp_path / "a.wav", tmp_path / "a.json", rows]).items
    assert names(found) == ["a.wav", "b.wav"]


def test_a_tarred_corpus_is_laid_out_in_the_state_folder(tmp_path: Path) -> None:
    place(tmp_path / "wav" / "one.wav", b"sound")
    with tarfile.open(tmp_path / "audio_0.tar", "w") as tar:
        tar.add(tmp_path / "wav" / "one.wav", "one.wav")
    listing = {"audio_filepath": "one.wav", "shard_id": 0, "text": "one"}
    path = manifest(tmp_path / "tarred_audio_manifest.json", listing)
    (item,) = scan([path], tmp_path / "out").items
    assert isinstance(item.path, Path)
    assert item.path.read_bytes() == b"sound"
    assert item.path.is_relative_to(tmp_path / "out" / ".speechadapt")
    assert (item.id, item.text) == ("one.wav", "one")
    with pytest.raises(ConfigError, match=r"lie in tars\. Lay them out first: speechadapt"):
        scan([path])
