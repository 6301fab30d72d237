from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.errors import JobError
from speechadapt.jobs.commit import ItemFiles
from speechadapt.jobs.place import LocalPlace, Place


def test_a_local_place_is_its_folder(tmp_path: Path):
    place = LocalPlace(tmp_path / "out")
    assert isinstance(place, Place)
    assert (place.shown, place.folder, place.run) == (str(tmp_path / "out"), tmp_path / "out", "")
    assert place.journal_name("1-of-1-worker-0") == "1-of-1-worker-0"
    place.pull()
    place.push()
    place.forget()
    place.journalled(tmp_path / "j.jsonl", True)
    with place.guard("plan", 0.0):
        assert not (tmp_path / "out").exists()


def test_outputs_are_there_or_missing_and_lent_as_they_are(tmp_path: Path):
    place = LocalPlace(tmp_path)
    assert place.commit(tmp_path / "staging", [ItemFiles("a", {"deep/a.txt": "words"})]) == {}
    assert place.missing(["deep/a.txt", "b.txt"]) == {"b.txt"}
    with place.near("deep/a.txt") as path:
        assert path == tmp_path / "deep/a.txt"


def test_a_claim_is_a_lease_beside_the_locks(tmp_path: Path):
    place = LocalPlace(tmp_path)
    with place.claim("driver-1-of-1") as claim:
        assert not claim.lost
        assert (place.locks / "driver-1-of-1.lease").is_file()
        with pytest.raises(JobError, match="another run is at work"):
            place.claim("driver-1-of-1").__enter__()
