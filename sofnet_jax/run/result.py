"""A run's result.json and config.json."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import is_number, read_json, write_json

# In every evaluation, besides the shares of frames stopped at each gate.
METRICS = (
    "top1",
    "top5",
    "map",
    "gflops_per_video",
    "gflops_per_frame",
    "usage",
    "exit",
    "evaluated",
)


def read_result(path: Path) -> dict[str, Any]:
    """Reads a result.json, which has all `METRICS`.

    Raises:
        UserError: it is missing or damaged.
    """
    result = read_json(path)
    for part in ("eval", *(["eval_early"] if "eval_early" in result else [])):
        metrics = result.get(part)
        if not isinstance(metrics, dict):
            raise UserError(f"{path} is damaged: it has no metrics")
        stops = [name for name in metrics if name.startswith("stop/")]
        for name in (*METRICS, *stops):
            if not is_number(metrics.get(name)):
                raise UserError(f"{path} is damaged: {part}/{name} is {metrics.get(name)!r}")
    return result


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Saves the resolved configuration as `config.json`."""
    write_json(workdir / "config.json", config.to_dict())
