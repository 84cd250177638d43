import io
import json

import numpy as np
from event_file import read_events
from PIL import Image

from sofnet_jax.run.log import Writer


def read_rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_rows_are_written_at_once(tmp_path):
    writer = Writer(tmp_path, first_step=0)
    writer.write(1, {"train/loss": 0.5})
    assert read_rows(tmp_path) == [{"step": 1, "train/loss": 0.5}]
    writer.close()
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_resuming_removes_what_came_after_the_checkpoint_and_a_line_cut_short(tmp_path):
    writer = Writer(tmp_path, first_step=0)
    for step in (1, 2, 3):
        writer.write(step, {"train/loss": float(step)})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')
    writer = Writer(tmp_path, first_step=2)
    writer.write(3, {"train/loss": -3.0})
    writer.close()
    assert [(row["step"], row["train/loss"]) for row in read_rows(tmp_path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, -3.0),
    ]


def test_tensorboard_shows_every_scalar_and_image_once_also_after_resuming(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    for first, last in ((0, 3), (2, 4)):  # killed after step 3, resumed from the checkpoint of 2
        writer = Writer(tmp_path, first_step=first)
        for step in range(first + 1, last + 1):
            writer.write(step, {"train/loss": float(step)})
            writer.write_image(step, "eval/decisions", images[step - 1])
        writer.close()
        # Named by the second, of which this test takes less than one.
        (path,) = (tmp_path / "tensorboard").glob("*.[0-9]*.*")
        path.rename(path.with_name(f"events.out.tfevents.{first}"))
    events = sorted(read_events(tmp_path), key=lambda event: event[:2])
    pixels = [np.asarray(Image.open(io.BytesIO(png))) for _, _, png in events[::2]]
    np.testing.assert_array_equal(pixels, images)
    assert events[1::2] == [(step, "train/loss", step) for step in (1, 2, 3, 4)]


def test_other_processes_write_nothing(tmp_path):
    writer = Writer(tmp_path, first_step=0, enabled=False)
    writer.write(1, {"train/loss": 0.5})
    writer.write_image(1, "eval/decisions", np.zeros((2, 3, 3), np.uint8))
    writer.close()
    assert not list(tmp_path.iterdir())


def test_evaluation_that_is_to_be_made_again_is_removed_first(tmp_path):
    for evaluated in (False, True):
        writer = Writer(tmp_path, first_step=0)
        writer.write(1, {"train/loss": 1.0})
        writer.write(1, {"time/eval_seconds": 0.1})
        writer.write(1, {"eval/top1": 0.5, "eval_early/top1": 0.5})
        writer.close()
        Writer(tmp_path, first_step=1, evaluated=evaluated).close()
        assert len(read_rows(tmp_path)) == (3 if evaluated else 1)


def test_tensorboard_hides_an_evaluation_that_is_to_be_made_again(tmp_path):
    for number, evaluated in enumerate((True, False)):
        writer = Writer(tmp_path, first_step=number, evaluated=evaluated)
        if not number:
            writer.write(1, {"train/loss": 1.0, "train/odd": float("nan")})
        writer.write(1, {"eval/top1": 0.5 + number})
        writer.close()
        (path,) = (tmp_path / "tensorboard").glob("*.[0-9]*.*")
        path.rename(path.with_name(f"events.out.tfevents.{number}"))
    events = {name: value for _, name, value in read_events(tmp_path)}
    assert len(read_events(tmp_path)) == len(events) == 3
    assert (events["train/loss"], events["eval/top1"]) == (1.0, 1.5)
    assert np.isnan(events["train/odd"])
