import pytest

from sofnet_jax.evaluation.collapse import describe_collapse
from sofnet_jax.run.config import create_default


def _describe(stops, usage, gflops=2.5, **fields):
    config = create_default()
    config.update_from_flattened_dict({"data.num_frames": 8} | fields)
    metrics = {"usage": float(usage), "gflops_per_frame": gflops}
    metrics |= {f"stop/res{n + 1}": float(x) for n, x in enumerate(stops)}
    return describe_collapse(metrics, config)


@pytest.mark.parametrize(
    ("arguments", "fields", "expected"),
    [
        (([0, 0], 1), {}, "stop no frame; lower loss.alpha (it is 0.9) or set train.gate_steps="),
        (([0, 0], 1), {"train.gate_steps": 9}, "or raise train.gate_steps (9); see docs/training"),
        (([0, 0], 1, 0.3), {}, "stop no frame; set loss.reference_gflops=2.52"),
        (([0, 0], 1, 0.3), {"loss.reference_gflops": 2.5}, "stop no frame; lower loss.alpha"),
        (
            ([0.5, 0.375], 0.125),
            {"loss.alpha": 0.25},
            "but the last; raise loss.alpha (it is 0.25) or model.forward_bias (0);",
        ),
        (([0.875], 0.125), {"model.forward_bias": 2.0}, "but the last; raise loss.alpha (it is 0."),
    ],
)
def test_gates_that_stop_none_or_all_are_said_to(arguments, fields, expected):
    assert expected in _describe(*arguments, **fields)


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (([0, 0.01], 0.99), {}),
        (([0.5, 0.25], 0.25), {}),  # two frames of eight
        (([], 1), {"model.system": "tsn"}),
        (([0.0], 1), {"model.system": "frameexit"}),
    ],
)
def test_gates_that_work_are_not(arguments, fields):
    assert _describe(*arguments, **fields) == ""
