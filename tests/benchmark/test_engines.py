"""The benchmark of engines measures what it says."""

import re

import numpy as np
import pytest

from sofnet_jax.benchmark import engines as benchmark
from sofnet_jax.benchmark import workload
from sofnet_jax.benchmark.forced_gates import FIGURE_3
from sofnet_jax.benchmark.hand_loop import HandLoop, create_span_models
from sofnet_jax.benchmark.stopwatch import Times, describe_load, time_in_turn
from sofnet_jax.benchmark.workload import create_workload
from sofnet_jax.engines.registry import ENGINES, find_engine
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.processor import sums_bytes

SIZE = 48


@pytest.fixture(scope="module")
def work():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "BACKBONE", "tiny")
        return create_workload(SIZE, FIGURE_3, dtype="float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_loop_by_hand_decides_alike(work, engine):
    compiled = [find_engine(engine).compile(m, "float32") for m in create_span_models(work.network)]
    loop = HandLoop(work.network, work.rule, compiled)
    for video, stop in zip(work.videos, work.stops, strict=True):
        np.testing.assert_array_equal(loop.recognize(video), stop)


def test_every_engine_is_reported_with_its_ratios(work):
    text = "\n".join(benchmark.benchmark_engines(work, 1))
    for engine in ("jax", *ENGINES):
        for way in ("TSN", "loop", "TSN, one program", "one program"):
            row = rf"^    {engine} float32, {way} +\d+\.\d +\d+\.\d(  unsteady)?$"
            assert re.search(row, text, re.M), row
        for way in ("loop", "one program"):
            line = rf"^  {engine} float32: the {way} takes \d+\.\d+ of TSN's time, \d+\.\d+ × its"
            assert re.search(line, text, re.M), line
    for engine in ENGINES if sums_bytes() else ():
        assert re.search(rf"^    {engine} int8, loop +\d+\.\d", text, re.M)
        assert f"  {engine} int8: the loop takes " in text and f"{engine} int8, one" not in text
    assert re.search(r"^  the fastest loop in float32 is (jax|onnxruntime|openvino)'s$", text, re.M)
    assert re.search(r"^  the fastest by hand takes \d+\.\d\d × as long$", text, re.M)
    assert re.search(r"load \d+\.\d", text)


def test_an_engine_that_decides_differently_is_not_measured(work, monkeypatch):
    stops = [stop.copy() for stop in work.stops]
    stops[0][0] = 4 - min(stops[0][0], 4)
    monkeypatch.setitem(vars(work), "stops", stops)
    _, remarks = benchmark._create_programs(work)
    assert len(remarks) == len(ENGINES)
    assert all("decides differently" in remark for remark in remarks)


def test_times_tell_whether_something_else_ran(monkeypatch):
    assert Times(1.0, 1.2).is_steady and not Times(1.0, 1.4).is_steady
    assert Times(1.0, 2.0).scale(10.0) == (10.0, 20.0)
    calls = []
    times = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert all(each.best <= each.median for each in times.values())
    for load, text in ((0.1, "load 0.1"), (2.0, "load 2.0, the machine was busy")):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert describe_load() == text


def test_mistakes_are_one_line(monkeypatch):
    from command import call

    code, _, err = call("benchmark", "engines", "--sizes=7")
    assert code == 1 and "--sizes=7: give sides of 32 to 4096" in err
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    code, _, err = call("benchmark", "engines")
    assert code == 1 and err == "error: engines run on the CPU: set JAX_PLATFORMS=cpu\n"


def test_an_engine_without_its_package_is_a_remark(work, monkeypatch):
    def find(name):
        raise UserError(f"the engine {name} is not installed")

    monkeypatch.setattr(benchmark, "find_engine", find)
    programs, remarks = benchmark._create_programs(work)
    assert {way.engine for way in programs} == {"jax"}
    assert remarks[0] == "  onnxruntime was not measured: the engine onnxruntime is not installed"
