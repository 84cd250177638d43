"""What `python -m sofnet_jax.predict --manifest` takes and says."""

import os
from typing import Any

from absl import flags

from sofnet_jax.archive.recognition import Settings
from sofnet_jax.archive.results import FORMATS
from sofnet_jax.host.beam import require_beam
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.workers import count_cores
from sofnet_jax.weights.load import load_weights

MANIFEST = flags.DEFINE_string("manifest", "", "A CSV of the videos of an archive.")
OUTPUT = flags.DEFINE_string("output", "", "Of an archive: the folder of its results.")
FORMAT = flags.DEFINE_enum("format", "jsonl", FORMATS, "Of an archive's results.")
SHARD_SIZE = flags.DEFINE_integer("shard_size", 100, "Of an archive: videos in a file.", 1)
TIME_LIMIT = flags.DEFINE_float(
    "time_limit", 600.0, "Of an archive: seconds in which some video must be done.", 1.0
)
NUM_THREADS = flags.DEFINE_integer(
    "num_threads", None, "Of an archive: reading videos, in each worker; default: its cores.", 1
)
BEAM = flags.DEFINE_string("beam", "", "Of an archive: options of Apache Beam.")


def is_wanted() -> bool:
    """Whether an archive is to be recognised."""
    return bool(MANIFEST.value or OUTPUT.value)


def recognize(*, checkpoint: str, **options: Any) -> int:
    """Recognises what the flags say, prints the account, and returns how many dead letters it has.

    `options` are the other ones of `Settings`. Raises UserError.
    """
    for name, value in (
        ("manifest", MANIFEST.value),
        ("output", OUTPUT.value),
        ("checkpoint", checkpoint),
    ):
        if not value:
            raise UserError(f"--{name} is missing")
    require_beam()
    from sofnet_jax.archive.pipeline import recognize_archive

    if not checkpoint.startswith("hub:"):
        checkpoint = os.path.abspath(os.path.expanduser(checkpoint))
    account = recognize_archive(
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
