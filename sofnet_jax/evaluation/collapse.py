"""Gates that have collapsed: they stop no frame, or every one."""

from collections.abc import Mapping

from ml_collections import ConfigDict

SMALL = 1.0  # GFLOPs a frame below which L_eff in real GFLOPs is hardly felt


def describe_collapse(metrics: Mapping[str, float], config: ConfigDict) -> str:
    """What is wrong with the gates and what to change, in a line; "" if nothing is.

    Args:
        metrics: of an evaluation without early exit, as `compute_metrics` returns them.
        config: of the run.
    """
    stops = [value for name, value in metrics.items() if name.startswith("stop/")]
    if not stops or not config.model.system.startswith("sofnet"):
        return ""
    alpha, bias = f"loss.alpha (it is {config.loss.alpha:g})", config.model.forward_bias
    if not sum(stops):
        what, remedy = "the gates stop no frame", f"lower {alpha}"
        reference = config.loss.reference_gflops
        if not reference and metrics["gflops_per_frame"] < SMALL:
            remedy = "set loss.reference_gflops=2.52, since this network's own are few"
        elif config.train.gate_steps:
            remedy += f" or raise train.gate_steps ({config.train.gate_steps})"
        else:
            remedy += " or set train.gate_steps=4000, which trains the gates by themselves"
    elif metrics["usage"] * config.data.num_frames < 1.001:  # the last frame is forced through
        what, remedy = "the gates stop every frame but the last", f"raise {alpha}"
        if bias < 2:
            remedy += f" or model.forward_bias ({bias:g})"
    else:
        return ""
    return f"{what}; {remedy}; see docs/training.md"
