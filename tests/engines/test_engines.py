"""Inference engines: in each of them every system decides as evaluation does."""

import copy
import dataclasses
import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import flax.struct
import numpy as np
import pytest
from gated_network import SIZE, draw_videos
from laws import (
    TOLERANCE,
    VIDEOS,
    check_all,
    check_company,
    find_rule,
    read,
    run_lockstep,
    run_online,
)
from specimens import NAMES, create_specimen

from sofnet_jax.engines import registry
from sofnet_jax.engines.network import has_engine
from sofnet_jax.engines.registry import ENGINES, find_engine, use_engine
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference import choice
from sofnet_jax.inference.choice import choose_engine
from sofnet_jax.inference.online import Frame, Recognizer
from sofnet_jax.systems.early_exit import NEVER, Rule
from sofnet_jax.systems.sofnet.folded import GatedSpan


def move(name, engine, dtype="float32"):
    specimen = create_specimen(name)
    return dataclasses.replace(specimen, network=use_engine(specimen.network, engine, dtype))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_all_systems_decide_as_in_evaluation(name, engine):
    specimen = move(name, engine)
    videos = specimen.draw(VIDEOS)
    for rule in (NEVER, find_rule(specimen, videos)):
        steps = check_all(specimen, videos, rule, compiled=False)
        logits, found = read(run_lockstep(specimen.network, videos, rule))
        assert found == steps
        np.testing.assert_allclose(logits, specimen.evaluate(videos, rule)[0], atol=TOLERANCE)


@pytest.mark.parametrize("engine", ENGINES)
def test_company_and_length_change_nothing(engine):
    specimen = move("sofnet", engine)
    check_company(specimen)
    check_all(specimen, draw_videos(VIDEOS, 1), NEVER, compiled=False)  # kept, since it is the last
    check_all(specimen, draw_videos(VIDEOS), Rule(0.0, 3), compiled=False)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_frame_is_computed_once_for_several_videos(engine):
    specimen = move("sofnet", engine)
    video = specimen.draw(1)[0]
    one, other, alone = (Recognizer(specimen.network) for _ in range(3))
    for pixels in video:
        frame = Frame(specimen.network, pixels)
        one.step(frame)
        other.step(frame)
        alone.step(pixels)
    for recognizer in (one, other):
        np.testing.assert_array_equal(recognizer.result().logits, alone.result().logits)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stopped_last_frame_is_kept_after_others_have_run(engine):
    # What an engine left of a frame must outlive the frames that it is given afterwards.
    specimen = move("sofnet", engine)
    videos = specimen.draw(VIDEOS)
    recognizers = [Recognizer(specimen.network) for _ in videos]
    for recognizer, video in zip(recognizers, videos, strict=True):
        recognizer.step(video[0])
    stopped = [r for r in recognizers if r.action < 5]
    assert len(stopped) > 2
    for recognizer, video in zip(recognizers, videos, strict=True):
        alone = Recognizer(specimen.network)
        alone.step(video[0])
        expected = alone.result()
        np.testing.assert_array_equal(recognizer.result().logits, expected.logits)
        assert expected.trace.action.tolist() == [5]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_serves_several_threads(engine):
    specimen = move("sofnet", engine)
    videos = list(specimen.draw(VIDEOS))
    alone = [result.logits for result in run_online(specimen.network, videos, NEVER)]

    def run(i):
        [result] = run_online(specimen.network, [videos[i % VIDEOS]], NEVER)
        return np.array_equal(result.logits, alone[i % VIDEOS])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4 * VIDEOS)))


