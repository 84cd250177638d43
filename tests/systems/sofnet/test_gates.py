import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.gates import Policy, Recurrence, run_gates, sample_gates

_GATES, _FRAMES, _VIDEOS, _HIDDEN = 3, 5, 4, 4
_FORCE = 1e4  # noise larger than any logit


@pytest.fixture(scope="module")
def gates():
    """`run_gates` on lists with an entry per gate, compiled once; zeros are no noise."""

    @jax.jit
    def run(weights, inputs, *rest):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
        return run_gates(stacked, jnp.stack(inputs), *rest)

    return run


def _create_weights(temporal=True):
    """Large random weights, so that decisions vary and depend on the memory."""
    rng = np.random.default_rng(3)
    shape = (_HIDDEN, 4 * _HIDDEN) if temporal else (0, 0)
    return [
        Recurrence(
            jnp.array(2 * rng.normal(size=shape), jnp.float32),
            jnp.array(2 * rng.normal(size=(_HIDDEN, 2)), jnp.float32),
            jnp.array([0, 0.5], jnp.float32),
        )
        for _ in range(_GATES)
    ]


def _create_inputs(seed=0, width=4 * _HIDDEN, videos=_VIDEOS):
    rng = np.random.default_rng(seed)
    shape = (videos, _FRAMES, width)
    return [jnp.array(2 * rng.normal(size=shape), jnp.float32) for _ in range(_GATES)]


def _force(stop):
    """Noise that stops frame t of video b at gate stop[b][t], or keeps it if that is no gate.

    The gates beyond that gate would forward.
    """
    stop = np.asarray(stop)[..., None]
    noise = np.zeros((*stop.shape[:2], _GATES, 2), np.float32)
    noise[..., 1] = np.where(np.arange(_GATES) == stop, -_FORCE, _FORCE)
    return jnp.array(noise)


def _change(inputs, t, seed=1, video=slice(None)):
    """The inputs with frame t replaced."""
    others = _create_inputs(seed)
    return [x.at[video, t].set(y[video, t]) for x, y in zip(inputs, others, strict=True)]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _lstm(x, h, c, w_hh):
    """torch.nn.LSTMCell: input, forget, cell and output gate in this order."""
    i, f, g, o = (x + h @ w_hh).reshape(4, -1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _skip(weights, inputs, noise):
    """Stops, logits and hidden states of a video, skipping gates after the one that stops.

    What is not computed is NaN.
    """
    weights = [
        SimpleNamespace(**{k: np.asarray(v, np.float64) for k, v in vars(w).items()})
        for w in weights
    ]
    h, c = np.zeros((2, _GATES, _HIDDEN))
    stops, logits, hidden = [], [], []
    for t in range(_FRAMES):
        forced = t == _FRAMES - 1 and _GATES not in stops
        new_h, new_c = np.full((2, _GATES, _HIDDEN), np.nan)
        q = np.full((_GATES, 2), np.nan)
        stop = _GATES
        for n, w in enumerate(weights):
            new_h[n], new_c[n] = _lstm(np.asarray(inputs[n][t], np.float64), h[n], c[n], w.w_hh)
            q[n] = new_h[n] @ w.w_q + w.b_q
            stops_here = not np.diff(q[n] + noise[t, n]) > 0
            if stops_here and not forced:
                stop = n
                break
        if stop == _GATES:
            h, c = new_h, new_c
        stops.append(stop)
        logits.append(q)
        hidden.append(new_h)
    return stops, np.array(logits), np.array(hidden)


def test_gate_is_the_argmax_of_noisy_logits():
    logits = jnp.array([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    noise = jnp.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5], [0.0, 0.0]])
    np.testing.assert_array_equal(sample_gates(logits, noise, 1.0), [1, 0, 1, 0])
    np.testing.assert_array_equal(sample_gates(logits, None, 1.0), [1, 1, 0, 0])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_gates_are_exactly_zero_or_one(temperature):
    logits = jax.random.normal(jax.random.key(0), (2000, 2))
    for sample in (sample_gates, jax.jit(sample_gates)):
        values = np.unique(sample(logits, jnp.zeros_like(logits), temperature))
        np.testing.assert_array_equal(values, [0, 1])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0])
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_gradient_is_that_of_the_softmax(temperature, noise):
    # (q + noise) / τ differs by log 3 between forward and stop: the probability of forward is 3/4,
    # its derivative 3/4 · 1/4 / τ; where the gate stops, 1/4 · 3/4 / τ.
    for sign in (1, -1):
        logits = jnp.array([noise, temperature * math.log(3) * sign])
        gradient = jax.grad(sample_gates)(logits, jnp.array([0.0, noise]), temperature)
        expected = 3 / 16 / temperature
        np.testing.assert_allclose(gradient, [-expected, expected], rtol=1e-5)


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("temperature", [0.5, 5.0])
def test_noisy_gates_forward_with_their_probability(probability, temperature):
    # Gumbel-max: the argmax of q + noise is a draw from softmax(q), whatever the temperature.
    n = 20_000
    noise = jax.random.gumbel(jax.random.key(1), (n, 2))
    logits = jnp.broadcast_to(jnp.log(jnp.array([1 - probability, probability])), (n, 2))
    share = sample_gates(logits, noise, temperature).mean()
    bound = 4 * math.sqrt(probability * (1 - probability) / n)
    assert abs(share - probability) < bound


