"""Your own videos: a starting point for tens to thousands, with weights trained on ImageNet.

    python -m sofnet_jax.main --config configs/videos.py --workdir runs/videos \
        --config.data.train=train --config.data.val=val \
        --config.init_from=resnet50.pth

Data: for each split a folder with one sub-folder per class, or a CSV with `path,label[,label…]`; if
your videos have several labels each, add --config.eval.metric=map. `sofnet_jax.compare` in place of
`sofnet_jax.main` trains TSN first, for comparison, and gives SoF-Net its network.
Hardware: one GPU. On a CPU take fewer and smaller frames and a smaller network:
`--config configs/videos.py:112 --config.data.num_frames=8 --config.model.backbone=resnet18`, with
weights of that network. docs/training.md says what to expect, and what to change.
"""

from ml_collections import ConfigDict

from sofnet_jax.run.config import apply_variant, create_default


def get_config(variant: str = "") -> ConfigDict:
    """Create the configuration; `sofnet_jax/run` lists all fields and variants."""
    c = create_default()
    c.data.num_workers = 4
    c.train.batch_size = 8
    c.train.log_every = 5
    c.eval.batch_size = 8
    c.eval.every_epochs = 5
    c.eval.metric = "top1"

    # The network, as TSN: ten passes, but no fewer steps than fifty videos would need.
    c.train.warmup_epochs = 10
    c.train.joint_epochs = 0
    c.train.least_steps = 400
    c.optimizer.learning_rate = 0.005
    c.optimizer.schedule = "cosine"

    # The gates. All fields below depart from the paper, whose gates take 25,000 steps of SGD; fifty
    # videos make 400, in which they do not move. docs/training.md gives the reasons.
    c.train.gate_steps = 4000  # from stored features, a step takes hundredths of a second
    c.train.feature_noise = 1.0  # else the early gates know the training videos, and stop others
    c.optimizer.policy_name = "adam"  # the gradient on a gate is small, and the steps are few
    c.optimizer.policy_rate = 0.4  # 0.002
    c.optimizer.classifier_rate = 0.1  # so that the classifier adapts to the frames that are kept
    c.model.hidden = 128  # as accurate as 512 where it was tried, at a quarter of the time
    c.model.forward_bias = 2.0  # else the first steps see one frame in 32, and learn nothing
    c.temperature.initial = 1.0  # at 5 the self-supervision drowns the gates' other gradients
    c.temperature.final = 0.5
    c.loss.alpha = 0.5  # a network that already fits its videos leaves L_cls small
    c.loss.floor = 0.7  # else trimmed videos, whose frames say the same, are left one frame each
    c.loss.reference_gflops = 2.52  # the paper's network; so α means the same for any other
    return apply_variant(c, variant)
