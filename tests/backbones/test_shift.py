"""The temporal shift equals TSM's; with gates, a stopped frame leaves no trace in it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_sofnet
from gated_network import FRAMES, create_network, draw_videos
from torch import nn

from sofnet_jax.backbones.layers import normalise
from sofnet_jax.backbones.shift import shift_frames
from sofnet_jax.backbones.spec import BACKBONES
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.stream import Windows
from sofnet_jax.systems.early_exit import NEVER
from sofnet_jax.systems.sofnet.architecture import create_architecture
from sofnet_jax.systems.sofnet.folded import deploy
from sofnet_jax.systems.sofnet.network import SoFNet
from sofnet_jax.weights.names import to_state_dict

GATES = (1, 2, 3, 4, 5)


@functools.cache
def _create(shift="online"):
    """An online network has gates that stop frames at every stage; others are as initialised."""
    if shift == "online":
        architecture, model, variables = create_network(shift=shift)
    else:
        fields = {"num_classes": 5, "gates": GATES, "hidden": 16, "width": 8}
        architecture = create_architecture("tiny", **fields, shift=shift)
        model = SoFNet(architecture)
        variables = jax.jit(model.init)(jax.random.key(0), jnp.asarray(draw_videos(1)))
    return architecture, model, variables, jax.jit(model.apply, static_argnames=("gated",))


def _force(variables, names, forward):
    """The variables with gates that all forward, or all stop."""
    variables = jax.tree.map(np.array, variables)
    for name in names:
        variables["params"][f"policy_{name}"]["b_q"][:] = 0, 1e6 * (2 * forward - 1)
    return variables


def test_online_shift_by_hand():
    x = np.arange(2 * 3 * 16, dtype=np.float32).reshape(6, 1, 1, 16)  # two videos of three frames
    shifted = np.asarray(shift_frames(jnp.asarray(x), 3, online=True)).reshape(2, 3, 16)
    x = x.reshape(2, 3, 16)
    np.testing.assert_array_equal(shifted[..., 2:], x[..., 2:])
    np.testing.assert_array_equal(shifted[:, 1:, :2], x[:, :-1, :2])
    np.testing.assert_array_equal(shifted[:, 0, :2], 0)


def test_offline_shift_by_hand():
    x = np.arange(2 * 3 * 16, dtype=np.float32).reshape(6, 1, 1, 16)
    shifted = np.asarray(shift_frames(jnp.asarray(x), 3, online=False)).reshape(2, 3, 16)
    x = x.reshape(2, 3, 16)
    np.testing.assert_array_equal(shifted[..., 4:], x[..., 4:])
    np.testing.assert_array_equal(shifted[:, :-1, :2], x[:, 1:, :2])
    np.testing.assert_array_equal(shifted[:, 1:, 2:4], x[:, :-1, 2:4])
    np.testing.assert_array_equal(shifted[:, -1, :2], 0)
    np.testing.assert_array_equal(shifted[:, 0, 2:4], 0)


class _Shift(nn.Module):
    """A shift before a block's first convolution, where TSM's own code puts it."""

    def __init__(self, convolution, num_frames, online):
        super().__init__()
        self.convolution, self.num_frames, self.online = convolution, num_frames, online

    def forward(self, x):
        frames = x.view(-1, self.num_frames, *x.shape[1:])
        eighth = x.shape[1] // 8
        out = torch.zeros_like(frames)
        if self.online:
            out[:, 1:, :eighth] = frames[:, :-1, :eighth]
            out[:, :, eighth:] = frames[:, :, eighth:]
        else:
            out[:, :-1, :eighth] = frames[:, 1:, :eighth]
            out[:, 1:, eighth : 2 * eighth] = frames[:, :-1, eighth : 2 * eighth]
            out[:, :, 2 * eighth :] = frames[:, :, 2 * eighth :]
        return self.convolution(out.view(x.shape))


@pytest.mark.parametrize("shift", [pytest.param("online", marks=pytest.mark.slow), "offline"])
def test_plain_network_is_pytorchs(shift):
    architecture, model, variables, apply = _create(shift)
    videos = draw_videos(2)
    ours = apply(variables, videos, gated=False).frame_logits
    theirs = torch_sofnet.create_like(architecture).eval()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in to_state_dict(variables).items()})
    for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        for block in layer:
            block.conv1 = _Shift(block.conv1, FRAMES, shift == "online")
    with torch.no_grad():
        images = torch.from_numpy(np.array(normalise(jnp.asarray(videos), jnp.float32)))
        expected = theirs.warm_up_forward(images.permute(0, 1, 4, 2, 3)).frame_logits
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_deep_networks_shift_in_every_second_block():
    def count(name):
        spec = dataclasses.replace(BACKBONES[name], shifts=True)
        return [sum(block.shifts for block in blocks) for blocks in spec.stages]

    assert count("resnet50") == [3, 4, 6, 3]
    assert count("resnet101") == [2, 2, 12, 2]
    assert not any(block.shifts for blocks in BACKBONES["resnet50"].stages for block in blocks)


@pytest.mark.slow
def test_all_gates_forward_is_the_plain_network_forwards_and_backwards():
    architecture, model, variables, _ = _create()
    variables = _force(variables, architecture.gate_names, 1)
    videos = jnp.asarray(draw_videos(2))

    @functools.partial(jax.jit, static_argnames="gated")
    def differentiate(params, gated):
        def score(params):
            outputs = model.apply(variables | {"params": params}, videos, gated=gated)
            return jnp.square(outputs.video_logits).sum(), outputs.frame_logits

        return jax.value_and_grad(score, has_aux=True)(params)

    (_, logits), gradients = differentiate(variables["params"], True)
    (_, plain), expected = differentiate(variables["params"], False)
    np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(gradients["backbone"]), jax.tree.leaves(expected["backbone"]), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max() + 1e-7)


def test_a_later_frame_never_changes_an_earlier_decision():
    _, _, variables, apply = _create()
    videos = draw_videos(4)
    other = videos.copy()
    other[:, 6:] = 255 - other[:, 6:]
    old, new = apply(variables, videos), apply(variables, other)
    np.testing.assert_array_equal(old.frame_logits[:, :6], new.frame_logits[:, :6])
    np.testing.assert_array_equal(old.decision.logits[:, :6], new.decision.logits[:, :6])
    assert not np.allclose(old.frame_logits[:, 6:], new.frame_logits[:, 6:])


def test_offline_a_later_frame_does():
    _, _, variables, apply = _create("offline")
    videos = draw_videos(1)
    other = videos.copy()
    other[:, 6] = 255 - other[:, 6]
    old, new = apply(variables, videos), apply(variables, other)
    assert not np.array_equal(old.frame_logits[:, 5], new.frame_logits[:, 5])


def _keeps(recognizer, frame):
    recognizer.step(frame)
    return recognizer.action == len(GATES)


def test_a_stopped_frame_leaves_no_trace():
    """Removing a video's stopped frames does not change its logits."""
    architecture, _, variables, _ = _create()
    network = deploy(architecture, variables, dtype="float32", winograd=False)
    seen = 0
    for video in draw_videos(6):
        recognizer = Recognizer(network)
        kept = [_keeps(recognizer, frame) for frame in video]
        if not any(kept):
            continue
        result = recognizer.result()
        recognizer.reset()
        assert all(_keeps(recognizer, frame) for frame in video[kept])
        np.testing.assert_array_equal(recognizer.result().logits, result.logits)
        seen += any(kept) and not all(kept)
    assert seen > 2


