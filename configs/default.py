"""Every field there is, with the values of the paper. The other files change a few of them."""

from ml_collections import ConfigDict

VARIANTS = (
    "tsn, fc, tsm_online, tsm_offline, release, sync_bn, bfloat16 or a resolution such as 192"
)


def create_default() -> ConfigDict:
    """The paper's experiment on ActivityNet-v1.3, without a data set."""
    c = ConfigDict()
    c.seed = 0
    c.init_from = ""  # weights to start from: a file, the folder of a run, or hub:owner/name

    c.data = ConfigDict()
    c.data.name = "videos"  # of the data set, under which results are reported
    # "videos": files; "prepared": what sofnet_jax.prepare wrote; "synthetic": the embedded default
    c.data.source = "videos"
    # Only for "videos": a folder with one sub-folder per class, or a CSV of path,label[,label…].
    c.data.train = ""
    c.data.val = ""
    c.data.short_side = 256  # pixels; larger videos are scaled down to this first, 0: never
    # Decoded videos stay in memory, in each process that reads them: for small data sets.
    c.data.keep = False
    c.data.prepared = ""  # only for "prepared": the folder of the data set
    c.data.num_frames = 16  # T
    c.data.size = 168  # pixels a side
    c.data.scales = (1.0, 0.875, 0.75, 0.66)  # of the multi-scale crop
    c.data.flip = True  # random horizontal flips
    c.data.num_workers = 2  # processes that decode; 0 decodes in threads of the main process

    c.data.synthetic = ConfigDict()  # only for source = "synthetic"
    c.data.synthetic.root = ""  # "" is a folder of its own in ~/.cache/sofnet_jax/synthetic
    c.data.synthetic.num_classes = 10
    c.data.synthetic.train_videos = 50  # a class
    c.data.synthetic.val_videos = 80  # a class
    c.data.synthetic.seed = 0

    c.model = ConfigDict()
    c.model.backbone = "resnet50"  # resnet18, resnet34, resnet50, resnet101 or tiny
    c.model.width = 0  # channels of res1; 0 is the backbone's own
    c.model.gates = (1, 2, 3, 4, 5)  # stages followed by a policy module; () is plain TSN
    c.model.hidden = 512  # units of each LSTM
    c.model.temporal = True  # False: a fully connected layer in place of the LSTM (Table 4)
    c.model.shift = ""  # the temporal shift of TSM: "online", "offline", or none
    c.model.forward_bias = 0.0  # initial bias of W_q for "forward"
    c.model.dropout = 0.5

    c.train = ConfigDict()
    c.train.batch_size = 24  # videos a step, over all devices and processes
    c.train.accumulate = 1  # micro-batches a step on each device
    c.train.warmup_epochs = 15  # all gates forward, policies frozen, L_cls alone
    c.train.joint_epochs = 60
    c.train.dtype = "float32"  # of the backbone's computation; or "bfloat16"
    c.train.remat = False  # recompute activations in the backward pass to save memory
    c.train.sync_batchnorm = False  # statistics over all devices instead of each for itself
    c.train.log_every = 10  # steps

    c.loss = ConfigDict()
    c.loss.alpha = 0.9  # weight of accuracy; the cost gets 1 - alpha (Eq. 8)
    c.loss.beta = 0.9  # weight of the inner classifiers; self-supervision gets 1 - beta (Eq. 12)
    c.loss.guidance = True  # False leaves L_pg out, both terms (Table 4 and "-" in Table D)
    # Of a frame, in L_eff. 0: the real ones. Tiny backbones need those of a ResNet-50 at 168×168,
    # 2.52, or the term vanishes.
    c.loss.reference_gflops = 0.0

    c.optimizer = ConfigDict()
    c.optimizer.name = "sgd"  # or "adam"
    c.optimizer.learning_rate = 0.001
    c.optimizer.policy_rate = 1.0  # learning rate of the policies over that of everything else
    c.optimizer.drop_epochs = (30,)  # joint epochs after which the learning rate falls to a tenth
    c.optimizer.momentum = 0.9  # Adam's b1
    c.optimizer.weight_decay = 1e-5

    c.temperature = ConfigDict()  # of the Gumbel-softmax: initial · exp(-decay · joint epoch)
    c.temperature.initial = 5.0
    c.temperature.decay = 0.045

    # Points in which to follow the authors' released code, not the paper; all: the variant
    # "release". See sofnet_jax/systems/sofnet/released.py and docs/fidelity.md.
    c.released = ConfigDict()
    c.released.init = False
    c.released.state = False
    c.released.gradient = False
    c.released.empty = False
    c.released.efficiency = False
    c.released.inner = False
    c.released.self_supervision = False
    c.released.groups = False
    c.released.restart = False
    c.released.crops = False
    c.released.clip_norm = 0.0

    c.eval = ConfigDict()
    c.eval.batch_size = 24  # videos a step, over all devices and processes
    c.eval.every_epochs = 1  # evaluate and save a checkpoint
    c.eval.metric = "map"  # that makes the best checkpoint: top1, top5 or map
    # That --mode evaluate, the final table and init_from take of a run; or "best".
    c.eval.checkpoint = "last"
    c.eval.threshold = 0.999  # ρ of the early termination
    c.eval.min_frames = 3  # T_min

    c.parallel = ConfigDict()  # several processes; empty asks the environment
    c.parallel.coordinator = ""  # host:port of process 0
    c.parallel.num_processes = 0
    c.parallel.process_id = -1
    return c


def apply_variant(config: ConfigDict, variant: str) -> ConfigDict:
    """Applies the words after the colon of `--config configs/X.py:tsn,192`.

    Raises:
        ValueError: an unknown word.
    """
    for word in filter(None, variant.split(",")):
        if word == "tsn":
            config.model.gates = ()
        elif word == "fc":
            config.model.temporal = False
        elif word in ("tsm_online", "tsm_offline"):
            config.model.shift = word.removeprefix("tsm_")
        elif word == "release":
            _follow_released_code(config)
        elif word == "sync_bn":
            config.train.sync_batchnorm = True
        elif word == "bfloat16":
            config.train.dtype = "bfloat16"
        elif word.isdigit():
            config.data.size = int(word)
        else:
            raise ValueError(f"no variant '{word}' of this configuration; known: {VARIANTS}")
    return config


def _follow_released_code(config: ConfigDict) -> None:
    for name in config.released:
        config.released[name] = 20.0 if name == "clip_norm" else True
    config.optimizer.weight_decay = 1e-4
    config.eval.min_frames = 4  # the first end is possible at the fifth frame


def get_config(variant: str = "") -> ConfigDict:
    """The defaults, with a variant such as "tsn,192"."""
    return apply_variant(create_default(), variant)
