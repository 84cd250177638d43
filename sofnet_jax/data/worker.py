"""Processes that survive what they work on: an item may crash or hang, the others go on."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

_CONTEXT = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
_AHEAD = 4  # items a worker, of those that are done but not yet asked for


@dataclass(frozen=True)
class Failure:
    """Why an item has no result: "crashed" or "slow", and a sentence about it."""

    kind: str
    detail: str


def map_in_order(
    function: Callable[[Any], Any], items: Iterable[Any], *, num_workers: int, time_limit: float
) -> Generator[Any, None, None]:
    """`map` in `num_workers` processes; `Failure` for an item that ends its worker.

    So does one that takes more than `time_limit` seconds. What `function` raises ends everything.
    `function` and what it takes and gives must pickle.
    """
    queue = enumerate(items)
    workers = [_Worker(function) for _ in range(num_workers)]
    done: dict[int, Any] = {}
    following = 0
    try:
        pending = deque(workers)
        while True:
            while pending and len(done) < _AHEAD * num_workers:
                item = next(queue, None)
                if item is None:
                    break
                pending.popleft().start(*item)
            busy = [worker for worker in workers if worker.number is not None]
            if not busy and not done:
                return
            for worker in _wait(busy, time_limit):
                number = worker.number
                assert number is not None
                done[number] = worker.finish(time_limit)
                pending.append(worker)
            while following in done:
                yield done.pop(following)
                following += 1
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process, and the item that it has in hand."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self.number: int | None = None
        self.since = 0.0
        self._spawn()

    def _spawn(self) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_work, args=(self._function, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, number: int, item: Any) -> None:
        """Hands over an item; the number is kept for who asks."""
        self.number, self.since = number, time.monotonic()
        try:
            self.pipe.send(item)
        except OSError:  # died while it had nothing to do
            self.stop()
            self._spawn()
            self.pipe.send(item)

    def finish(self, time_limit: float) -> Any:
        """Its result, or why there is none; in that case another process takes its place."""
        self.number = None
        try:
            if self.pipe.poll():
                result, error = self.pipe.recv()
                if error is not None:
                    raise error
                return result
        except (EOFError, ConnectionError):
            pass
        self.process.join(1)
        code = self.process.exitcode
        self.stop()
        self._spawn()
        if code is None:
            return Failure("slow", f"not done after {time_limit:g} s")
        return Failure("crashed", _describe(code))

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _wait(busy: list[_Worker], time_limit: float) -> list[_Worker]:
    """Waits until workers are done, dead or late, and returns these."""
    if not busy:
        return []
    left = min(worker.since for worker in busy) + time_limit - time.monotonic()
    ready = connection.wait([worker.pipe for worker in busy], max(left, 0))
    now = time.monotonic()
    return [w for w in busy if w.pipe in ready or now - w.since >= time_limit]


def _describe(code: int) -> str:
    if code < 0:
        return f"a worker was ended by {signal.Signals(-code).name}"
    return f"a worker ended with code {code}"


def _work(function: Callable[[Any], Any], pipe: connection.Connection) -> None:
    """What a worker does until its parent closes the pipe, or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    end_with_parent()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((function(item), None))
        except Exception as error:
            pipe.send((None, error))


def end_with_parent() -> None:
    """Ends this worker when its parent is killed; else it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for worker processes"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def count_cores() -> int:
    """The cores this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
