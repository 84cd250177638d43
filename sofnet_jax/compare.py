"""Train TSN and SoF-Net, or other methods, on the same budget and compare them.

usage: python -m sofnet_jax.compare --config=FILE --workdir=FOLDER [--seeds=0,1,2] [--methods=…]
example: python -m sofnet_jax.compare --config=configs/synthetic.py --workdir=runs/demo
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from sofnet_jax.evaluation.table import format_table
from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import CONFIG, WORKDIR
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_json
from sofnet_jax.host.paths import expand
from sofnet_jax.parallel import processes
from sofnet_jax.report.ablations import METHODS, create_config, find_contradiction
from sofnet_jax.run.config import flatten_fields, require_fields
from sofnet_jax.run.fields import SOFNETS
from sofnet_jax.training.loop import train

for name in ("config", "workdir", "seeds", "methods"):
    flags.declare_key_flag(name)


def main(argv: list[str]) -> None:
    """Train both methods with every seed and print the table."""
    command_line.refuse_arguments(argv)
    config, workdir = require_fields(CONFIG.value), Path(expand(WORKDIR.value or ""))
    p = config.parallel
    with processes.join_processes(p.coordinator, p.num_processes, p.process_id):
        _compare_seeds(config, workdir)


def _compare_seeds(config: ConfigDict, workdir: Path) -> None:
    if config.model.system == "tsn":
        raise UserError("--config: TSN cannot be compared with itself; leave out :tsn")
    seeds = command_line.read_seeds(config.seed)
    methods = [name for name in command_line.METHODS.value if name != "tsn"] or ["sofnet"]
    if unknown := [name for name in methods if name not in METHODS]:
        raise UserError(f"--methods: no method '{unknown[0]}'; choose of {', '.join(METHODS)}")
    for method in (METHODS[name] for name in ("tsn", *methods)):
        own = flatten_fields(create_config(config, method, config.seed).to_dict())
        if why := find_contradiction(own, method):
            raise UserError(f"--config: {why}; choose systems with --methods")
    results = {seed: compare(config, workdir, seed, methods) for seed in seeds}
    if jax.process_index() == 0:
        write_json(workdir / "compare.json", {str(seed): rows for seed, rows in results.items()})
        print("\n" + format_comparison(results), flush=True)


def compare(
    config: ConfigDict, workdir: Path, seed: int, methods: Sequence[str] = ("sofnet",)
) -> dict[str, dict[str, float]]:
    """Train TSN and other methods with one seed, except for runs already finished in `workdir`.

    Returns:
        The metrics of TSN, and of each method without and with early exit.
    """
    rows = {}
    for name in ("tsn", *methods):
        print(f"\n=== {name}, seed {seed}", flush=True)
        own = create_config(config, METHODS[name], seed)
        if own.model.system in SOFNETS and own.train.gate_steps:
            _share_network(own, workdir / f"tsn_seed{seed}")
        result = train(own, workdir / f"{name}_seed{seed}")
        rows[METHODS[name].title] = result["eval"]
        if "eval_early" in result:
            rows[f"{METHODS[name].title}, early exit"] = result["eval_early"]
    return rows


def _share_network(config: ConfigDict, tsn: Path) -> None:
    """Begin with the gates, in place: the network that they are given is TSN's."""
    config.init_from = str(tsn)
    config.train.warmup_epochs = config.train.joint_epochs = 0


def format_comparison(results: dict[int, dict[str, dict[str, float]]]) -> str:
    """The table of every seed and of their means, and the differences to TSN."""
    tables = []
    for seed, rows in results.items():
        tables += [f"Seed {seed}", format_table(rows), ""]
    mean = {
        name: _mean([r[name] for r in results.values()]) for name in next(iter(results.values()))
    }
    if len(results) > 1:
        tables += [f"Mean of {len(results)} seeds", format_table(mean), ""]
    tsn = mean["TSN"]
    for name in list(mean)[1:]:
        gains = [100 * (r[name]["top1"] - r["TSN"]["top1"]) for r in results.values()]
        cost = mean[name]["gflops_per_video"] / tsn["gflops_per_video"]
        each = f" (by seed: {', '.join(f'{g:+.1f}' for g in gains)})" if len(gains) > 1 else ""
        tables.append(
            f"{name}: {statistics.mean(gains):+.1f} points of top-1 against TSN{each}, "
            f"at {100 * cost:.0f} % of its GFLOPs"
        )
        if "relevant" in mean[name]:
            tables[-1] += (
                f"; {100 * mean[name]['kept_relevant']:.0f} % of the kept frames lie inside the "
                f"action, {100 * mean[name]['relevant']:.0f} % of all frames do"
            )
    evaluated = {
        f"{m['evaluated']:.0f} / {m['total']:.0f}" for r in results.values() for m in r.values()
    }
    return "\n".join([*tables, f"evaluated videos: {', '.join(sorted(evaluated))}"])


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.mean(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main)