def test_gradient_of_effective_gates(gates):
    # Gates (1, 0, 1) of the first frame; each moves with σ' = 3/16 (probability 3/4 or 1/4, τ = 1).
    # r = (g1, g1 g2, g1 g2 g3), so the sum of r has the derivatives
    # 1 + g2 + g2 g3 = 1, g1 + g1 g3 = 2 and g1 g2 = 0.
    weights = [Recurrence(w.w_hh, 0 * w.w_q, 0 * w.b_q) for w in _create_weights()]
    noise = _force([[_GATES] * _FRAMES] * _VIDEOS)
    noise = noise.at[0, 0].set(math.log(3) * jnp.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))

    def total(noise):
        return gates(weights, _create_inputs(), noise, 1.0).gates[0, 0].sum()

    value, gradient = jax.value_and_grad(total)(noise)
    assert float(value) == pytest.approx(1)
    expected = 3 / 16 * np.array([[-1, 1], [-2, 2], [0, 0]])
    np.testing.assert_allclose(gradient[0, 0], expected, atol=1e-6)


def test_lstm_is_pytorchs(gates):
    # All frames kept: each gate is an LSTM over the whole video.
    weights, inputs = _create_weights(), _create_inputs()
    decision = gates(weights, inputs, _force([[_GATES] * _FRAMES] * _VIDEOS), 1.0)
    for n, w in enumerate(weights):
        for b in range(_VIDEOS):
            h = c = np.zeros(_HIDDEN)
            for t in range(_FRAMES):
                h, c = _lstm(np.asarray(inputs[n][b, t]), h, c, np.asarray(w.w_hh))
                np.testing.assert_allclose(decision.hidden[b, t, n], h, atol=1e-5)
                q = h @ np.asarray(w.w_q) + np.asarray(w.b_q)
                np.testing.assert_allclose(decision.logits[b, t, n], q, atol=1e-4)


def test_policy_embeds_its_features_before_the_lstm():
    # W_ih (W_x x + b_x) + b_ih + b_hh, in NumPy from the module's own weights.
    a = Architecture(num_classes=3, hidden=_HIDDEN, forward_bias=1.5)
    x = jax.random.normal(jax.random.key(0), (2, 3, 6))
    (out, recurrence), variables = Policy(a).init_with_output(jax.random.key(1), x)
    p = jax.tree.map(np.asarray, variables["params"])
    embedded = np.asarray(x) @ p["embed"]["kernel"] + p["embed"]["bias"]
    np.testing.assert_allclose(out, embedded @ p["w_ih"] + p["b_ih"] + p["b_hh"], atol=1e-5)
    np.testing.assert_array_equal(recurrence.w_hh, p["w_hh"])
    np.testing.assert_array_equal(recurrence.b_q, [0, 1.5])
    assert p["embed"]["kernel"].shape == (6, 6) and p["w_ih"].shape == (6, 4 * _HIDDEN)


def test_masked_gates_equal_a_loop_that_skips(gates):
    weights, seen = _create_weights(), set()
    for seed in range(10):
        inputs = _create_inputs(seed)
        noise = jax.random.gumbel(jax.random.key(seed), (_VIDEOS, _FRAMES, _GATES, 2))
        decision = gates(weights, inputs, noise, 2.0)
        for b in range(_VIDEOS):
            stops, logits, hidden = _skip(weights, [x[b] for x in inputs], np.asarray(noise[b]))
            np.testing.assert_array_equal(decision.stop[b], stops)
            done = ~np.isnan(logits[..., 0])
            np.testing.assert_allclose(decision.logits[b][done], logits[done], atol=1e-4)
            np.testing.assert_allclose(decision.hidden[b][done], hidden[done], atol=1e-4)
            seen |= set(stops)
    assert seen == {0, 1, 2, 3}


def test_only_kept_frames_are_remembered(gates):
    # The last gate stops frame 0 and the second gate frame 2, after other gates forwarded them.
    # Every LSTM sees frames 1 and 3 as if they were the first two.
    weights, inputs = _create_weights(), _create_inputs()
    stopped = _force([[2, _GATES, 1, _GATES, _GATES]] * _VIDEOS)
    decision = gates(weights, inputs, stopped, 1.0)
    order = jnp.array([1, 3, 4, 0, 2])
    alone = gates(
        weights, [x[:, order] for x in inputs], _force([[_GATES] * _FRAMES] * _VIDEOS), 1.0
    )
    np.testing.assert_allclose(decision.hidden[:, [1, 3, 4]], alone.hidden[:, :3], atol=1e-6)
    assert abs(decision.hidden[:, 4] - decision.hidden[:, 1]).max() > 0.01


