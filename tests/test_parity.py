"""Features, gates, losses, gradients and updates equal those of an independent PyTorch SoF-Net.

`pytest tests/test_parity.py -s` prints the largest difference of every group of tensors.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_sofnet

from sofnet_jax.parallel.devices import AXIS, put_batch, replicate, to_host
from sofnet_jax.systems.base import Phase
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.gates import PAPER
from sofnet_jax.systems.sofnet.losses import Objective
from sofnet_jax.systems.sofnet.network import SoFNet
from sofnet_jax.systems.sofnet.released import ReleasedObjective, ReleasedSoFNet
from sofnet_jax.systems.sofnet.system import SoFNetSystem
from sofnet_jax.training.optimizer import create_optimizer
from sofnet_jax.training.schedules import create_learning_rate_schedule, create_temperature_schedule
from sofnet_jax.training.step import TrainState, create_train_step
from sofnet_jax.weights.names import from_state_dict, to_state_dict, torch_shapes

CLIP_NORM = 1.0  # the released 20 would clip nothing here
SYSTEMS = {"paper": SoFNetSystem, "released": ReleasedSoFNet}
CLASSES = 7
NETWORKS = {
    "narrow": Architecture(CLASSES, depths=(1, 1, 1, 1), width=8, hidden=16, dropout=0.0),
    "basic, three gates": Architecture(
        CLASSES, "basic", (2, 1, 1, 1), 8, 3, gates=(1, 3, 5), hidden=16, dropout=0.0
    ),
    "resnet50": Architecture(CLASSES, dropout=0.0),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
ALPHA, BETA, TEMPERATURE = 0.8, 0.7, 2.0
SIZE = 64
WARMUP, STEPS, DROP = 3, 10, 7  # steps of `test_ten_steps`; of an epoch each
SEEDS = {
    "narrow": 20,
    "basic, three gates": 14,
    "resnet50": 20,
}  # no two noisy logits of a gate are near
TERMS = ("total", "classification", "efficiency", "inner", "self")


# ------------------------------------------------------------------------------ the same material


@dataclasses.dataclass(frozen=True)
class Material:
    """Frames, labels and Gumbel noise of a batch."""

    frames: np.ndarray  # (b, t, h, w, 3), uint8
    labels: np.ndarray  # (b, n), multi-hot: the first video has two labels
    noise: np.ndarray  # (b, t, k, 2)

    @property
    def images(self) -> torch.Tensor:
        """The frames as PyTorch's network takes them: (b, t, 3, h, w), normalised."""
        pixels = (self.frames / 255 - np.array(MEAN)) / np.array(STD)
        return torch.from_numpy(np.moveaxis(pixels, -1, 2).astype(np.float32))


def create_material(a: Architecture, seed: int, videos: int = 4, frames: int = 3) -> Material:
    rng = np.random.default_rng(seed)
    # On a colour of each frame's own, so that the gates see something to disagree on.
    colour = rng.uniform(64, 192, (videos, frames, 1, 1, 3))
    pixels = colour + rng.uniform(-64, 64, (videos, frames, SIZE, SIZE, 3))
    labels = np.eye(a.num_classes, dtype=np.float32)[rng.integers(0, a.num_classes, videos)]
    labels[0, :2] = 1
    noise = rng.gumbel(size=(videos, frames, len(a.gates), 2))
    return Material(pixels.astype(np.uint8), labels, noise.astype(np.float32))


