"""The embedded default: generated videos and a tiny backbone, in minutes on 2 CPU cores.

python -m sofnet_jax.main --config configs/synthetic.py --workdir /tmp/sofnet
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """See configs/default.py for every field and for the variants."""
    c = default.create_default()
    c.data.source = "synthetic"
    c.data.num_frames = 8
    c.data.size = 64
    c.data.num_workers = 0  # threads: two cores have none to spare for processes
    c.model.backbone = "tiny"
    c.model.hidden = 64
    c.model.forward_bias = 2.0
    c.model.dropout = 0.2
    c.train.warmup_epochs = 10
    c.train.joint_epochs = 20
    c.train.batch_size = 10
    c.loss.alpha = 0.7
    c.loss.reference_gflops = 2.52
    c.optimizer.name = "adam"
    c.optimizer.learning_rate = 0.003
    c.optimizer.drop_epochs = (13, 18)
    c.temperature.decay = 0.135  # 20 epochs end at the temperature of the paper's 60
    c.eval.metric = "top1"
    c.eval.every_epochs = 5
    c.eval.threshold = 0.9
    return default.apply_variant(c, variant)
