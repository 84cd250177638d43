"""A process that works for another one, which survives it."""

import contextlib
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any

from sofnet_jax.data.worker import CONTEXT, describe_end, obey_parent


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
        self._process = CONTEXT.Process(target=_work, args=(self._function, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _work(function: Callable[[Any], Iterator[Any]], pipe: connection.Connection) -> None:
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
