"""When a video ends early (Eq. 7), whatever system looks at it."""

from dataclasses import dataclass, replace
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import softmax

from sofnet_jax.systems.base import (
    DONE,
    UNDECIDED,
    Network,
    Next,
    Span,
    find_namespace,
)


@dataclass(frozen=True)
class Rule:
    """When a video ends early (Eq. 7): after a step that answered, the T̄-th of all steps.

    Attributes:
        threshold: ρ, which the largest class probability must exceed; None: a video never ends.
        min_frames: T_min, which T̄ must exceed.
    """

    threshold: float | None = None
    min_frames: int = 0

    def ends(
        self, logits: Float[np.ndarray, "*b n"], observed: int | Int[np.ndarray, "..."]
    ) -> Bool[np.ndarray, "*b"] | np.bool_:
        """Whether videos end after a step that answered, given its logits and T̄."""
        if self.threshold is None:
            return np.zeros(logits.shape[:-1], bool)
        sure = softmax(logits, axis=-1).max(-1) > self.threshold
        return sure & (np.asarray(observed) > self.min_frames)


NEVER = Rule()


@flax.struct.dataclass
class Watched:
    """The state of b videos that may end early.

    Attributes:
        inner: the system's own state.
        observed: the number of frames that were looked at, T̄.
        ended: whether the rule ended the video.
        answering: for each action, whether there is a new answer after it.
    """

    inner: Any
    observed: Int[Any, "b"]
    ended: Bool[Any, "b"]
    threshold: Float[Any, ""]
    min_frames: Int[Any, ""]
    answering: tuple[bool, ...] = flax.struct.field(pytree_node=False)

    @property
    def next(self) -> Next:
        """What the videos need next."""
        inner = self.inner.next
        span = find_namespace(self.ended).where(self.ended, inner.span * 0 + DONE, inner.span)
        return replace(inner, span=span)

    @property
    def needed(self) -> Int[Any, "b 3"]:
        """What the host reads: the next span, the time of its frame, and the last action."""
        needed = self.next
        return find_namespace(needed.span).stack([needed.span, needed.time, needed.action], axis=-1)

    @property
    def answer(self) -> Float[Any, "b n"]:
        """Logits so far."""
        return self.inner.answer

    def finish(self) -> "Watched":
        """Ask for what is still to run if no other frame comes."""
        return replace(self, inner=self.inner.finish())

    def follow(self, inner: Any, *, answers: bool) -> "Watched":
        """The state after a span that left the system's state `inner`.

        `answers` says whether that span may change the answer.
        """
        action = inner.next.action
        observed = self.observed + (action != UNDECIDED)
        if not answers:
            return replace(self, inner=inner, observed=observed)
        xp, answer = find_namespace(action), inner.answer
        answered = xp.asarray(self.answering)[action] & (action != UNDECIDED)
        largest = 1 / xp.exp(answer - answer.max(-1, keepdims=True)).sum(-1)  # of the softmax
        sure = largest > self.threshold
        ends = answered & sure & (observed > self.min_frames)
        return replace(self, inner=inner, observed=observed, ended=self.ended | ends)


# A state, what the host reads of it, and the logits if they may have changed.
Settled = tuple[Watched, Int[Any, "b 3"], Float[Any, "b n"] | None]


def follow(span: Span, state: Watched, scores: Any) -> Settled:
    """The state after a span's decision."""
    state = state.follow(span.decide(state.inner, scores), answers=span.answers)
    return state, state.needed, state.answer if span.answers else None


def settle(span: Span, state: Watched, evidence: Any) -> Settled:
    """The state after a span's scores and decision on what its layers found."""
    return follow(span, state, span.score(state.inner, evidence))


def see(span: Span, state: Watched, x: Any) -> tuple[Any, Settled]:
    """Run a span on frames: what a follower starts with, and the state afterwards."""
    carry, evidence = span.extract(state.inner, x)
    return carry, settle(span, state, evidence)


def watch(
    network: Network, rule: Rule, num_frames: Int[Array, "b"], shape: tuple[int, ...]
) -> Watched:
    """The state before the first frame of b videos; arguments as those of `Network.begin`."""
    batch = len(num_frames)
    return Watched(
        inner=network.begin(num_frames, shape),
        observed=jnp.zeros(batch, jnp.int32),
        ended=jnp.zeros(batch, bool),
        threshold=jnp.float32(np.inf if rule.threshold is None else rule.threshold),
        min_frames=jnp.int32(min(rule.min_frames, 2**31 - 1)),
        answering=tuple(action.answers for action in network.architecture.actions),
    )
