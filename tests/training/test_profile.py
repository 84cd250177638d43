import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from sofnet_jax.training.profile import Clock, Trace, choose_steps


def read_steps(folder):
    """Names and numbers of the steps of each profile in a folder, oldest first."""
    found = []
    for path in sorted(folder.glob("plugins/profile/*/perfetto_trace.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        found.append([int(e["args"]["step_num"]) for e in events if e.get("name") == "train"])
    return found


@pytest.mark.parametrize(
    ("done", "breaks", "steps"),
    [
        (0, {1000}, range(6, 11)),  # five, after five
        (300, {1000}, range(306, 311)),  # of a run that was resumed
        (0, {10, 20}, range(6, 11)),  # just before an evaluation
        (0, {9, 30}, range(15, 20)),  # one step too few before it
        (994, {500, 995, 1000, 1010}, range(1006, 1011)),
        (0, {3, 6, 9}, range(7, 10)),  # never enough: the last stretch of the longest
        (0, {8, 12}, range(4, 9)),
        (0, {2}, range(1, 3)),
        (10, {5, 10}, range(11, 11)),  # nothing left to train
    ],
)
def test_profiled_steps_have_nothing_else_between_them(done, breaks, steps):
    assert choose_steps(done, breaks) == steps


def run_steps(trace, numbers):
    square = jax.jit(jnp.square)
    for number in numbers:
        with trace.step(number, Clock()):
            square(jnp.ones(()))


def test_steps_asked_for_are_recorded_and_an_earlier_profile_stays(tmp_path, capsys):
    with Trace(tmp_path, range(2, 4)) as trace:
        run_steps(trace, range(1, 7))
        assert read_steps(tmp_path) == [[2, 3]]  # written at once, not at the end
    (first,) = tmp_path.glob("plugins/profile/*")
    first.rename(first.with_name("0_" + first.name))  # their names are seconds
    with pytest.raises(KeyboardInterrupt), Trace(tmp_path, range(5, 10)) as trace:
        run_steps(trace, range(1, 7))
        raise KeyboardInterrupt
    assert read_steps(tmp_path) == [[2, 3], [5, 6]]
    said = capsys.readouterr().out
    assert "profile of steps 2 to 3: open " in said and "profile of steps 5 to 6: open " in said


def test_a_profile_that_cannot_be_written_ends_no_training(tmp_path, capsys):
    (tmp_path / "plugins").write_text("a file where the folder should be")
    with Trace(tmp_path, range(1, 2)) as trace:
        run_steps(trace, range(1, 4))
    assert capsys.readouterr().out.startswith("no profile: ")


class FakeTime:
    """Stands still unless it is told to pass."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float, clock: Clock | None = None, part: str = "") -> None:
        if clock is None:
            self.now += seconds
            return
        with clock.part(part):
            self.now += seconds


def test_a_step_is_divided_into_input_device_and_host():
    time = FakeTime()
    clock = Clock(time)
    for _ in range(2):
        time.spend(1.0, clock, "input")
        time.spend(0.25, clock, "put")
        time.spend(0.5, clock, "step")
        time.spend(3.0, clock, "metrics")
        time.spend(0.25)
        clock.steps += 1
    assert clock.read() == pytest.approx(
        {
            "time/step_seconds": 5.0,
            "time/input_wait": 0.2,
            "time/device_wait": 0.6,
            "time/host": 0.2,
        }
    )
    assert clock.describe() == "5 s a step: input 20 %, device 60 %, host 20 %"


def test_each_reading_begins_anew_and_the_words_are_of_all():
    time = FakeTime()
    clock = Clock(time)
    time.spend(4.0, clock, "metrics")
    clock.steps += 1
    clock.read()
    time.spend(1.0, clock, "input")
    time.spend(1.0)
    clock.steps += 2
    scalars = clock.read()
    assert scalars["time/step_seconds"] == pytest.approx(1.0)
    assert [scalars[f"time/{x}"] for x in ("input_wait", "device_wait", "host")] == [0.5, 0, 0.5]
    assert clock.describe() == "2 s a step: input 17 %, device 67 %, host 17 %"


@pytest.mark.parametrize("part", ["compilation", "profile"])
def test_what_is_no_part_of_a_step_is_left_out(part):
    time = FakeTime()
    clock = Clock(time)
    time.spend(60.0, clock, part)
    time.spend(1.0, clock, "input")
    time.spend(1.0, clock, "metrics")
    clock.steps += 1
    assert clock.read() == {
        "time/step_seconds": 2.0,
        "time/input_wait": 0.5,
        "time/device_wait": 0.5,
        "time/host": 0.0,
    }
