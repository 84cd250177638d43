import json

from sofnet_jax.writer import Writer


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


def test_other_processes_write_nothing(tmp_path):
    writer = Writer(tmp_path, first_step=0, enabled=False)
    writer.write(1, {"train/loss": 0.5})
    writer.close()
    assert not list(tmp_path.iterdir())
