"""The embedded default: generated videos and a tiny backbone, in minutes on 2 CPU cores.

python -m sofnet_jax.main --config configs/synthetic.py --workdir /tmp/sofnet
"""

from ml_collections import ConfigDict

from sofnet_jax.run.config import apply_variant, create_default


def get_config(variant: str = "") -> ConfigDict:
    """Create the configuration; `sofnet_jax/run` lists all fields and variants."""
    c = create_default()
    c.data.name = "synthetic"
    c.data.source = "synthetic"
    c.data.num_frames = 8
    c.data.size = 48
    c.data.num_workers = 0  # threads: two cores have none to spare for processes
    c.data.keep = True  # 0.8 GB
    c.model.backbone = "tiny"
    c.model.hidden = 64
    c.model.forward_bias = 2.0
    c.model.dropout = 0.2
    c.train.warmup_epochs = 16  # joint training that starts at chance stops every frame
    c.train.joint_epochs = 32
    c.train.batch_size = 20  # smaller ones linger at chance
    c.loss.alpha = 0.75  # few epochs: gates that pay more for each frame learn sooner to stop
    c.loss.reference_gflops = 2.52  # ResNet-50's: a tiny backbone's own would not be felt
    c.optimizer.name = "adam"
    c.optimizer.policy_rate = 5.0  # the policies begin when a third of the steps is over
    c.optimizer.drop_epochs = (20, 28)
    c.temperature.initial = 1.0  # at 5 the self-supervision drowns the gates' other gradients
    c.temperature.decay = 0.07
    c.eval.metric = "top1"
    c.eval.every_epochs = 8
    c.eval.threshold = 0.98  # so few epochs leave the scores less extreme than the paper's
    c.frameexit.features = 256
    c.frameexit.gate_features = (32, 16)
    c.frameexit.gate_epochs = 60  # of two steps each
    c.frameexit.beta = 0.02  # so small a network never reaches the losses of the paper's
    return apply_variant(c, variant)
