import pytest

from sofnet_jax.training.profile import Clock


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
