"""Frames of videos, read while others are computed."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Iterator[T], Generic[T]):
    """Run a generator one item ahead, in a thread of `pool`; never in two at a time."""

    def __init__(self, items: Generator[T, None, None], pool: Executor):
        self._items, self._pool = items, pool
        self._upcoming = pool.submit(next, items, None)

    def __next__(self) -> T:
        item = self._upcoming.result()
        if item is None:
            raise StopIteration
        self._upcoming = self._pool.submit(next, self._items, None)
        return item

    def close(self) -> None:
        """End the generator, after the item at hand."""
        self._upcoming.exception()
        self._items.close()


def draw_ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The same items, drawn `count` ahead of the consumer."""
    upcoming: list[T] = []
    for item in items:
        upcoming.append(item)
        if len(upcoming) > count:
            yield upcoming.pop(0)
    yield from upcoming
