"""Mini-Kinetics: 200 classes, 121,215 training and 9,867 test videos of 10 seconds.

    python -m sofnet_jax.main --config configs/mini_kinetics.py --workdir runs/mini_kinetics \
        --config.data.prepared=data/mini_kinetics --config.init_from=resnet50.pth

Data: see docs/data.md; `python -m sofnet_jax.prepare mini_kinetics …` writes data/mini_kinetics.
Hardware of the paper: 4 Titan XP, 6 videos on each. On one GPU, --config.train.accumulate=4 keeps
BatchNorm's groups of 6.
Paper, with early exit: top-1 72.8 % with 28.0 GFLOPs/V (Table 1).
"""

from ml_collections import ConfigDict

from sofnet_jax.run.config import apply_variant, create_default


def get_config(variant: str = "") -> ConfigDict:
    """Create the configuration; `sofnet_jax/run` lists all fields and variants."""
    c = create_default()
    c.data.name = "mini_kinetics"
    c.data.source = "prepared"
    c.eval.metric = "top1"
    return apply_variant(c, variant)
