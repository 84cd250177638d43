"""Your own videos: a starting point for a few hundred of them, with weights trained on ImageNet.

    python -m sofnet_jax.main --config configs/videos.py --workdir runs/videos \
        --config.data.train=train --config.data.val=val \
        --config.init_from=resnet50.pth

Data: for each split a folder with one sub-folder per class, or a CSV with `path,label[,label…]`; if
your videos have several labels each, add --config.eval.metric=map.
Hardware: one GPU. On a CPU take fewer and smaller frames and a smaller network:
`--config configs/videos.py:112 --config.data.num_frames=8 --config.model.backbone=resnet18`, with
weights of that network.
"""

from ml_collections import ConfigDict

from sofnet_jax.run.config import apply_variant, create_default


def get_config(variant: str = "") -> ConfigDict:
    """Create the configuration; `sofnet_jax/run` lists all fields and variants."""
    c = create_default()
    c.data.num_workers = 4
    c.model.forward_bias = 2.0  # few steps an epoch: start with gates that let most frames through
    c.train.batch_size = 8
    c.train.log_every = 5
    c.eval.batch_size = 8
    c.eval.every_epochs = 5
    c.eval.metric = "top1"
    return apply_variant(c, variant)
