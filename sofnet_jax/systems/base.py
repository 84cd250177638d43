"""What every system for action recognition in video is: what it sees, decides and spends.

A system that is prepared for inference is a `Network`: spans of layers, each compiled by itself,
and for every video a `State` that says which span runs next and on which frame. Whatever runs a
network (one video frame by frame, many in lockstep, a whole video as one program) only asks the
state and runs what it asks for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

Pooling = Literal["mean", "last"]  # of the used steps' logits, or those of the last answer

DONE = -1  # in place of a span: nothing is left to run
UNDECIDED = -1  # in place of an action: the frame is in progress

Moments = tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d"]]  # mean and standard deviation


class Spending(NamedTuple):
    """GFLOPs (10⁹ multiply–adds) as the published tables count them, and of all that runs."""

    paper: float
    full: float


class Action(NamedTuple):
    """What can be done with a frame.

    Attributes:
        name: of the action.
        uses: whether the answer depends on the frame.
        answers: whether there is a new answer after it; only then can a video end early.
    """

    name: str
    uses: bool
    answers: bool


@dataclass(frozen=True)
class Prices:
    """GFLOPs of a step by its action, in the `paper` and in the `full` count."""

    paper: Float[np.ndarray, "a"]
    full: Float[np.ndarray, "a"]

    def spend(self, action: Int[np.ndarray, "s"]) -> Spending:
        """The price of the steps of a video."""
        return Spending(float(self.paper[action].sum()), float(self.full[action].sum()))


@dataclass(frozen=True)
class Trace:
    """What was done with a video, step by step.

    Attributes:
        time: number of the frame that each step looked at, among the frames of its video.
        action: what was done with it, as an index of the system's actions.
    """

    time: Int[np.ndarray, "s"]
    action: Int[np.ndarray, "s"]

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class Result:
    """The result of a video.

    Attributes:
        scores: class probabilities: the softmax of `logits`.
        logits: the answer.
        trace: the steps that led to it.
        ended: whether it was given before all frames were looked at.
    """

    scores: Float[np.ndarray, "n"]
    logits: Float[np.ndarray, "n"]
    trace: Trace
    ended: bool


@flax.struct.dataclass
class Next:
    """What b videos need next.

    Attributes:
        span: the span to run, or `DONE`.
        time: the frame it starts with, if it starts with pixels.
        action: what was done with the last frame, or `UNDECIDED` while it is in progress.
    """

    span: Int[Any, "b"]
    time: Int[Any, "b"]
    action: Int[Any, "b"]


class Phase(NamedTuple):
    """A part of a training.

    Attributes:
        name: of the phase.
        epochs: its length.
        part: the training videos that it sees: all, or one of two parts that share none.
        steps: its length, where it is not counted in epochs.
        frozen: whether the backbone's features of a frame no longer change, so that they are
            computed once; the system is a `FrozenSystem`.
    """

    name: str
    epochs: int
    part: Literal["all", "most", "held out"] = "all"
    steps: int = 0
    frozen: bool = False


class Learning(NamedTuple):
    """How the parameters of a system learn, beside what a configuration says.

    Attributes:
        policy: the first names of the parameters that decide, which learn at a rate of their own,
            from the second phase on.
        freezes: whether all other parameters stop learning when these begin.
        refined: the first names of parameters that then go on learning beside these, as these do,
            at a rate that is `refined_rate` times theirs.
        restarts: whether all others lose their momentum when these begin.
        rate: the learning rate of a parameter as a multiple, by its path; None: 1 for all.
        decays: whether the weights of a parameter decay; None: all do.
    """

    policy: tuple[str, ...] = ()
    freezes: bool = False
    refined: tuple[str, ...] = ()
    refined_rate: float = 1.0
    restarts: bool = False
    rate: Callable[[Any], float] | None = None
    decays: Callable[[Any], bool] | None = None


class Steps(NamedTuple):
    """What a system did with b whole videos, in at most s steps each: masked, as it is trained.

    Attributes:
        logits: of each step.
        time: the frame that it looked at.
        action: what was done with it; -1 after the video's end.
    """

    logits: Float[Array, "b s n"]
    time: Int[Array, "b s"]
    action: Int[Array, "b s"]


@runtime_checkable
class Architecture(Protocol):
    """Description of a network, as a dataclass: its weights, its decisions and their cost.

    Attributes:
        num_classes: n.
        additions: what there is besides the backbone and its classifier, in words.
        online: whether frames are looked at as they come.
        num_frames: the number of frames that every video must have; 0 if any will do.
        pooling: how the logits of steps become an answer.
        actions: what can be done with a frame.
    """

    @property
    def num_classes(self) -> int: ...
    @property
    def additions(self) -> str: ...
    @property
    def online(self) -> bool: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def pooling(self) -> Pooling: ...
    @property
    def actions(self) -> tuple[Action, ...]: ...

    def order(self, num_frames: int) -> Int[np.ndarray, "t"]:
        """The frames in the order in which they are looked at, as far as a video goes."""

    def prices(self, size: int) -> Prices:
        """GFLOPs of each action on a frame of `size`×`size` pixels."""

    def plain(self, size: int) -> Spending:
        """GFLOPs of the backbone and a classifier on such a frame."""


@runtime_checkable
class System(Protocol):
    """A system as it is trained and evaluated.

    Attributes:
        name: in configurations.
        title: in tables.
        architecture: of its network.
        module: Flax module of its network, called with frames (b, t, h, w, 3).
        phases: of its training.
        via: pixels a side of the square that crops are first resized to; 0: they are not.
        learning: how its parameters learn.
        drop_offset: epochs before `optimizer.drop_epochs` are counted.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def architecture(self) -> Any: ...
    @property
    def module(self) -> Any: ...
    @property
    def phases(self) -> tuple[Phase, ...]: ...
    @property
    def via(self) -> int: ...
    @property
    def learning(self) -> Learning: ...
    @property
    def drop_offset(self) -> int: ...

    def train(
        self,
        variables: Any,
        batch: Any,
        *,
        phase: int,
        temperature: Array,
        keys: Any,
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """Losses of a batch.

        Args:
            variables: parameters and running statistics.
            batch: uint8 `frames`, multi-hot `labels`, the `index` of each video in the global
                batch, which keys all that is drawn.
            phase: number of the phase.
            temperature: of the Gumbel-softmax.
            keys: of the random streams `dropout` and `gate`.

        Returns:
            What is minimised; the new running statistics and the metrics to log.
        """

    def evaluate(self, variables: Any, frames: Any) -> Steps:
        """What is done with whole videos, deterministically and exactly."""

    def deploy(self, variables: Any, **options: Any) -> Any:
        """The `Network` for inference; `dtype` and `winograd` as in `tsn.prepare`."""


class FrozenSystem(System, Protocol):
    """A system whose last phase is frozen. Its batches have features in place of pixels."""

    def extract(self, variables: Any, frames: Any) -> Any:
        """The features of `frames` (b, t, h, w, 3): a dictionary of arrays (b, t, …)."""

    def begin_gates(self, params: Any, moments: Mapping[str, Moments]) -> Any:
        """The parameters before the first step of the phase.

        `moments` are mean and standard deviation of every feature, by the dictionary's names.
        """


@runtime_checkable
class State(Protocol):
    """Everything that a system remembers of b videos, as a pytree of arrays (b, …).

    Attributes:
        num_frames: of each video; -1 if it is not known.
    """

    num_frames: Int[Array, "b"]

    @property
    def next(self) -> Next:
        """What the videos need next."""

    @property
    def answer(self) -> Float[Array, "b n"]:
        """Logits so far; zeros before the first answer."""

    def finish(self) -> Any:
        """Ask for what is still to run if no other frame comes."""


@runtime_checkable
class Span(Protocol):
    """Layers that run in one call, and the decision that follows them, as a pytree of weights.

    Attributes:
        name: of the span.
        looks: whether it starts with pixels; otherwise with what another span left of the frame.
        answers: whether it may change the answer.
        followers: the spans that may go on with the same frame.
    """

    name: str
    looks: bool
    answers: bool
    followers: tuple[int, ...]

    def extract(self, state: Any, x: Any) -> tuple[Any, Any]:
        """Run the layers on b frames: what a follower starts with, and what `score` reads."""

    def score(self, state: Any, evidence: Any) -> Any:
        """Run gates and classifiers on what the layers found: what `decide` reads."""

    def decide(self, state: Any, scores: Any) -> Any:
        """The state after the decision on these frames. It multiplies no matrices.

        Arrays may be NumPy's: `find_namespace` says whose functions to call.
        """


@runtime_checkable
class Network(Protocol):
    """A system with its weights, prepared for inference.

    Attributes:
        spans: in the order of their numbers.
        architecture: of the network.
        shares: whether `extract` reads only the pixels, so that videos can share a frame.
        dtype: type of the backbone's layers.
    """

    spans: tuple[Any, ...]

    @property
    def architecture(self) -> Any: ...
    @property
    def shares(self) -> bool: ...
    @property
    def dtype(self) -> DTypeLike: ...

    def begin(self, num_frames: Int[Array, "b"], shape: Sequence[int]) -> Any:
        """The state before the first frame.

        Args:
            num_frames: of each video; -1 if it is not known.
            shape: of a frame, (h, w, 3).
        """


def find_device(network: Network) -> jax.Device:
    """The device that holds a network's weights; the default one if JAX does not hold them."""
    weights = jax.tree.leaves(network)
    return weights[0].device if weights else jax.local_devices()[0]


def decide(span: Span, state: Any, evidence: Any) -> Any:
    """The state after a span's scores and decision."""
    return span.decide(state, span.score(state, evidence))


def create_next(batch: int) -> Next:
    """The first span on the first frame, for `batch` videos."""
    zeros = jnp.zeros(batch, jnp.int32)
    return Next(zeros, zeros, zeros + UNDECIDED)


def average(total: Float[Any, "b n"], count: Int[Any, "b"]) -> Float[Any, "b n"]:
    """The mean of `count` logits; zeros of none. Rounded as a division, not as a product."""
    xp = find_namespace(total)
    divisors = xp.broadcast_to(xp.maximum(count, 1)[:, None], total.shape).astype(total.dtype)
    return total / (divisors if xp is np else jax.lax.optimization_barrier(divisors))


def find_namespace(x: Any) -> Any:
    """`numpy` or `jax.numpy`, whichever an array belongs to."""
    return x.__array_namespace__()


def choose(condition: Bool[Any, "b"], new: Any, old: Any) -> Any:
    """The videos of a tree of arrays (b, …) where a condition holds; those of another elsewhere."""
    xp = find_namespace(condition)

    def select(x: Any, y: Any) -> Any:
        if not x.ndim:  # common to all videos
            return x
        return xp.where(condition.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return jax.tree.map(select, new, old)
