"""THUMOS'14: 101 sports; trained on the 1,010 validation videos, tested on the 1,574 test videos.

    python -m sofnet_jax.main --config configs/thumos14.py --workdir runs/thumos14 \
        --config.data.prepared=data/thumos14 --config.init_from=resnet50.pth

Data: see docs/data.md; `python -m sofnet_jax.prepare thumos14 …` writes data/thumos14.
Hardware of the paper: 4 Titan XP, 6 videos on each. On one GPU, --config.train.accumulate=4 keeps
BatchNorm's groups of 6.
Paper, with early exit: mAP 47.8 % with 25.6 GFLOPs/V; with :tsn, 46.6 % and 65.9 (Table 2).
"""

from ml_collections import ConfigDict

from sofnet_jax.run.config import apply_variant, create_default


def get_config(variant: str = "") -> ConfigDict:
    """Create the configuration; `sofnet_jax/run` lists all fields and variants."""
    c = create_default()
    c.data.name = "thumos14"
    c.data.source = "prepared"
    c.data.size = 224
    c.eval.metric = "map"
    return apply_variant(c, variant)