class Reading(GatedSpan):
    """A span that reads the features of its layers, which have another layout in an engine."""

    def extract(self, state, x):
        (features, pooled), evidence = super().extract(state, x)
        return (features, pooled), (pooled + features[:, :, :2].max((1, 2)), evidence[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_features_are_read_by_layers_alone(engine):
    specimen = create_specimen("sofnet")
    first, *others = specimen.network.spans
    reading = flax.struct.dataclass(Reading)(**vars(first))
    network = dataclasses.replace(specimen.network, spans=(reading, *others))
    list(run_online(network, specimen.draw(1), NEVER))  # in JAX it may
    with pytest.raises(UserError, match=f"the engine {engine} failed: .*ChannelsFirst"):
        choose_engine(network, engine, "float32", SIZE)


def test_weights_that_are_not_numbers_are_refused():
    network = create_specimen("tsn").network
    [span] = network.spans
    head = dataclasses.replace(span.head, bias=span.head.bias.at[0].set(np.nan))
    network = dataclasses.replace(network, spans=(dataclasses.replace(span, head=head),))
    with pytest.raises(UserError, match="the network's weights are not all numbers"):
        choose_engine(network, "openvino", "float32", SIZE)


def test_a_network_in_an_engine_is_copied_and_freed():
    network = move("sofnet", "onnxruntime").network
    [_] = run_online(network, create_specimen("sofnet").draw(1), NEVER)
    assert has_engine(copy.copy(network))
    span = weakref.ref(network.spans[0])
    del network
    gc.collect()
    assert span() is None


def test_bfloat16_rounds_the_layers_alone():
    engine = find_engine("openvino")
    if "bfloat16" not in engine.dtypes:
        pytest.skip("this machine has no instructions for bfloat16")
    exact, rounded = move("tsn", "openvino"), move("tsn", "openvino", "bfloat16")
    assert rounded.network.dtype == "bfloat16" and exact.network.dtype == "float32"
    videos = exact.draw(2)
    logits = [read(run_lockstep(each.network, videos, NEVER))[0] for each in (exact, rounded)]
    error = np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max()
    assert 1e-5 < error < 0.05
    assert logits[1].dtype == np.float32


def test_the_fastest_engine_is_chosen_and_named(monkeypatch):
    network = create_specimen("sofnet").network
    seconds = {"onnxruntime": 2.0, "openvino": 1.0, "jax": 3.0}
    monkeypatch.setattr(choice, "_measure", lambda network, engine, size: seconds[engine])
    chosen, text = choose_engine(network, "auto", "float32", SIZE)
    assert has_engine(chosen)
    assert text == (
        "engine: openvino, float32; onnxruntime takes 2.00 × as long; jax takes 3.00 × as long"
    )
    seconds["jax"] = 0.5
    assert choose_engine(network, "auto", "float32", SIZE)[0] is network


def test_an_engine_that_is_missing_or_fails_is_left_out_of_the_choice(monkeypatch):
    network = create_specimen("sofnet").network

    def fail(model, dtype):
        raise RuntimeError("no such instruction\nat 0x0")

    monkeypatch.setitem(sys.modules, "sofnet_jax.engines.onnxruntime", None)
    broken = SimpleNamespace(name="openvino", dtypes=("float32",), compile=fail)
    module = SimpleNamespace(ENGINE=broken)
    monkeypatch.setitem(sys.modules, "sofnet_jax.engines.openvino", module)
    chosen, text = choose_engine(network, "auto", "float32", SIZE)
    assert chosen is network
    assert text.startswith("engine: jax, float32; the engine onnxruntime is not installed")
    assert text.endswith("the engine openvino failed: no such instruction")
    with pytest.raises(UserError, match="failed: no such instruction$"):
        choose_engine(network, "openvino", "float32", SIZE)
    with pytest.raises(UserError, match=r"not installed .*'\.\[onnxruntime\]'$"):
        choose_engine(network, "onnxruntime", "float32", SIZE)


def test_what_an_engine_cannot_do_is_said(monkeypatch):
    network = create_specimen("sofnet").network
    with pytest.raises(UserError, match="on this machine, not in bfloat16"):
        choose_engine(network, "onnxruntime", "bfloat16", SIZE)
    with pytest.raises(UserError, match="engine is 'fast'; choose one of jax, onnxruntime"):
        choose_engine(network, "fast", "float32", SIZE)
    monkeypatch.setattr(registry.jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match="openvino runs on the CPU: set JAX_PLATFORMS=cpu"):
        choose_engine(network, "openvino", "float32", SIZE)
