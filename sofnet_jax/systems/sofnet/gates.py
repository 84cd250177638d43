"""The gates: policy modules, and the recurrence that runs them over a video's frames."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sofnet_jax.systems.sofnet.architecture import Architecture


def uniform(fan: int) -> nn.initializers.Initializer:
    """PyTorch's default initialiser, U(-1/√fan, 1/√fan)."""
    bound = fan**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def combine_gates(samples: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
    """Effective gates r_n = ∏_{m≤n} g_m."""
    return jnp.cumprod(samples, axis=-1)


@dataclasses.dataclass(frozen=True)
class Semantics:
    """How gates begin, learn and remember; the default is the paper's.

    Attributes:
        kernel, bias: create the initialisers of linear layers from their number of inputs.
        combine: the effective gates of individual ones, and where gradients flow between them.
        remembers: whether a frame that only the last gate stopped writes h and c like a kept one.
        forces: whether the last frame is forwarded through everything if none was kept.
    """

    kernel: Callable[[int], nn.initializers.Initializer] = uniform
    bias: Callable[[int], nn.initializers.Initializer] = uniform
    combine: Callable[[Array], Array] = combine_gates
    remembers: bool = False
    forces: bool = True

    def create_dense(self, features: int, fan_in: int, name: str) -> nn.Dense:
        """A float32 linear layer."""
        kernel, bias = self.kernel(fan_in), self.bias(fan_in)
        return nn.Dense(features, kernel_init=kernel, bias_init=bias, name=name)


PAPER = Semantics()


class Policy(nn.Module):
    """Policy module n: W_x, an LSTM cell, W_q (Eqs. 2–3) and the inner classifier W_cls (Eq. 13).

    It holds the parameters and computes, for all frames at once, the part that does not depend on
    earlier frames; `gate_step` does the rest. Always float32: it is under 1 % of the network's
    cost, and a rounded logit can flip a decision. The LSTM keeps both biases of torch.nn.LSTMCell,
    because SGD moves their sum twice as fast as it would a single one.
    """

    architecture: Architecture
    semantics: Semantics = PAPER

    @nn.compact
    def __call__(self, pooled: Float[Array, "b t d"]) -> tuple[Float[Array, "b t g"], "Recurrence"]:
        """The LSTM's input W_ih W_x x̄ + b_ih + b_hh (g = 4·hidden), and the other weights."""
        a, features = self.architecture, pooled.shape[-1]
        embed = self.semantics.create_dense(features, features, name="embed")
        x = embed(pooled.astype(jnp.float32))
        if not a.temporal:
            x = self.semantics.create_dense(a.hidden, features, name="fc")(x)
            w_hh = jnp.zeros((0, 0))
        else:
            shape = (features, 4 * a.hidden)
            x = x @ self.param("w_ih", uniform(a.hidden), shape)
            x += self.param("b_ih", uniform(a.hidden), shape[1:])
            x += self.param("b_hh", uniform(a.hidden), shape[1:])
            w_hh = self.param("w_hh", uniform(a.hidden), (a.hidden, 4 * a.hidden))
        w_q = self.param("w_q", self.semantics.kernel(a.hidden), (a.hidden, 2))
        b_q = self.param("b_q", lambda _: jnp.array([0.0, a.forward_bias], jnp.float32))
        return x, Recurrence(w_hh, w_q, b_q)


class InnerClassifier(nn.Module):
    """W_cls of Eq. 13: class scores of a policy's hidden state, used only in training."""

    architecture: Architecture
    semantics: Semantics = PAPER

    @nn.compact
    def __call__(self, hidden: Float[Array, "b t d"]) -> Float[Array, "b t n"]:
        a = self.architecture
        return self.semantics.create_dense(a.num_classes, a.hidden, name="dense")(hidden)


@flax.struct.dataclass
class Recurrence:
    """The weights of a gate, or of k gates stacked, that touch the state.

    Without temporal modelling `w_hh` is empty.
    """

    w_hh: Float[Array, "*k m g"]
    w_q: Float[Array, "*k d 2"]
    b_q: Float[Array, "*k 2"]


@flax.struct.dataclass
class State:
    """A video's memory: h and c of every gate after the last kept frame, initially zero."""

    h: Float[Array, "k b d"]
    c: Float[Array, "k b d"]
    kept_any: Bool[Array, "b"]


@flax.struct.dataclass
class Decision:
    """The k gates' decisions on each frame.

    `samples` are the individual gates g_n, `gates` the effective ones r_n = ∏_{m≤n} g_m: 0 or 1,
    with straight-through gradients.
    """

    gates: Float[Array, "*bt k"]
    logits: Float[Array, "*bt k 2"]
    hidden: Float[Array, "*bt k d"]
    samples: Float[Array, "*bt k"]

    @property
    def stop(self) -> Int[Array, "*bt"]:
        """Index of the gate that stopped each frame; k for a kept one."""
        return jnp.sum(self.gates > 0.5, axis=-1)


def create_state(num_gates: int, batch: int, hidden: int) -> State:
    """The state before the first frame of a batch of videos."""
    zeros = jnp.zeros((num_gates, batch, hidden))
    return State(zeros, zeros, jnp.zeros(batch, bool))


def sample_gates(
    logits: Float[Array, "*b 2"],
    noise: Float[Array, "*b 2"] | None,
    temperature: Array | float,
) -> Float[Array, "*b"]:
    """Straight-through Gumbel-softmax (Eq. 4): 1 forward, 0 stop.

    The value is the argmax of `logits + noise`, the gradient that of
    softmax((logits + noise) / temperature). Without noise it is the argmax of the logits; a tie
    stops.
    """
    noisy = logits if noise is None else logits + noise
    soft = jax.nn.softmax(noisy / temperature)[..., 1]
    hard = (noisy[..., 1] > noisy[..., 0]).astype(soft.dtype)
    return hard + (soft - jax.lax.stop_gradient(soft))  # this order keeps the value exact


def update_cell(
    z: Float[Array, "*k b g"], c: Float[Array, "*k b d"]
) -> tuple[Float[Array, "*k b d"], Float[Array, "*k b d"]]:
    """The LSTM's new h and c from its pre-activations, which are in PyTorch's order."""
    i, f, g, o = jnp.split(z, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gate_step(
    weights: Recurrence,
    state: State,
    inputs: Float[Array, "k b g"],
    noise: Float[Array, "b k 2"] | None,
    temperature: Array | float,
    last: Bool[Array, ""],
    semantics: Semantics = PAPER,
) -> tuple[State, Decision]:
    """Runs one frame through all k gates (Eqs. 2–4), masked: a stopped frame leaves no trace.

    A frame writes h and c, in every LSTM, only if it passed every gate: t̄ of Eq. 2 is the last kept
    frame. No gradient flows through the choice between old and new state. If no frame was kept
    before the `last` one, that is forwarded through everything. Other `semantics` may differ.
    """
    if weights.w_hh.size:
        h, c = update_cell(inputs + state.h @ weights.w_hh, state.c)
    else:
        h, c = jnp.tanh(inputs), state.c
    logits = jnp.moveaxis(h @ weights.w_q + weights.b_q[..., None, :], 0, 1)
    samples = sample_gates(logits, noise, temperature)
    effective = semantics.combine(samples)
    if semantics.forces:
        forced = last & ~state.kept_any & (effective[:, -1] < 0.5)
        effective = jnp.where(forced[:, None], 1.0, effective)
    kept = effective[:, -1] > 0.5
    written = (effective[:, :-1] > 0.5).all(-1) if semantics.remembers else kept
    state = State(
        jnp.where(written[:, None], h, state.h),
        jnp.where(written[:, None], c, state.c),
        state.kept_any | kept,
    )
    return state, Decision(effective, logits, jnp.moveaxis(h, 0, 1), samples)


def run_gates(
    weights: Recurrence,
    inputs: Float[Array, "k b t g"],
    noise: Float[Array, "b t k 2"] | None,
    temperature: Array | float,
    semantics: Semantics = PAPER,
) -> Decision:
    """Scans `gate_step` over the frames; the result's fields start with the axes b, t."""
    x = inputs.transpose(2, 0, 1, 3)  # t k b g
    num_frames, num_gates, batch, _ = x.shape
    last = jnp.arange(num_frames) == num_frames - 1
    noise = None if noise is None else jnp.moveaxis(noise, 1, 0)  # t b k 2

    def body(state: State, frame):
        return gate_step(weights, state, frame[0], frame[1], temperature, frame[2], semantics)

    state = create_state(num_gates, batch, weights.w_q.shape[1])
    _, decision = jax.lax.scan(body, state, (x, noise, last))
    return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), decision)
