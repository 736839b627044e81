"""Threads that share a loop: every iteration once, errors reported, no thread left behind."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from zoo.loop_threads import LoopThreads


@pytest.fixture
def threads():
    threads = LoopThreads(3)
    yield threads
    threads.close()


def test_every_iteration_is_done_once(threads):
    for n in (0, 1, 2, 100):
        done = []
        threads.for_each(n, done.append)
        assert sorted(done) == list(range(n))


def test_several_threads_are_at_work_at_once(threads):
    barrier = threading.Barrier(3, timeout=10)
    names = set()

    def meet(i):
        names.add(threading.current_thread().name)
        barrier.wait()

    threads.for_each(3, meet)
    assert len(names) == 3


def test_a_slow_iteration_holds_up_one_thread_only(threads):
    others, others_are_done = [], threading.Event()

    def work(i):
        if i == 0:
            assert others_are_done.wait(10)
            return
        others.append(i)
        if len(others) == 59:
            others_are_done.set()

    threads.for_each(60, work)
    assert sorted(others) == list(range(1, 60))


@pytest.mark.parametrize("failing", [0, 5])
def test_an_error_is_raised_when_all_threads_are_done(threads, failing):
    done = []

    def work(i):
        if i == failing:
            raise ZeroDivisionError(i)
        time.sleep(0.01)
        done.append(i)

    with pytest.raises(ZeroDivisionError, match=str(failing)):
        threads.for_each(6, work)
    assert sorted(done) == [i for i in range(6) if i != failing]
    threads.for_each(6, done.append)
    assert len(done) == 11


def test_an_interrupted_wait_loses_nothing(monkeypatch):
    threads = LoopThreads(2)
    helper = threads._helpers[0]
    release = threading.Event()
    patient = helper.wait

    def interrupted():
        monkeypatch.setattr(helper, "wait", patient)
        raise KeyboardInterrupt

    monkeypatch.setattr(helper, "wait", interrupted)
    helper_done, meeting = [], threading.Barrier(2, timeout=10)

    def work(i):
        meeting.wait()
        if threading.current_thread() is not threading.main_thread():
            release.wait(10)
            helper_done.append(i)

    with pytest.raises(KeyboardInterrupt):
        threads.for_each(2, work)
    assert not helper_done
    release.set()
    done = []
    threads.for_each(4, done.append)
    assert len(helper_done) == 1
    assert sorted(done) == [0, 1, 2, 3]
    threads.close()


@pytest.mark.parametrize("closed", [True, False])
def test_threads_end_with_their_owner(closed):
    class Owner:
        def __init__(self):
            self.threads = LoopThreads(3)
            self.done = []

        def work(self, i):
            self.done.append(i)

    before = threading.active_count()
    owner = Owner()
    owner.threads.for_each(8, owner.work)
    assert threading.active_count() == before + 2
    if closed:
        owner.threads.close()
        owner.threads.for_each(8, owner.work)
        assert sorted(owner.done) == sorted([*range(8), *range(8)])
    del owner
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
