import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sofnet_jax.backbones.resnet import ResNet
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.network import SoFNet

_VIDEOS, _FRAMES, _SIZE, _GATES = 4, 3, 32, 3
_FORCE = 1e4  # noise larger than any logit
# Features of res5 have 8·4 channels: as many as classes, so a head can be the identity.
_ARCHITECTURE = Architecture(
    num_classes=32,
    block="basic",
    depths=(1, 1, 1, 1),
    width=4,
    stem_kernel=3,
    gates=(1, 3, 5),
    hidden=8,
)
_MODEL = SoFNet(_ARCHITECTURE)
# Halves the compilation time.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_NO_NOISE = jnp.zeros((_VIDEOS, _FRAMES, _GATES, 2))


@pytest.fixture(scope="module")
def frames():
    """Noise, with a different colour in every frame."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 64, (_VIDEOS, _FRAMES, _SIZE, _SIZE, 3))
    return jnp.array(video + rng.integers(0, 192, (_VIDEOS, _FRAMES, 1, 1, 3)), jnp.uint8)


@pytest.fixture(scope="module")
def variables():
    """Random nonzero weights and statistics, and gates that disagree."""
    shapes = jax.eval_shape(_MODEL.init, jax.random.key(0), jnp.zeros((1, 1, 32, 32, 3), jnp.uint8))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        fan = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 1
        value = rng.normal(size=leaf.shape) * math.sqrt(2 / fan)
        if name in ("scale", "var"):
            value = 0.5 + rng.random(leaf.shape)
        elif name in ("bias", "mean"):
            value *= 0.1
        elif name in ("w_ih", "w_hh", "w_q"):
            value *= 3
        elif name == "b_q":
            value = np.zeros(2)
        return jnp.array(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def evaluate():
    """The deterministic network, compiled; `noise` forces its gates, zeros do not."""

    @partial(jax.jit, compiler_options=_QUICK)
    def evaluate(variables, frames, noise):
        return _MODEL.apply(variables, frames, noise=noise)

    return evaluate


@pytest.fixture(scope="module")
def train():
    """The outputs of the network in training."""

    @partial(jax.jit, compiler_options=_QUICK)
    def apply(variables, frames, index, dropout, gate):
        rngs = {"dropout": jax.random.key(dropout), "gate": jax.random.key(gate)}
        outputs, _ = _MODEL.apply(
            variables, frames, train=True, index=index, rngs=rngs, mutable=["batch_stats"]
        )
        return outputs

    def train(variables, frames, index, dropout=0, gate=0):
        return apply(variables, frames, index, dropout, gate)

    return train


def _force(stop):
    """Noise that stops frame t of every video at gate stop[t], or keeps it for `_GATES`."""
    noise = np.zeros((_VIDEOS, _FRAMES, _GATES, 2), np.float32)
    forward = np.arange(_GATES) < np.array(stop)[:, None]
    noise[..., 1] = np.where(forward, _FORCE, -_FORCE)
    return jnp.array(noise)


def _assert_same(old, new, videos=slice(None), frames=slice(None)):
    """Asserts that all outputs for these frames are equal to the last bit."""
    for name in ("frame_logits", "kept", "inner_logits", "decision"):
        pairs = zip(*(jax.tree.leaves(getattr(x, name)) for x in (old, new)), strict=True)
        for a, b in pairs:
            np.testing.assert_array_equal(a[videos][:, frames], b[videos][:, frames], name)


# ---------------------------------------------------------------------------------- evaluation


def test_gates_of_the_network_disagree(evaluate, variables, frames):
    # The laws below are meaningful only for a network that stops some frames and keeps others.
    stop = evaluate(variables, frames, _NO_NOISE).decision.stop
    assert len(np.unique(stop)) >= 3 and (stop[:, :-1] == _GATES).any()


def test_prediction_is_the_mean_of_kept_frames(evaluate, variables, frames):
    outputs = evaluate(variables, frames, _force([3, 1, 3]))
    np.testing.assert_allclose(outputs.kept, [[1, 0, 1]] * _VIDEOS, atol=1e-6)
    mean = (outputs.frame_logits[:, 0] + outputs.frame_logits[:, 2]) / 2
    np.testing.assert_allclose(outputs.video_logits, mean, atol=1e-5)


@pytest.mark.parametrize("frame", [1, 2])
def test_a_later_frame_never_changes_an_earlier_decision(evaluate, variables, frames, frame):
    before = evaluate(variables, frames, _NO_NOISE)
    after = evaluate(variables, frames.at[:, frame].set(255 - frames[:, frame]), _NO_NOISE)
    assert (before.decision.logits[:, frame] != after.decision.logits[:, frame]).any()
    _assert_same(before, after, frames=slice(frame))


@pytest.mark.parametrize("gate", range(_GATES))
def test_a_stopped_frame_leaves_no_trace(evaluate, variables, frames, gate):
    # New pixels in a frame that is stopped again change no other frame and no prediction.
    noise = _NO_NOISE.at[:, 1].set(_force([3, gate, 3])[:, 1])
    before = evaluate(variables, frames, noise)
    after = evaluate(variables, frames.at[:, 1].set(255 - frames[:, 1]), noise)
    assert (before.decision.stop[:, 1] == gate).all()
    assert (before.frame_logits[:, 1] != after.frame_logits[:, 1]).any()
    _assert_same(before, after, frames=np.array([0, 2]))
    np.testing.assert_array_equal(before.video_logits, after.video_logits)


def test_videos_do_not_see_each_other(evaluate, variables, frames):
    before = evaluate(variables, frames, _NO_NOISE)
    after = evaluate(variables, frames.at[0].set(255 - frames[0]), _NO_NOISE)
    assert (before.video_logits[0] != after.video_logits[0]).any()
    _assert_same(before, after, videos=slice(1, None))
    np.testing.assert_array_equal(before.video_logits[1:], after.video_logits[1:])


def test_all_gates_forward_is_the_plain_backbone(evaluate, variables, frames):
    # A bias larger than any logit, as `forward_bias` would set it.
    policies = {
        name: weights | {"b_q": jnp.array([0, 1e4])} if name.startswith("policy_") else weights
        for name, weights in variables["params"].items()
    }
    gated = evaluate(variables | {"params": policies}, frames, _NO_NOISE)
    assert (gated.decision.stop == _GATES).all()
    tsn = jax.jit(partial(_MODEL.apply, gated=False), compiler_options=_QUICK)(variables, frames)
    np.testing.assert_allclose(gated.video_logits, tsn.video_logits, atol=1e-4)
    np.testing.assert_allclose(gated.frame_logits, tsn.frame_logits, atol=1e-4)
    assert tsn.decision.gates.shape == (_VIDEOS, _FRAMES, 0)
    assert (tsn.kept == 1).all()
    # The original gates decide differently.
    own = evaluate(variables, frames, _NO_NOISE).video_logits
    assert abs(own - tsn.video_logits).max() > 0.01


# ------------------------------------------------------------------------------------ training


def test_layout_of_a_batch_does_not_change_its_random_streams(train, variables, frames):
    # Permuted videos have equal BatchNorm statistics, and each video has equal dropout and gates,
    # because its number in the global batch keys them.
    order = jnp.array([2, 0, 3, 1])
    index = jnp.array([10, 11, 12, 13])
    outputs = train(variables, frames, index)
    again = train(variables, frames[order], index[order])
    np.testing.assert_array_equal(outputs.decision.stop[order], again.decision.stop)
    np.testing.assert_allclose(outputs.frame_logits[order], again.frame_logits, atol=1e-3)
    np.testing.assert_allclose(outputs.inner_logits[order], again.inner_logits, atol=1e-3)


def test_same_number_same_noise(train, variables, frames):
    # One video four times; the first two have one number.
    same = jnp.broadcast_to(frames[:1], frames.shape)
    outputs = train(variables, same, jnp.array([5, 5, 6, 7]))
    logits = np.asarray(outputs.frame_logits)
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-6)
    assert abs(logits[0] - logits[2]).max() > 0.1 and abs(logits[2] - logits[3]).max() > 0.1


def test_dropout_and_gates_have_streams_of_their_own(train, variables, frames):
    index = jnp.arange(_VIDEOS)
    base = train(variables, frames, index)
    dropout = train(variables, frames, index, dropout=1)
    gate = train(variables, frames, index, gate=1)
    # Dropout comes after the features that the gates see.
    np.testing.assert_array_equal(base.decision.stop, dropout.decision.stop)
    np.testing.assert_array_equal(base.decision.logits, dropout.decision.logits)
    assert abs(base.frame_logits - dropout.frame_logits).max() > 0.1
    # The gates do not change a frame's scores, only whether they count.
    np.testing.assert_array_equal(base.frame_logits, gate.frame_logits)
    assert (base.decision.stop != gate.decision.stop).any()


def _set(variables, **leaves):
    """The variables with parameters replaced: `policy_res1__b_q=…`."""
    params = jax.tree.map(lambda x: x, variables["params"])
    for path, value in leaves.items():
        *parents, name = path.split("__")
        node = params
        for parent in parents:
            node = node[parent]
        node[name] = jnp.full_like(node[name], value) if np.isscalar(value) else jnp.array(value)
    return variables | {"params": params}


def test_share_and_scale_of_dropout(train, variables, frames):
    # All features are 1 (the last BatchNorms have scale 0) and the head is the identity: the
    # scores are 0 with probability 1/2, else 2.
    block = "backbone__res5__block0"
    ones = _set(
        variables,
        **{
            f"{block}__bn2__scale": 0.0,
            f"{block}__bn2__bias": 1.0,
            f"{block}__downsample_bn__scale": 0.0,
            f"{block}__downsample_bn__bias": 0.0,
            "head__kernel": np.eye(32, dtype=np.float32),
            "head__bias": 0.0,
        },
    )
    index = jnp.arange(_VIDEOS)
    scores = np.asarray(train(ones, frames, index).frame_logits)
    np.testing.assert_array_equal(np.unique(scores), [0, 2])
    # Four standard deviations of a mean of 384; every frame has its own mask.
    assert abs((scores == 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(scores.size)
    assert len(np.unique(scores.reshape(-1, 32), axis=0)) == _VIDEOS * _FRAMES


def test_gates_of_the_network_forward_with_their_probability(train, variables, frames):
    # Gates that see nothing and forward independently with probability 3/4: 3/4 of 640 frames pass
    # the first gate, 9/16 two, 27/64 all. The last frame, which may be forced, is left out.
    bias = np.array([0, math.log(3)], np.float32)
    names = {f"policy_res{n}__{leaf}": v for n in (1, 3, 5) for leaf, v in (("w_q", 0.0),)}
    biases = {f"policy_res{n}__b_q": bias for n in (1, 3, 5)}
    blind = _set(variables, **names, **biases)
    gates = [
        train(blind, frames, jnp.arange(_VIDEOS), gate=key).decision.gates[:, :-1]
        for key in range(80)
    ]
    gates = np.asarray(jnp.concatenate(gates)).reshape(-1, _GATES)
    for n, share in enumerate(gates.mean(0)):
        p = 0.75 ** (n + 1)
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / len(gates))


def test_bfloat16_is_confined_to_the_backbone():
    model = SoFNet(_ARCHITECTURE, dtype=jnp.bfloat16)
    video = jax.ShapeDtypeStruct((2, _FRAMES, _SIZE, _SIZE, 3), jnp.uint8)
    rngs = {name: jax.random.key(0) for name in ("params", "dropout", "gate")}
    apply = partial(model.apply, train=True, rngs=rngs, mutable=["batch_stats"])
    variables = jax.eval_shape(model.init, rngs, video)
    # Leaves: the fields of the outputs are checked to be arrays, which shapes are not.
    results = jax.eval_shape(lambda *x: jax.tree.leaves(apply(*x)), variables, video)
    dtypes = {x.dtype for x in jax.tree.leaves((variables, results))}
    assert dtypes == {np.dtype(np.float32)}
    images = jax.ShapeDtypeStruct((2, _SIZE, _SIZE, 3), jnp.float32)
    (features, _), _ = jax.eval_shape(
        lambda v, x: ResNet(_ARCHITECTURE.backbone, jnp.bfloat16).apply(
            {name: tree["backbone"] for name, tree in v.items()}, x, True, mutable=["batch_stats"]
        ),
        variables,
        images,
    )
    assert {x.dtype for x in features.values()} == {np.dtype(jnp.bfloat16)}
