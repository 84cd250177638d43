"""ActivityNet-v1.3, the paper's main experiment: 10,024 training and 4,926 validation videos.

    python -m sofnet_jax.main --config configs/activitynet.py --workdir runs/activitynet \
        --config.data.prepared=data/activitynet --config.init_from=resnet50.pth

Data: see docs/data.md; `python -m sofnet_jax.prepare activitynet …` writes data/activitynet.
Hardware of the paper: 4 Titan XP, 6 videos on each. On one GPU, --config.train.accumulate=4 keeps
BatchNorm's groups of 6.
Paper: mAP 75.6 % with 31.7 GFLOPs/V; with early exit 75.3 % and 27.4 (Tables 4 and 5).
With :192, 76.4 % and 43.7, early 76.3 % and 37.4; with :224, 77.1 % and 55.7, early 76.9 % and 48.6
(Table 5). With :tsn, 73.7 % and 40.3 (Table 4).
"""

from ml_collections import ConfigDict

from sofnet_jax.run.config import apply_variant, create_default


def get_config(variant: str = "") -> ConfigDict:
    """Create the configuration, of which every other field has its default."""
    c = create_default()
    c.data.name = "activitynet"
    c.data.source = "prepared"
    return apply_variant(c, variant)
