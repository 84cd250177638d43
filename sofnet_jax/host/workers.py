"""Processes that survive what they work on: an item may crash or hang, the others go on."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
_AHEAD = 4  # items a worker, of those that are done but not yet asked for


@dataclass(frozen=True)
class Failure:
    """Why an item has no result: "crashed" or "slow", and a sentence about it."""

    kind: str
    detail: str


def map_in_order(
    function: Callable[[Any], Any], items: Iterable[Any], *, num_workers: int, time_limit: float
) -> Generator[Any, None, None]:
    """`map` in `num_workers` processes; `Failure` for an item that ends two workers.

    It gets a second one because the first may have been ended from outside, for want of memory.
    An item that takes more than `time_limit` seconds, which are those that a worker has it in hand,
    is a `Failure` too. What `function` raises ends everything. `function` and what it takes and
    gives must pickle.
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
                for result in worker.attend(time_limit):
                    done[number] = result
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
        self._item: Any = None
        self._crashed = False
        self.number: int | None = None
        self.since = math.inf  # when it began with the item
        self._spawn()

    def _spawn(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_work, args=(self._function, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, number: int, item: Any) -> None:
        """Hands over an item; the number is kept for who asks."""
        self.number, self._item, self._crashed = number, item, False
        self._send()

    def _send(self) -> None:
        self.since = math.inf
        with contextlib.suppress(OSError):  # dead already, which `attend` will see
            self.pipe.send(self._item)

    def attend(self, time_limit: float) -> list[Any]:
        """Looks after it when it has something to say, is dead or late: [its result], or [] yet."""
        if not self.pipe.poll():
            self._replace()
            return self._finish(Failure("slow", f"not done after {time_limit:g} s"))
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(10)  # what it ends with is told
            code = self._replace()
            if self._crashed:
                return self._finish(Failure("crashed", describe_end(code)))
            self._crashed = True
            self._send()
            return []
        if message is None:
            self.since = time.monotonic()
            return []
        result, error = message
        if error is not None:
            raise error
        return self._finish(result)

    def _finish(self, result: Any) -> list[Any]:
        self.number = self._item = None
        return [result]

    def _replace(self) -> int:
        """Puts another process in its place; returns what it ended with."""
        self.stop()
        code = self.process.exitcode
        self._spawn()
        return code or 0

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
    timeout = max(left, 0.0) if math.isfinite(left) else None
    ready = connection.wait([worker.pipe for worker in busy], timeout)
    now = time.monotonic()
    return [w for w in busy if w.pipe in ready or now - w.since >= time_limit]


def describe_end(code: int) -> str:
    """What an exit code says of a worker."""
    if code < 0:
        return f"a worker was ended by {signal.Signals(-code).name}"
    return f"a worker ended with code {code}"


def _work(function: Callable[[Any], Any], pipe: connection.Connection) -> None:
    """What a worker does until its parent closes the pipe, or ends."""
    obey_parent()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(None)  # it begins
        try:
            pipe.send((function(item), None))
        except Exception as error:
            pipe.send((None, error))


def obey_parent() -> None:
    """Ends this worker when its parent wants it, or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    end_with_parent()


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


class ChildDied(Exception):
    """The child crashed, was killed, or was ended because nothing came of it: `kind` and why."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


class Child:
    """Runs a generator function in a process of its own, which is there from one call to the next.

    Only one call at a time. `function` and what it takes and gives must pickle.
    """

    def __init__(self, function: Callable[[Any], Iterator[Any]]):
        self._function = function
        self._process: Any = None
        self._pipe: Any = None

    def run(self, item: Any, time_limit: float) -> Iterator[Any]:
        """Yields what `function(item)` yields.

        The first thing may take any time, for there may be something to load and to compile. Raises
        what the function raises, and ChildDied if it dies or nothing comes for `time_limit`
        seconds; the next call begins with a new process.
        """
        if self._process is None:
            self._start()
        with contextlib.suppress(OSError):  # dead already, which is seen below
            self._pipe.send(item)
        timeout = None
        while True:
            if not self._pipe.poll(timeout):
                self.stop()
                raise ChildDied("slow", f"nothing came of it for {time_limit:g} s")
            try:
                kind, value = self._pipe.recv()
            except (EOFError, OSError):
                self._process.join(10)
                code = self._process.exitcode
                self.stop()
                raise ChildDied("crashed", describe_end(code or 0)) from None
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
            timeout = time_limit

    def _start(self) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(self._function, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _serve(function: Callable[[Any], Iterator[Any]], pipe: connection.Connection) -> None:
    """What the child does until its parent closes the pipe, or ends."""
    obey_parent()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            for value in function(item):
                pipe.send(("value", value))
        except Exception as error:
            pipe.send(("error", error))
        else:
            pipe.send(("end", None))