def test_what_is_shifted_is_of_the_last_kept_frame():
    """Without this, the test above would pass for a network that shifts nothing."""
    architecture, _, variables, _ = _create()
    variables = _force(variables, architecture.gate_names, 1)
    recognizer = Recognizer(deploy(architecture, variables, dtype="float32", winograd=False))
    first, second = draw_videos(1)[0][:2]
    recognizer.step(first)
    alone = recognizer.result().logits
    recognizer.step(second)
    after = 2 * recognizer.result().logits - alone
    recognizer.reset()
    recognizer.step(second)
    assert np.abs(recognizer.result().logits - after).max() > 0.01


@pytest.mark.slow
def test_running_statistics_move_as_far_as_in_one_update():
    """T updates with momentum/T move the mean 1 − (1 − 0.1/T)^T of the way to a constant."""
    architecture, model, variables, _ = _create()
    videos = jnp.asarray(np.repeat(draw_videos(2)[:, :1], FRAMES, axis=1))
    variables = jax.tree.map(jnp.asarray, variables)
    zero = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    _, updates = jax.jit(
        lambda: model.apply(
            {"params": variables["params"], "batch_stats": zero},
            videos,
            train=True,
            rngs={"dropout": jax.random.key(0), "gate": jax.random.key(0)},
            mutable=["batch_stats"],
        )
    )()
    _, plain = jax.jit(
        lambda: SoFNet(architecture).apply(
            {"params": variables["params"], "batch_stats": zero},
            videos,
            train=True,
            gated=False,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
    )()
    share = (1 - (1 - 0.1 / FRAMES) ** FRAMES) / 0.1
    name = ("backbone", "res1", "bn1", "mean")  # before any shift
    ours, theirs = (
        functools.reduce(dict.__getitem__, name, u["batch_stats"]) for u in (updates, plain)
    )
    np.testing.assert_allclose(ours, share * np.asarray(theirs), rtol=1e-4)


def test_each_window_shifts_from_its_own_frames():
    architecture, _, variables, _ = _create()
    network = deploy(architecture, variables, dtype="float32", winograd=False)
    frames = np.concatenate(draw_videos(2))
    windows = Windows(network, num_frames=8, seconds=8.0, every=3)
    done = [w for t, frame in enumerate(frames) for w in windows.step(float(t), frame)]
    assert len(done) > 3
    for window in done:
        recognizer = Recognizer(network, NEVER)
        for time in window.times:
            recognizer.step(frames[int(time)])
        np.testing.assert_array_equal(window.result.logits, recognizer.result().logits)


def test_frames_of_another_size_are_refused():
    architecture, _, variables, _ = _create()
    variables = _force(variables, architecture.gate_names, 1)
    recognizer = Recognizer(deploy(architecture, variables, dtype="float32", winograd=False))
    recognizer.step(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="make them one"):
        recognizer.step(np.zeros((48, 48, 3), np.uint8))


def test_offline_cannot_skip():
    architecture, _, variables, _ = _create("offline")
    with pytest.raises(UserError, match="model.shift=online"):
        deploy(architecture, variables)
