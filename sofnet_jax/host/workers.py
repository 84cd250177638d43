"""Child processes that may crash or hang on an item without harm to the others."""

import contextlib
import functools
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, NamedTuple

_CONTEXT = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
_AHEAD = 4  # finished items per worker that wait to be consumed


class Failure(NamedTuple):
    """Why an item has no result: a kind such as "crashed" or "slow", and a sentence about it."""

    kind: str
    detail: str


class ChildDied(Exception):
    """The child crashed, was killed, or was ended because it was too slow."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.failure = Failure(kind, detail)


class Child:
    """Run a generator function in a child process that is kept from one call to the next.

    One call at a time. The process starts with the first call, and anew after it died. The
    function, its argument and what it yields must pickle.
    """

    pipe: connection.Connection

    def __init__(self, function: Callable[[Any], Iterator[Any]]):
        self._function = function
        self._process: Any = None

    def run(self, item: Any, time_limit: float) -> Iterator[Any]:
        """Yield what `function(item)` yields.

        The first value may take any time, since the child may have to load and compile.

        Raises:
            ChildDied: it died, or yielded nothing for `time_limit` seconds.
            Exception: raised by the function.
        """
        self.send(item)
        timeout = None
        while True:
            if not self.pipe.poll(timeout):
                self.stop()
                raise ChildDied("slow", f"no progress for {time_limit:g} s")
            kind, value = self.receive()
            if kind == "end":
                return
            if kind == "value":
                yield value
                timeout = time_limit

    def send(self, item: Any) -> None:
        """Start a call; its messages are to be received up to the last one."""
        if self._process is None:
            self.pipe, theirs = _CONTEXT.Pipe()
            arguments = self._function, theirs
            self._process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
            self._process.start()
            theirs.close()
        with contextlib.suppress(OSError):  # if it is dead, `receive` says so
            self.pipe.send(item)

    def receive(self) -> tuple[str, Any]:
        """Wait for a message: a "begin", any number of ("value", …), an "end".

        Raises ChildDied, and what the function raised.
        """
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(10)
            code = self._process.exitcode or 0
            self.stop()
            raise ChildDied("crashed", _describe_end(code)) from None
        if kind == "error":
            raise value
        return kind, value

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self.pipe.close()


def _serve(function: Callable[[Any], Iterator[Any]], pipe: connection.Connection) -> None:
    """Main function of a child: serve calls until the parent closes the pipe or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this child
    end_with_parent()
    with contextlib.suppress(EOFError):
        while True:
            item = pipe.recv()
            pipe.send(("begin", None))
            try:
                for value in function(item):
                    pipe.send(("value", value))
            except Exception as error:
                pipe.send(("error", error))
            else:
                pipe.send(("end", None))


def end_with_parent() -> None:
    """End this child process when its parent is killed; it would otherwise wait forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for child processes"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _describe_end(code: int) -> str:
    if code < 0:
        return f"a worker was ended by {signal.Signals(-code).name}"
    return f"a worker ended with code {code}"


def map_in_order(
    function: Callable[[Any], Any], items: Iterable[Any], *, num_workers: int, time_limit: float
) -> Generator[Any, None, None]:
    """Map `function` over `items` in `num_workers` processes; results come in order.

    An item whose worker dies gets a second one, since the first may have been killed from outside
    for lack of memory; if that dies too, its result is a `Failure`. So is that of an item that
    keeps a worker busy for more than `time_limit` seconds. An exception of `function` ends
    everything. The function, items and results must pickle.
    """
    numbered = enumerate(items)
    idle = [Child(functools.partial(_yield_result, function)) for _ in range(num_workers)]
    children = tuple(idle)
    busy: list[_Job] = []
    done: dict[int, Any] = {}
    following = 0
    try:
        while True:
            while idle and len(done) < _AHEAD * num_workers and (pair := next(numbered, None)):
                busy.append(_Job(idle.pop(), *pair))
            if not busy and not done:
                return
            for job in _wait(busy, time_limit):
                if job.attend(time_limit):
                    done[job.number] = job.result
                    busy.remove(job)
                    idle.append(job.child)
            while following in done:
                yield done.pop(following)
                following += 1
    finally:
        for child in children:
            child.stop()


def _yield_result(function: Callable[[Any], Any], item: Any) -> Iterator[Any]:
    yield function(item)


class _Job:
    """An item that a child is working on, and its result."""

    def __init__(self, child: Child, number: int, item: Any):
        self.child, self.number = child, number
        self.result: Any = None
        self._item, self._crashed = item, False
        self._start()

    def _start(self) -> None:
        self.since = math.inf  # when the child began; its start does not count
        self.child.send(self._item)

    def attend(self, time_limit: float) -> bool:
        """Handle a message, death or lateness of the child; True once there is a result."""
        if not self.child.pipe.poll():
            self.child.stop()
            self.result = Failure("slow", f"not done after {time_limit:g} s")
            return True
        try:
            kind, value = self.child.receive()
        except ChildDied as death:
            if self._crashed:
                self.result = death.failure
                return True
            self._crashed = True
            self._start()
            return False
        if kind == "begin":
            self.since = time.monotonic()
        elif kind == "value":
            self.result = value
        return kind == "end"


def _wait(jobs: Sequence[_Job], time_limit: float) -> list[_Job]:
    """Wait until a child has a message, is dead or is late; return the jobs of these."""
    if not jobs:
        return []
    left = min(job.since for job in jobs) + time_limit - time.monotonic()
    timeout = max(left, 0.0) if math.isfinite(left) else None
    ready = connection.wait([job.child.pipe for job in jobs], timeout)
    now = time.monotonic()
    return [job for job in jobs if job.child.pipe in ready or now - job.since >= time_limit]


def count_cores() -> int:
    """Number of cores that this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