def draw_state_dict(a: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights and statistics by PyTorch's names, such that gates vary.

    Where an activation is zero, rounding decides whether its gradient passes the ReLU, and no two
    programs round alike. So each channel that a BatchNorm gives is positive or negative by five
    deviations, and the blocks add little to what passes them by.
    """
    frames = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), np.uint8)
    shapes = torch_shapes(jax.eval_shape(SoFNet(a).init, jax.random.key(0), frames))
    rng = np.random.default_rng(seed)
    last = r"layer.*bn3\.weight" if a.block == "bottleneck" else r"layer.*bn2\.weight"

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        value = rng.normal(size=shape)
        if len(shape) > 1:
            value *= math.sqrt((6 if ".gate." in name else 2) / math.prod(shape[1:]))
        elif re.search(r"(bn\d|downsample\.1)\.weight|running_var", name):
            value = (0.05 + 0.1 * rng.random(shape)) * (0.2 if re.search(last, name) else 1)
        else:
            value = 0.1 * value + (np.array([0, 1]) if ".gate." in name else 0)
        return value.astype(np.float32)

    tensors = {name: draw(name, shape) for name, shape in shapes.items()}
    for name in tensors:
        if re.search(r"(bn\d|downsample\.1)\.bias", name):
            scale = tensors[name.replace("bias", "weight")]
            tensors[name] = 5 * scale * rng.choice(np.float32([-1, 1, 1, 1]), scale.shape)
    return tensors


def create_variables(a: Architecture, state_dict: Mapping[str, np.ndarray]):
    frames = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), np.uint8)
    shapes = jax.eval_shape(SoFNet(a).init, jax.random.key(0), frames)
    return from_state_dict(state_dict, shapes)


def create_reference(a: Architecture, state_dict, released: bool) -> torch_sofnet.SoFNet:
    network = torch_sofnet.create_like(a, released=released)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state_dict.items()}
    network.load_state_dict(tensors, strict=True)
    return network.train()


def create_lookup(a: Architecture) -> tuple[float, ...]:
    """Some GFLOPs behind each gate."""
    return tuple(2.5 - 0.45 * n for n in range(len(a.gates)))


# ---------------------------------------------------------------------------------- the comparison


class Table:
    """Differences by group of tensors, printed at the end of a test."""

    def __init__(self, title: str):
        self.title = title
        self.pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, group: str, ours, theirs) -> None:
        ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
        assert ours.shape == theirs.shape, group
        self.pairs.setdefault(group, []).append((ours.ravel(), theirs.ravel()))

    def check(self, limits: Mapping[str, float]) -> None:
        """Prints all; asserts that relative differences are below the limit of their kind.

        The relative difference is that of a group as one vector: |ours − theirs| / |theirs|.
        """
        width = max(map(len, self.pairs))
        rows = {}
        for group, pairs in self.pairs.items():
            ours, theirs = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
            norm = np.linalg.norm(theirs) or 1.0
            rows[group] = np.abs(ours - theirs).max(), np.linalg.norm(ours - theirs) / norm
        print(f"\n{self.title}\n{'':{width}}  largest  relative  limit")
        for group, (largest, relative) in rows.items():
            print(f"{group:{width}}  {largest:.1e}  {relative:.1e}   {_limit(limits, group):.0e}")
        for group, (_, relative) in rows.items():
            assert relative < _limit(limits, group), group


def _limit(limits: Mapping[str, float], group: str) -> float:
    return limits[group.partition(":")[0]]


def get_group(name: str) -> str:
    """`conv1.weight` is of the stem, `policy.3.lstm.weight_ih` of the LSTMs."""
    if name.startswith("policy."):
        return name.split(".")[2]
    first = name.split(".")[0]
    return "stem" if first in ("conv1", "bn1") else first


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def create_system(kind: type[SoFNetSystem], a: Architecture, **options) -> SoFNetSystem:
    """A system with steps for epochs."""
    objective = kind.objective_type(create_lookup(a), alpha=ALPHA, beta=BETA)
    phases = Phase("warm-up", WARMUP), Phase("joint", STEPS - WARMUP)
    return kind(a, SoFNet(a, semantics=kind.semantics, **options), phases, objective)


def run_ours(a: Architecture, kind: type, variables, material: Material, dtype=np.float32):
    """Outputs, losses, stage features, new statistics and gradients of one training pass."""
    system = create_system(kind, a, dtype=dtype)

    @jax.jit
    def compute(variables, frames, labels, noise):
        def loss(params):
            outputs, updates = system.module.apply(
                variables | {"params": params},
                frames,
                train=True,
                temperature=TEMPERATURE,
                noise=noise,
                mutable=["batch_stats", "intermediates"],
                capture_intermediates=lambda module, _: module.name == "backbone",
            )
            losses = system.objective(outputs, labels)
            return losses.total, (outputs, losses, updates)

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradients, (outputs, losses, updates) = compute(
        variables, material.frames, material.labels, material.noise
    )
    features, _ = updates["intermediates"]["backbone"]["__call__"][0]
    statistics = to_state_dict({"params": {}, "batch_stats": updates["batch_stats"]})
    gradients = to_state_dict({"params": gradients, "batch_stats": {}})
    return outputs, losses, features, statistics, gradients


def run_theirs(a: Architecture, released: bool, state_dict, material: Material):
    network = create_reference(a, state_dict, released)
    outputs = network(material.images, torch.from_numpy(material.noise), TEMPERATURE)
    losses = compute_their_losses(a, released, outputs, material)
    losses["total"].backward()
    return network, outputs, losses


def compute_their_losses(a: Architecture, released: bool, outputs, material: Material):
    return torch_sofnet.compute_losses(
        outputs,
        torch.from_numpy(material.labels),
        lookup=list(create_lookup(a)),
        alpha=ALPHA,
        beta=BETA,
        released=released,
    )


@pytest.mark.parametrize(
    ("name", "semantics"),
    [
        pytest.param(*pair, marks=[] if pair == ("narrow", "paper") else pytest.mark.slow)
        for pair in itertools.product(NETWORKS, SYSTEMS)
    ],
)
def test_one_training_pass(name, semantics):
    a, kind = NETWORKS[name], SYSTEMS[semantics]
    state_dict, material = draw_state_dict(a), create_material(a, seed=SEEDS[name])
    ours, our_losses, features, statistics, gradients = run_ours(
        a, kind, create_variables(a, state_dict), material
    )
    released = kind is ReleasedSoFNet
    network, theirs, their_losses = run_theirs(a, released, state_dict, material)

    table = Table(f"{name}, {semantics}")
    for stage, value in theirs.features.items():
        table.add(f"feature: {stage}", features[stage].transpose(0, 3, 1, 2), value.detach())
    table.add("gate logits", ours.decision.logits, theirs.gate_logits.detach())
    table.add("inner scores", ours.inner_logits, theirs.inner_logits.detach())
    table.add("frame logits", ours.frame_logits, theirs.frame_logits.detach())
    table.add("video logits", ours.video_logits, theirs.video_logits.detach())
    for term, value in their_losses.items():
        table.add(f"loss: {term}", getattr(our_losses, term), value.detach())
    for parameter, value in network.named_parameters():
        table.add(f"gradient: {get_group(parameter)}", gradients[parameter], value.grad)
    for buffer, value in network.named_buffers():
        if "running" in buffer:
            kind = buffer.split("_")[-1]
            table.add(f"statistic: {kind} of {get_group(buffer)}", statistics[buffer], value)
    table.check(
        {
            "feature": 1e-5,
            "gate logits": 1e-5,
            "inner scores": 1e-5,
            "frame logits": 1e-5,
            "video logits": 1e-5,
            "loss": 1e-5,
            "gradient": 1e-4,
            "statistic": 1e-5,
        }
    )
    gates = theirs.gates.detach().numpy()
    np.testing.assert_array_equal(ours.decision.gates, gates)
    # Frames are stopped at several gates, others kept; of one video none, if that is allowed.
    assert len(np.unique(gates.sum(-1))) > 2 and gates[..., -1].any()
    assert gates[..., -1].any(1).all() == (not released)


def follow_paper(name: str) -> type[SoFNetSystem]:
    """The released system, but for one of its semantics or losses."""
    if name in vars(PAPER):
        semantics = dataclasses.replace(ReleasedSoFNet.semantics, **{name: getattr(PAPER, name)})
        return type("Partial", (ReleasedSoFNet,), {"semantics": semantics})
    losses = type("Losses", (ReleasedObjective,), {name: getattr(Objective, name)})
    return type("Partial", (ReleasedSoFNet,), {"objective_type": losses})


LOSSES = ("compute_efficiency", "compute_inner", "compute_self")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["remembers", "combine", "forces", *LOSSES])
def test_each_difference_matters(name):
    """Without it ours is not the released training any more: the comparison can fail."""
    a = NETWORKS["narrow"]
    state_dict, material = draw_state_dict(a), create_material(a, seed=SEEDS["narrow"])
    variables = create_variables(a, state_dict)
    network, _, their_losses = run_theirs(a, True, state_dict, material)
    _, losses, *_, gradients = run_ours(a, follow_paper(name), variables, material)
    same_loss = abs(losses.total / their_losses["total"].item() - 1) < 1e-5
    theirs = network.policy["2"].gate.weight.grad.numpy()
    ours = gradients["policy.2.gate.weight"]
    same_gradient = np.linalg.norm(ours - theirs) < 1e-3 * np.linalg.norm(theirs)
    assert not (same_loss and same_gradient)


# ---------------------------------------------------------------------------------------- bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "narrow",
        pytest.param(
            "resnet50",
            marks=pytest.mark.skipif(
                jax.default_backend() == "cpu", reason="there is no accelerator"
            ),
        ),
    ],
)
def test_bfloat16(name):
    """The backbone in bfloat16 against PyTorch's in float32.

    A bfloat16 has 8 significant bits, so rounding is off by up to 2⁻⁹ of a value. Stage s comes
    after r_s roundings, of each convolution's and each BatchNorm's output, which add up like
    independent errors: √r_s · 2⁻⁹. The limit is twice that, for the weights are rounded, too.
    """
    a = NETWORKS[name]
    state_dict, material = draw_state_dict(a), create_material(a, seed=SEEDS[name])
    variables = create_variables(a, state_dict)
    ours, losses, features, _, gradients = run_ours(
        a, SoFNetSystem, variables, material, jnp.bfloat16
    )
    network, theirs, their_losses = run_theirs(a, False, state_dict, material)
    table, limits, roundings = Table(f"{name}, bfloat16 on {jax.default_backend()}"), {}, 2
    for stage, depth in zip(theirs.features, (0, *a.depths), strict=True):
        roundings += 2 * depth * (3 if a.block == "bottleneck" else 2)
        limits[stage] = 2 * math.sqrt(roundings) * 2**-9
        ours_ = np.asarray(features[stage], np.float32).transpose(0, 3, 1, 2)
        table.add(stage, ours_, theirs.features[stage].detach())
    # What follows is computed in float32 from pooled features, whose errors average out in part.
    table.add("gate logits", ours.decision.logits, theirs.gate_logits.detach())
    table.add("inner scores", ours.inner_logits, theirs.inner_logits.detach())
    table.add("video logits", ours.video_logits, theirs.video_logits.detach())
    for term in TERMS:
        table.add(f"loss: {term}", getattr(losses, term), their_losses[term].detach())
    for parameter, value in network.named_parameters():
        if parameter.startswith(("fc.", "policy.")):
            table.add(f"gradient: {get_group(parameter)}", gradients[parameter], value.grad)
    last = limits["res5"]
    kinds = ("gate logits", "inner scores", "video logits", "loss", "gradient")
    table.check(limits | dict.fromkeys(kinds, last))
    np.testing.assert_array_equal(ours.decision.gates, theirs.gates.detach())


# ----------------------------------------------------------------------------------- ten SGD steps

RATE, MOMENTUM, DECAY = 0.002, 0.9, 0.05


def train_ours(a: Architecture, kind: type, state_dict, batches: list[Material]):
    """State dict after all steps, and the losses of each; on all devices, BatchNorm over all."""
    system = create_system(kind, a, bn_axis=AXIS)
    epochs = {"steps_per_epoch": 1, "warmup_epochs": WARMUP}
    rate = create_learning_rate_schedule(RATE, drop_epochs=(DROP - WARMUP,), **epochs)
    optimizer = create_optimizer(
        "sgd",
        rate,
        momentum=MOMENTUM,
        weight_decay=DECAY,
        warmup_steps=WARMUP,
        learning=kind.learning,
        clip_norm=CLIP_NORM if kind is ReleasedSoFNet else 0.0,
    )
    steps = [
        create_train_step(
            system,
            optimizer,
            phase=phase,
            learning_rate=rate,
            temperature=create_temperature_schedule(5.0, 0.045, **epochs),
        )
        for phase in (0, 1)
    ]
    variables = create_variables(a, state_dict)
    state = replicate(
        TrainState(
            step=jnp.zeros((), jnp.int32),
            **variables,
            opt_state=optimizer.init(variables["params"]),
            key=jax.random.key_data(jax.random.key(0)),
        )
    )
    losses = []
    for step, material in enumerate(batches):
        index = np.arange(len(material.labels))
        batch = {"frames": material.frames, "labels": material.labels, "noise": material.noise}
        batch |= {"index": index, "interrupt": np.zeros(len(index), np.float32)}
        state, metrics = steps[step >= WARMUP](state, put_batch(batch))
        scalars = {k: float(v) for k, v in to_host(metrics).items()}
        losses.append(
            {f"loss: {name}": scalars[f"loss/{name}"] for name in TERMS}
            | {"share of frames kept": scalars.get("usage", 1.0)}
        )
    return to_state_dict(to_host(state).variables), losses


def train_theirs(a: Architecture, released: bool, state_dict, batches: list[Material]):
    network = create_reference(a, state_dict, released)

    def create_sgd() -> torch.optim.SGD:
        groups = torch_sofnet.parameter_groups(
            network, learning_rate=RATE, weight_decay=DECAY, released=released
        )
        return torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)

    optimizer, losses = create_sgd(), []
    for step, material in enumerate(batches):
        if released and step == WARMUP:
            optimizer = create_sgd()  # the joint training is a run of its own
        if step == DROP:
            for group in optimizer.param_groups:
                group["lr"] *= 0.1
        if step < WARMUP:
            outputs = network.warm_up_forward(material.images)
        else:
            temperature = 5 * math.exp(-0.045 * (step - WARMUP))
            noise = torch.from_numpy(material.noise)
            outputs = network(material.images, noise, temperature)
        terms = compute_their_losses(a, released, outputs, material)
        optimizer.zero_grad()
        terms["total"].backward()
        if released:
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        kept = 1.0 if outputs.gates is None else outputs.gates[..., -1].mean().item()
        losses.append(
            {f"loss: {name}": value.item() for name, value in terms.items()}
            | {"share of frames kept": kept}
        )
    tensors = network.state_dict()
    return {n: v.numpy() for n, v in tensors.items() if "num_batches" not in n}, losses


@pytest.fixture
def optimised():
    """Programs compiled for speed: they run long enough for that to pay."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("semantics", SYSTEMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_ten_steps(name, semantics):
    """Warm-up, joint training and the drop of the learning rate; compared is what each moved."""
    a, kind = NETWORKS[name], SYSTEMS[semantics]
    start = draw_state_dict(a)
    batches = [create_material(a, seed=100 + step) for step in range(STEPS)]
    ours, our_losses = train_ours(a, kind, start, batches)
    theirs, their_losses = train_theirs(a, kind is ReleasedSoFNet, start, batches)
    assert ours.keys() == theirs.keys()
    table = Table(f"{name}, {semantics}, after {STEPS} steps")
    for tensor, value in theirs.items():
        kind = "statistic" if "running" in tensor else "movement"
        table.add(
            f"{kind}: {get_group(tensor)}", ours[tensor] - start[tensor], value - start[tensor]
        )
        table.add(f"value: {get_group(tensor)}", ours[tensor], value)
    for ours_, theirs_ in zip(our_losses, their_losses, strict=True):
        for term, value in theirs_.items():
            table.add(term, ours_[term], value)
    # Mostly 1e-5; but where rounding decides which of two nearly equal values a max-pool passes on,
    # or whether an activation is above zero, one gradient in a hundred thousand goes another way.
    table.check(
        {
            "movement": 5e-3,
            "statistic": 1e-4,
            "value": 1e-4,
            "loss": 1e-5,
            "share of frames kept": 1e-7,
        }
    )
