"""What is odd about a benchmark's files but does no harm, counted by kind."""

from collections.abc import Iterable


class Notes:
    """Counts what is odd by its kind, and keeps the first example of each."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Counts one more of a kind, or several that `example` is the first of."""
        if count:
            before, first = self._kinds.get(kind, (0, example))
            self._kinds[kind] = before + count, first

    def add_all(self, kind: str, examples: Iterable[str]) -> None:
        """Counts each of the examples."""
        for example in examples:
            self.add(kind, example)

    def say(self, line: str) -> None:
        """Keeps a line that counts nothing."""
        self._kinds.setdefault(line, (0, ""))

    def lines(self) -> tuple[str, ...]:
        """A line for each kind, in the order of their first examples."""
        return tuple(
            f"{kind}: {count:,}, first {example}" if count else kind
            for kind, (count, example) in self._kinds.items()
        )
