"""Train or evaluate a network.

usage: python -m sofnet_jax.main --config=FILE[:VARIANTS] --workdir=FOLDER [--config.FIELD=VALUE…]
example: python -m sofnet_jax.main --config=configs/videos.py --workdir=runs/mine

Rerun the same command to resume a training. `sofnet_jax/run/fields.py` lists the fields of a
configuration, and `configs/` has a file for each data set.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import CONFIG, WORKDIR
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand

MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
PROFILE = flags.DEFINE_bool("profile", False, "Profile a few training steps to WORKDIR/profile.")


for name in ("config", "workdir"):
    flags.declare_key_flag(name)


def main(argv: list[str]) -> None:
    """Join the processes of the run, then train or evaluate."""
    command_line.refuse_arguments(argv)
    if PROFILE.value and MODE.value != "train":
        raise UserError("--profile applies to training; leave it out with --mode evaluate")
    from sofnet_jax.parallel import processes
    from sofnet_jax.run.config import refuse_foreign, require_fields
    from sofnet_jax.training.loop import evaluate, train

    config, workdir = require_fields(CONFIG.value), Path(expand(WORKDIR.value or ""))
    refuse_foreign(config, config_flags.get_override_values(flags.FLAGS["config"]))
    p = config.parallel
    with processes.join_processes(p.coordinator, p.num_processes, p.process_id):
        if MODE.value == "train":
            train(config, workdir, profile=PROFILE.value)
        else:
            evaluate(config, workdir)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main)
