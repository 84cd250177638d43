"""mini-Sports1M: 487 sports; the part of Sports1M that AR-Net and the paper's supplement use.

    python -m sofnet_jax.main --config configs/mini_sports1m.py --workdir runs/mini_sports1m \
        --config.data.prepared=data/mini_sports1m --config.init_from=resnet50.pth

Data: see docs/data.md; `python -m sofnet_jax.prepare mini_sports1m …` writes data/mini_sports1m.
Hardware of the paper: 4 Titan XP, 6 videos on each. On one GPU, --config.train.accumulate=4 keeps
BatchNorm's groups of 6.
Paper: top-1 41.2 % with 29.0 GFLOPs/V; with :tsn, 39.2 % and 40.3 (Table B of the supplement).
"""

from ml_collections import ConfigDict

from sofnet_jax.run.config import apply_variant, create_default


def get_config(variant: str = "") -> ConfigDict:
    """Create the configuration; `sofnet_jax/run` lists all fields and variants."""
    c = create_default()
    c.data.name = "mini_sports1m"
    c.data.source = "prepared"
    c.eval.metric = "top1"
    return apply_variant(c, variant)