def test_gates_beyond_a_stop_are_zero(gates):
    stop = [[0, 1, 2, 3, 0]] * _VIDEOS
    decision = gates(_create_weights(), _create_inputs(), _force(stop), 1.0)
    expected = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]
    for b in range(_VIDEOS):
        np.testing.assert_allclose(decision.gates[b], expected, atol=1e-6)
    np.testing.assert_array_equal(decision.stop, stop)


def test_last_frame_is_forced_if_nothing_was_kept(gates):
    stop = [[0, 1, 2, 0, 1], [0, 1, 3, 0, 1], [0, 0, 0, 0, 3], [3, 2, 1, 0, 0]]
    decision = gates(_create_weights(), _create_inputs(), _force(stop), 1.0)
    np.testing.assert_array_equal(decision.stop[0], [0, 1, 2, 0, 3])
    np.testing.assert_array_equal(decision.gates[0, -1], [1, 1, 1])
    np.testing.assert_array_equal(decision.stop[1:], stop[1:])


def test_gates_without_memory(gates):
    # Each frame is decided alone: the order of frames changes nothing, kept or not.
    weights, inputs = _create_weights(temporal=False), _create_inputs(width=_HIDDEN)
    noise = _force([[_GATES, 0, 1, _GATES, 2]] * _VIDEOS)
    order = jnp.array([3, 4, 0, 2, 1])
    decision = gates(weights, inputs, noise, 1.0)
    again = gates(weights, [x[:, order] for x in inputs], noise[:, order], 1.0)
    np.testing.assert_array_equal(decision.logits[:, order], again.logits)
    np.testing.assert_array_equal(decision.stop[:, order], again.stop)
    np.testing.assert_allclose(decision.hidden, np.tanh(np.stack(inputs, 2)), atol=1e-6)


@pytest.mark.parametrize("frame", range(1, _FRAMES))
def test_a_later_frame_never_changes_an_earlier_decision(gates, frame):
    weights, inputs = _create_weights(), _create_inputs()
    no_noise = jnp.zeros((_VIDEOS, _FRAMES, _GATES, 2))
    before = gates(weights, inputs, no_noise, 1.0)
    after = gates(weights, _change(inputs, frame), no_noise, 1.0)
    assert (before.logits[:, frame] != after.logits[:, frame]).any()
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old[:, :frame], new[:, :frame])


@pytest.mark.parametrize("gate", range(_GATES))
def test_a_stopped_frame_leaves_no_trace(gates, gate):
    # A gate stops frame 1, which is then replaced. Only its own logits differ; everything else is
    # equal to the last bit.
    weights, inputs = _create_weights(), _create_inputs()
    noise = jnp.zeros((_VIDEOS, _FRAMES, _GATES, 2))
    noise = noise.at[:, 1].set(_force([[gate]] * _VIDEOS)[:, 0])
    before = gates(weights, inputs, noise, 1.0)
    after = gates(weights, _change(inputs, 1), noise, 1.0)
    assert (before.stop[:, 1] == gate).all() and (before.stop[:, 2:] == _GATES).any()
    assert (before.logits[:, 1] != after.logits[:, 1]).any()
    others = np.array([0, 2, 3, 4])
    np.testing.assert_array_equal(before.stop, after.stop)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old[:, others], new[:, others])


def test_videos_do_not_see_each_other(gates):
    weights, inputs = _create_weights(), _create_inputs()
    no_noise = jnp.zeros((_VIDEOS, _FRAMES, _GATES, 2))
    before = gates(weights, inputs, no_noise, 1.0)
    after = gates(weights, _change(inputs, slice(None), video=0), no_noise, 1.0)
    assert (before.logits[0] != after.logits[0]).any()
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old[1:], new[1:])


def test_gradient_flows_through_kept_frames_alone(gates):
    # The last frame's hidden state remembers frame 1, which was kept, not frame 0, which was not.
    weights, inputs = _create_weights(), _create_inputs()
    noise = _force([[2, _GATES, _GATES, 1, _GATES]] * _VIDEOS)
    gradient = jax.grad(lambda x: gates(weights, x, noise, 1.0).hidden[:, -1].sum())(inputs)
    size = np.stack([abs(g).sum((0, 2)) for g in gradient])  # gate, frame
    np.testing.assert_array_equal(size[:, [0, 3]], 0)
    assert (size[:, [1, 2, 4]] > 0).all()
