import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_frameexit

from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.frameexit.architecture import create_architecture
from sofnet_jax.systems.frameexit.losses import compute_losses
from sofnet_jax.systems.frameexit.network import FrameExit, Outputs, accumulate, find_exit
from sofnet_jax.systems.frameexit.weights import NAMING
from sofnet_jax.weights import names

to_state_dict, from_state_dict, torch_shapes = (
    functools.partial(convert, naming=NAMING)
    for convert in (names.to_state_dict, names.from_state_dict, names.torch_shapes)
)
VIDEOS, FRAMES, SIZE, CLASSES = 6, 5, 32, 4
ARCHITECTURE = create_architecture(
    "tiny", num_classes=CLASSES, num_frames=FRAMES, width=8, features=24, gate_features=(10, 6)
)
ONLINE = dataclasses.replace(ARCHITECTURE, online=True)
BETA = 0.3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
TERMS = ("total", "classification", "gates", "exits")


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def frames():
    """Noise, with a different colour in every frame."""
    rng = np.random.default_rng(0)
    colour = rng.uniform(64, 192, (VIDEOS, FRAMES, 1, 1, 3))
    return (colour + rng.uniform(-64, 64, (VIDEOS, FRAMES, SIZE, SIZE, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(1)
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, VIDEOS)]
    labels[0, :2] = 1
    return labels


@pytest.fixture(scope="module")
def tensors(frames):
    """Random weights and statistics; every gate lets two of these videos exit in evaluation."""
    shape = (1, FRAMES, SIZE, SIZE, 3)
    init = FrameExit(ARCHITECTURE).init
    shapes = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.uint8))
    rng = np.random.default_rng(2)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        value = rng.normal(size=shape)
        if len(shape) > 1:
            value *= math.sqrt(2 / math.prod(shape[1:]))
        elif re.search(r"running_var|(bn\d|downsample\.1|mlp\.1|layers\.[14])\.weight", name):
            value = 0.5 + rng.random(shape)
        else:
            value *= 0.1
        return value.astype(np.float32)

    tensors = {name: draw(name, shape) for name, shape in torch_shapes(shapes).items()}
    with torch.no_grad():
        network = create_reference(ARCHITECTURE, tensors).eval()
        gate_logits = network(to_images(frames), gated=True).gate_logits.numpy()
    for gate, logits in enumerate(gate_logits.T):
        tensors[f"gates.{gate}.exit.bias"] -= np.quantile(logits, 0.7)  # between two videos
    return tensors


def create_variables(tensors):
    """The variables of `ARCHITECTURE`, and of `ONLINE`."""
    shape = jax.ShapeDtypeStruct((1, FRAMES, SIZE, SIZE, 3), np.uint8)
    shapes = jax.eval_shape(FrameExit(ARCHITECTURE).init, jax.random.key(0), shape)
    return from_state_dict(tensors, shapes)


