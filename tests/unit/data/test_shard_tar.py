from __future__ import annotations

import io
import json
import tarfile

import pytest

from speechadapt.core.errors import DataError
from speechadapt.data.shard_tar import Sample, check_shard, read_facts, read_shard, write_shard

SAMPLES = [
    Sample(f"deep/clip{number}", {"json": b"{}" * number, "seg.txt": b"x" * 700})
    for number in range(5)
]


def test_a_shard_reads_back_as_it_was_written(tmp_path):
    write_shard(tmp_path / "0.tar", SAMPLES)
    assert list(read_shard(tmp_path / "0.tar")) == SAMPLES


def test_counts_and_checksum_stand_beside_it(tmp_path):
    facts = write_shard(tmp_path / "0.tar", SAMPLES, {"audio_s": 3.5})
    row = json.loads((tmp_path / "0.tar.done").read_text())
    assert row["samples"] == 5
    assert row["files"] == {"json": 5, "seg.txt": 5}
    assert row["bytes"] == (tmp_path / "0.tar").stat().st_size
    assert row["audio_s"] == 3.5
    assert check_shard(tmp_path / "0.tar") == read_facts(tmp_path / "0.tar") == facts


def test_the_same_samples_give_the_same_bytes(tmp_path):
    first = write_shard(tmp_path / "0.tar", SAMPLES)
    assert write_shard(tmp_path / "1.tar", iter(SAMPLES)).sha256 == first.sha256


def test_a_shard_that_fails_half_way_leaves_nothing(tmp_path):
    def broken():
        yield SAMPLES[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_shard(tmp_path / "0.tar", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_shard_written_anew_is_not_done_meanwhile(tmp_path):
    write_shard(tmp_path / "0.tar", SAMPLES)

    def look():
        assert not (tmp_path / "0.tar.done").exists()
        yield SAMPLES[0]

    write_shard(tmp_path / "0.tar", look())


@pytest.mark.parametrize("keep", [100, 1024, 3000, -2000])
def test_a_truncated_shard_is_named(tmp_path, keep):
    write_shard(tmp_path / "0.tar", SAMPLES)
    data = (tmp_path / "0.tar").read_bytes()
    content = 10 * 512 + sum(-(-len(x) // 512) * 512 for s in SAMPLES for x in s.files.values())
    (tmp_path / "0.tar").write_bytes(data[: keep if keep > 0 else content + keep])
    with pytest.raises(DataError, match=r"0\.tar' has \d+ bytes"):
        check_shard(tmp_path / "0.tar")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_shard(tmp_path / "0.tar"))


def test_a_flipped_byte_is_found(tmp_path):
    write_shard(tmp_path / "0.tar", SAMPLES)
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[1500] ^= 1
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(DataError, match="checksum"):
        check_shard(tmp_path / "0.tar")


def test_a_shard_without_its_facts_is_not_done(tmp_path):
    write_shard(tmp_path / "0.tar", SAMPLES)
    (tmp_path / "0.tar.done").unlink()
    with pytest.raises(DataError, match=r"0\.tar\.done' cannot be read"):
        check_shard(tmp_path / "0.tar")


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([Sample("a.b", {"json": b""})], "has a dot"),
        ([SAMPLES[1], SAMPLES[1]], "comes twice"),
        ([Sample("a", {})], "has no file"),
    ],
)
def test_what_readers_would_mix_up_is_refused(tmp_path, samples, problem):
    with pytest.raises(DataError, match=problem):
        write_shard(tmp_path / "0.tar", samples)
    assert not (tmp_path / "0.tar").exists()


def test_a_tar_of_another_tool_is_read(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in ("a/b.wav", "a/b.txt", "c.txt"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    found = [(sample.key, sorted(sample.files)) for sample in read_shard(tmp_path / "x.tar")]
    assert found == [("a/b", ["txt", "wav"]), ("c", ["txt"])]
