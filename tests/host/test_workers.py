"""Work goes on, in order, whatever an item does to its worker."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sofnet_jax.host.workers import Failure, map_in_order


def _do(item):
    kind, value = item
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit":
        os._exit(3)
    if kind == "hang":
        time.sleep(60)
    if kind == "raise":
        raise ValueError(value)
    if kind == "lose":
        raise ConnectionError(value)
    if kind == "large":
        return bytes(value)
    time.sleep(0.02 * (value % 3))  # so that they end in another order than they began
    return value, os.getpid()


def _run(items, **kwargs):
    return list(map_in_order(_do, items, **({"num_workers": 3, "time_limit": 30.0} | kwargs)))


def test_results_are_in_order_and_from_all_workers():
    values, processes = zip(*_run([("plain", i) for i in range(30)]), strict=True)
    assert list(values) == list(range(30))
    assert 1 < len(set(processes)) <= 3 and os.getpid() not in processes


def test_no_items():
    assert _run([]) == []


def test_an_item_that_ends_its_worker_is_a_failure_and_the_others_go_on():
    items = [("plain", 0), ("crash", 0), ("exit", 0), ("large", 10**7), ("crash", 0), ("plain", 5)]
    results = _run(items)
    assert results[0][0] == 0 and results[5][0] == 5
    assert len(results[3]) == 10**7
    assert results[1] == results[4] == Failure("crashed", "a worker was ended by SIGSEGV")
    assert results[2] == Failure("crashed", "a worker ended with code 3")


@pytest.mark.slow
def test_an_item_that_takes_too_long_is_a_failure():
    start = time.monotonic()
    results = _run([("plain", 0), ("hang", 0), ("plain", 2)], num_workers=1, time_limit=3.0)
    assert results[0][0] == 0 and results[2][0] == 2
    assert results[1] == Failure("slow", "not done after 3 s")
    assert time.monotonic() - start < 30


class _Slow:
    """A function that takes long to start with, as one does that imports much."""

    def __reduce__(self):
        return _start_slowly, ()

    def __call__(self, item):
        return item + 1


def _start_slowly():
    time.sleep(2)
    return _Slow()


def test_the_start_of_a_worker_does_not_count():
    assert list(map_in_order(_Slow(), [1, 2, 3], num_workers=1, time_limit=1.0)) == [2, 3, 4]


def _crash(item):
    """Leaves a file at every try; ends its process at each, or at the first alone."""
    folder, always = item
    first = not list(folder.iterdir())
    (folder / str(os.getpid())).touch()
    if first or always:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_an_item_whose_worker_was_killed_gets_another_one(tmp_path):
    folders = [tmp_path / "once", tmp_path / "always"]
    for folder in folders:
        folder.mkdir()
    items = zip(folders, [False, True], strict=True)
    results = list(map_in_order(_crash, items, num_workers=1, time_limit=30.0))
    assert results == ["done", Failure("crashed", "a worker was ended by SIGKILL")]
    assert [len(list(folder.iterdir())) for folder in folders] == [2, 2]


def test_an_error_of_the_system_is_no_crash():
    with pytest.raises(ConnectionError, match="mine"):
        _run([("lose", "mine")])


def test_what_the_function_raises_ends_everything():
    with pytest.raises(ValueError, match="mine"):
        _run([("plain", 0), ("raise", "mine"), ("plain", 2)])


def test_items_are_taken_only_as_results_are_asked_for():
    taken = []

    def items():
        for i in range(1000):
            taken.append(i)
            yield "plain", i

    results = map_in_order(_do, items(), num_workers=2, time_limit=30.0)
    next(results)
    time.sleep(0.5)
    assert len(taken) <= 12
    results.close()


_PARENT = """
import os, sys, time
sys.path.insert(0, {tests!r})
from test_workers import _do
from sofnet_jax.host.workers import map_in_order
if __name__ == "__main__":
    results = map_in_order(_do, (("plain", i) for i in range(10**9)), num_workers=2, time_limit=9)
    print(next(results)[1], next(results)[1], flush=True)
    os.kill(os.getpid(), 9)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT.format(tests=str(Path(__file__).parent)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    workers = {int(pid) for pid in done.stdout.split()}
    assert done.returncode == -9 and workers
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