def create_reference(architecture, tensors) -> torch_frameexit.FrameExit:
    network = torch_frameexit.create_like(architecture)
    missing, unexpected = network.load_state_dict(
        {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, strict=False
    )
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return network


def to_images(frames) -> torch.Tensor:
    pixels = (frames / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(np.moveaxis(pixels, -1, 2).astype(np.float32))


def run_ours(tensors, frames, labels, gated: bool):
    """Features u, outputs, losses, new statistics and gradients of one training pass."""
    variables = create_variables(tensors)
    model = FrameExit(ARCHITECTURE)

    @jax.jit
    def compute(variables, frames, labels):
        def loss(params):
            outputs, updates = model.apply(
                variables | {"params": params},
                frames,
                train=True,
                gated=gated,
                mutable=["batch_stats", "intermediates"],
                capture_intermediates=lambda module, _: module.name == "mlp",
            )
            losses = compute_losses(outputs, labels, gated=gated, beta=BETA)
            return losses.total, (outputs, losses, updates)

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradients, (outputs, losses, updates) = compute(variables, frames, labels)
    features = updates["intermediates"]["mlp"]["__call__"][0]
    statistics = to_state_dict({"params": {}, "batch_stats": updates["batch_stats"]})
    gradients = to_state_dict({"params": gradients, "batch_stats": {}})
    return features, outputs, losses, statistics, gradients


def assert_near(ours, theirs, limit: float, name: str) -> None:
    """The difference of two tensors, as vectors, relative to the second."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, name
    difference = np.linalg.norm(ours - theirs)
    assert difference <= limit * (np.linalg.norm(theirs) or 1), (name, difference)


@pytest.mark.parametrize("gated", [False, True], ids=["first phase", "second phase"])
def test_one_training_pass(gated, tensors, frames, labels):
    features, outputs, losses, statistics, gradients = run_ours(tensors, frames, labels, gated)
    network = create_reference(ARCHITECTURE, tensors).set_phase(gated)
    theirs = network(to_images(frames), gated=gated)
    their_losses = torch_frameexit.compute_losses(theirs, torch.from_numpy(labels), BETA)
    their_losses["total"].backward()

    assert_near(features, theirs.features.detach(), 1e-5, "features")
    assert_near(outputs.step_logits, theirs.step_logits.detach(), 1e-5, "step logits")
    if gated:
        assert_near(outputs.gate_logits, theirs.gate_logits.detach(), 1e-5, "gate logits")
        assert 0 < losses.exits < 1
    else:
        assert outputs.gate_logits.shape == (VIDEOS, FRAMES - 1) and not outputs.gate_logits.any()
    for term in TERMS:
        assert_near(getattr(losses, term), their_losses[term].detach(), 1e-5, term)
    moved = set()
    for name, parameter in network.named_parameters():
        learns = name.startswith("gates.") == gated
        assert (parameter.grad is not None) == learns
        if learns:
            # A bias before a BatchNorm moves nothing; what is left is rounding.
            vanishes = re.search(r"(mlp\.0|layers\.[03])\.bias", name)
            if vanishes:
                np.testing.assert_allclose(gradients[name], 0, atol=1e-6)
            else:
                assert_near(gradients[name], parameter.grad, 1e-4, f"gradient of {name}")
                assert gradients[name].any(), name
        else:
            assert not gradients[name].any(), name
    for name, buffer in network.named_buffers():
        if "running" in name:
            assert_near(statistics[name], buffer, 1e-5, name)
            if not np.array_equal(statistics[name], tensors[name]):
                moved.add(name)
    gates = {name for name in statistics if name.startswith("gates.")}
    assert moved == (gates if gated else statistics.keys() - gates)


@pytest.fixture(scope="module")
def evaluate():
    """The deterministic networks, compiled: offline and online."""
    models = {a.online: FrameExit(a) for a in (ARCHITECTURE, ONLINE)}
    return {online: jax.jit(model.apply) for online, model in models.items()}


@pytest.mark.parametrize("online", [False, True])
def test_evaluation(online, evaluate, tensors, frames):
    outputs = evaluate[online](create_variables(tensors), frames)
    network = create_reference(ONLINE if online else ARCHITECTURE, tensors).eval()
    with torch.no_grad():
        theirs = network(to_images(frames), gated=True)
    assert_near(outputs.step_logits, theirs.step_logits, 1e-5, "step logits")
    assert_near(outputs.gate_logits, theirs.gate_logits, 1e-5, "gate logits")
    for video, logits in enumerate(theirs.gate_logits):
        exits = [t for t, logit in enumerate(logits, 1) if logit.sigmoid() > 0.5]
        exit = exits[0] if exits else FRAMES - 1
        assert outputs.exit[video] == exit
        answer = outputs.step_logits[video, exit]
        np.testing.assert_array_equal(outputs.video_logits[video], answer)
    assert len(set(outputs.exit.tolist())) >= (2 if online else 3)


def test_order(evaluate, tensors, frames):
    """Offline is online on frames in the offline order; all frames have one maximum."""
    variables = create_variables(tensors)
    offline = evaluate[False](variables, frames)
    sorted_ = evaluate[True](variables, frames[:, [2, 0, 4, 1, 3]])
    np.testing.assert_array_equal(offline.step_logits, sorted_.step_logits)
    np.testing.assert_array_equal(offline.gate_logits, sorted_.gate_logits)
    online = evaluate[True](variables, frames)
    np.testing.assert_allclose(
        online.step_logits[:, -1], offline.step_logits[:, -1], rtol=1e-5, atol=1e-5
    )
    assert not np.allclose(online.step_logits[:, 1], offline.step_logits[:, 1], atol=1e-2)


def test_later_frames_change_no_earlier_step(evaluate, tensors, frames):
    variables = create_variables(tensors)
    changed = frames.copy()
    changed[:, 3:] = 255 - changed[:, 3:]
    before, after = (evaluate[True](variables, x) for x in (frames, changed))
    np.testing.assert_array_equal(before.step_logits[:, :3], after.step_logits[:, :3])
    np.testing.assert_array_equal(before.gate_logits[:, :2], after.gate_logits[:, :2])
    assert (before.step_logits[:, 3:] != after.step_logits[:, 3:]).any()


def test_accumulate_is_a_maximum_step_by_step():
    u = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
    z = accumulate(jnp.array(u))
    running = u[:, 0]
    for t in range(7):
        running = np.maximum(running, u[:, t])
        np.testing.assert_array_equal(z[:, t], running)
    # The gradient goes to the frame that holds the maximum.
    gradient = jax.jit(jax.grad(lambda u: accumulate(u)[:, -1].sum()))(jnp.array(u))
    np.testing.assert_array_equal(gradient, u == u.max(1, keepdims=True))


def test_exits_by_hand():
    gate_logits = jnp.array(
        [
            [-1.0, 2.0, 3.0],  # the second gate, so the third position
            [0.5, -1.0, 9.0],  # the first gate
            [-1.0, 0.0, -2.0],  # none, for 0 is a tie
            [-1.0, -1.0, 1.0],  # the last gate decides nothing
        ]
    )
    np.testing.assert_array_equal(find_exit(gate_logits), [2, 1, 3, 3])
    step_logits = jnp.arange(16.0).reshape(4, 4)[..., None]
    answers = Outputs(step_logits, gate_logits).video_logits
    np.testing.assert_array_equal(answers[:, 0], [2, 5, 11, 15])


def test_dropout_belongs_to_the_video(tensors, frames):
    """In the first phase only; a video's mask depends on its number, not on its neighbours."""
    model = FrameExit(dataclasses.replace(ARCHITECTURE, dropout=0.5))
    variables = create_variables(tensors)

    @jax.jit
    def apply(frames, index):
        rngs = {"dropout": jax.random.key(0)}
        return [
            model.apply(
                variables,
                frames,
                train=True,
                gated=gated,
                index=index,
                rngs=rngs,
                mutable=["batch_stats"],
            )[0].step_logits
            for gated in (False, True)
        ]

    index = np.arange(VIDEOS)
    first, second = apply(frames, index)
    turned, _ = apply(frames[::-1], index[::-1])
    np.testing.assert_allclose(turned[::-1], first, rtol=1e-4, atol=1e-4)
    other, evaluated = apply(frames, index + VIDEOS)
    assert not np.allclose(other, first, atol=1e-2)
    np.testing.assert_array_equal(evaluated, second)


def test_initialisation(frames):
    """torch.nn.Linear's, each position with values of its own; no gate exits before training."""
    variables = jax.jit(FrameExit(ARCHITECTURE).init)(jax.random.key(0), frames[:1])
    tensors = to_state_dict(variables)
    for name, fan in (
        ("mlp.0", 64),
        *((f"classifiers.{t}", 24) for t in range(FRAMES)),
        *((f"gates.{t}.layers.0", 24) for t in range(FRAMES - 1)),
        ("gates.0.layers.3", 10),
    ):
        for leaf in ("weight", "bias"):
            values = tensors[f"{name}.{leaf}"]
            assert np.abs(values).max() <= fan**-0.5, name
        assert np.abs(tensors[f"{name}.weight"]).max() > 0.8 * fan**-0.5, name
    assert not np.allclose(tensors["gates.0.layers.0.weight"], tensors["gates.1.layers.0.weight"])
    assert not np.allclose(tensors["classifiers.0.weight"], tensors["classifiers.1.weight"])
    outputs = FrameExit(ARCHITECTURE).apply(variables, jnp.array(frames))
    np.testing.assert_array_equal(outputs.exit, FRAMES - 1)


def test_mistakes(frames):
    with pytest.raises(UserError, match="have 3 frames.*each of 5"):
        FrameExit(ARCHITECTURE).init(jax.random.key(0), jnp.array(frames[:, :3]))
    with pytest.raises(UserError, match="'vgg'"):
        create_architecture("vgg", num_classes=3, num_frames=4)
    with pytest.raises(UserError, match="1 class"):
        create_architecture("tiny", num_classes=1, num_frames=4)
    with pytest.raises(UserError, match="at least 2"):
        create_architecture("tiny", num_classes=3, num_frames=1)
