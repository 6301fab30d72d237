from __future__ import annotations

import json
import time

import pytest

from speechadapt.core import storage
from speechadapt.core.errors import JobError
from speechadapt.core.storage import Store
from speechadapt.jobs import object_lease
from speechadapt.jobs.object_lease import ObjectLease, holder_of

FOLDER = "leases/driver-1-of-1"


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(storage, "WAITS_S", (0.0,))
    store = Store("memory://lease")
    store.delete(store.names())
    return store


def lease(store: Store, **settings: float) -> ObjectLease:
    return ObjectLease(store, FOLDER, "'memory://lease'", **settings)


def wait_until(done) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_holds_and_the_next_is_told_who(store):
    with lease(store) as held:
        with pytest.raises(JobError, match=r"at work on 'memory://lease': process \d+ on "):
            lease(store).__enter__()
        assert not held.lost
        assert holder_of(store, FOLDER)["token"]
    assert holder_of(store, FOLDER) is None
    with lease(store):
        assert len(store.names(FOLDER)) == 1
    assert [name for name in store.names() if not name.startswith(FOLDER + "/")] == []


def test_a_holder_that_is_not_heard_of_is_succeeded_and_notices(store):
    first = lease(store, lapse_s=0.2)
    with first:
        number = store.names(FOLDER)[-1]
        stale = json.loads(store.read(number)) | {"host": "elsewhere"}
        assert holder_of(store, FOLDER, 0.2) is not None
        first._ended.set()  # its heart stops
        first._beating.join()
        store.put(number, json.dumps(stale).encode())
        wait_until(lambda: holder_of(store, FOLDER, 0.2) is None)
        with lease(store, lapse_s=0.2) as second:
            first._ended.clear()
            first._beat()
            assert first.lost
            assert not second.lost
    # the first leaves the second's claim alone
    assert json.loads(store.read(store.names(FOLDER)[-1]))["free"]


def test_a_heart_that_beats_keeps_the_claim(store):
    with lease(store, lapse_s=0.4) as held:
        written = store.modified_s(store.names(FOLDER)[0])
        wait_until(lambda: store.modified_s(store.names(FOLDER)[0]) > written + 0.3)
        assert holder_of(store, FOLDER, 0.4) is not None
        assert not held.lost


def test_a_process_of_this_host_that_is_gone_is_succeeded_at_once(store, monkeypatch):
    with lease(store):
        monkeypatch.setattr(object_lease, "process_runs", lambda pid: False)
        with lease(store) as second:
            assert not second.lost


def test_who_waits_gets_it_when_the_other_is_done(store, monkeypatch):
    monkeypatch.setattr(object_lease, "_POLL_S", 0.01)
    first = lease(store)
    first.__enter__()
    leaving = iter([False, False, True])

    def sleep(seconds: float) -> None:
        if next(leaving):
            first.__exit__(None, None, None)

    monkeypatch.setattr(object_lease.time, "sleep", sleep)
    with lease(store, wait_s=20.0) as second:
        assert not second.lost


def test_of_two_who_saw_the_same_one_succeeds(store, monkeypatch):
    with lease(store):
        pass
    first, second = lease(store), lease(store)
    true_create = Store.create

    def create(self, name, data):
        if data == object_lease._to_bytes(first._facts):
            monkeypatch.setattr(Store, "create", true_create)
            assert second._claim()  # quicker, after the first has looked
        return true_create(self, name, data)

    monkeypatch.setattr(Store, "create", create)
    assert not first._claim()
    assert holder_of(store, FOLDER)["token"] == second._facts["token"]


def test_who_slept_while_others_came_and_went_does_not_take_a_lower_number(store, monkeypatch):
    with lease(store):
        pass
    sleeper, true_create = lease(store), Store.create

    def create(self, name, data):
        if data == object_lease._to_bytes(sleeper._facts):
            monkeypatch.setattr(Store, "create", true_create)
            for _ in range(2):
                with lease(store):
                    pass
            other.__enter__()
        return true_create(self, name, data)

    other = lease(store)
    monkeypatch.setattr(Store, "create", create)
    assert not sleeper._claim()
    assert holder_of(store, FOLDER)["token"] == other._facts["token"]
    other.__exit__(None, None, None)


def test_a_store_out_of_reach_loses_the_claim_when_it_lapses(store, monkeypatch):
    held = lease(store, lapse_s=0.1)
    with held:

        def fail(self, folder=""):
            raise OSError("no route")

        monkeypatch.setattr(Store, "names", fail)
        wait_until(lambda: held.lost)
