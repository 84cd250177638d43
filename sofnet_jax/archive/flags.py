"""Flags of `python -m sofnet_jax.predict --manifest`, and what they start."""

import os
from typing import Any

from absl import flags

from sofnet_jax.archive.recognition import Settings
from sofnet_jax.archive.results import FORMATS
from sofnet_jax.host.beam import require_beam
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.workers import count_cores
from sofnet_jax.weights.load import load_weights

MANIFEST = flags.DEFINE_string("manifest", "", "Archive: CSV of its videos.")
OUTPUT = flags.DEFINE_string("output", "", "Archive: folder for the results.")
FORMAT = flags.DEFINE_enum("format", "jsonl", FORMATS, "Archive: format of the results.")
SHARD_SIZE = flags.DEFINE_integer("shard_size", 100, "Archive: videos per output file.", 1)
TIME_LIMIT = flags.DEFINE_float(
    "time_limit", 600.0, "Archive: seconds within which some video must be finished.", 1.0
)
NUM_THREADS = flags.DEFINE_integer(
    "num_threads", None, "Archive: reading threads per worker; default: the number of cores.", 1
)
BEAM = flags.DEFINE_string("beam", "", "Archive: options of Apache Beam.")


def is_wanted() -> bool:
    """Whether the flags name an archive."""
    return bool(MANIFEST.value or OUTPUT.value)


def process(*, checkpoint: str, **options: Any) -> int:
    """Predict the archive that the flags name, print a summary, return the number of dead letters.

    `options` are the remaining fields of `Settings`. Raises UserError.
    """
    required = {"manifest": MANIFEST.value, "output": OUTPUT.value, "checkpoint": checkpoint}
    for name, value in required.items():
        if not value:
            raise UserError(f"--{name} is missing")
    require_beam()
    from sofnet_jax.archive.pipeline import process_archive

    if not checkpoint.startswith("hub:"):
        checkpoint = os.path.abspath(os.path.expanduser(checkpoint))
    account = process_archive(
        os.path.expanduser(MANIFEST.value or ""),
        os.path.expanduser(OUTPUT.value or ""),
        Settings(
            checkpoint=checkpoint,
            digest=load_weights(checkpoint, options["which"]).digest,
            num_threads=NUM_THREADS.value or count_cores(),
            time_limit=TIME_LIMIT.value,
            **options,
        ),
        form=FORMAT.value,
        shard_size=SHARD_SIZE.value,
        beam_options=BEAM.value or "",
    )
    print("\n".join(account.describe(OUTPUT.value or "")), flush=True)
    return account.tally.dead
