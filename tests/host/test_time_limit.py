"""The clock of a time limit runs only while the work is done."""

import math

import pytest

from sofnet_jax.host import time_limit
from sofnet_jax.host.time_limit import TimeLimit


@pytest.fixture
def sleep(monkeypatch):
    """Moves the clock."""
    now = [100.0]
    monkeypatch.setattr(time_limit.time, "monotonic", lambda: now[0])

    def sleep(seconds):
        now[0] += seconds

    return sleep


def test_time_outside_is_not_counted(sleep):
    limit = TimeLimit(5.0)
    for _ in range(2):
        sleep(60.0)
        with limit.running():
            sleep(2.5)
            assert not limit.passed
    with limit.running():
        sleep(0.1)
        assert limit.passed
    assert limit.passed and not TimeLimit(math.inf).passed


def test_a_generator_is_timed_without_its_consumer_and_closed_with_it(sleep):
    closed, limit = [], TimeLimit(5.0)

    def work():
        try:
            while not limit.passed:
                sleep(2.0)
                yield "item"
        finally:
            closed.append(True)

    items = []
    for item in limit.over(work()):
        items.append(item)
        sleep(60.0)
    assert items == ["item"] * 3 and closed == [True]
    begun = TimeLimit(5.0).over(work())
    limit = TimeLimit(5.0)
    next(begun)
    begun.close()
    assert closed == [True, True]
