from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.errors import JobError
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.kind import KINDS, Kind, kind_named


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_whole_and_its_options_name_it(name: str):
    kind = kind_named(name)
    assert isinstance(kind, Kind)
    assert kind.name == kind.options.job == name
    assert kind.rows(JobFolder(Path("out"))).suffix == ".jsonl"


def test_kinds_write_their_rows_apart():
    folder = JobFolder(Path("out"))
    assert len({kind_named(name).rows(folder) for name in KINDS}) == len(KINDS)


def test_an_unknown_kind_names_its_near_misses():
    with pytest.raises(JobError, match=r"no job 'restor'\. Did you mean restore"):
        kind_named("restor")


def test_a_folder_knows_what_was_begun_in_it(tmp_path: Path):
    folder = JobFolder(tmp_path)
    assert folder.kind().name == "transcribe"
    folder.claim({"job": "restore"})
    assert folder.kind().name == "restore"
