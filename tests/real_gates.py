"""Follow the gates of a SoF-Net while they learn from a TSN's features, with three recipes.

    python tests/real_gates.py runs/composites_0/tsn_seed0 runs/gates

TSN is a run of configs/videos.py on a prepared set with relevant segments. Every hundred steps:
each gate's probability of forward inside and outside the relevant spans, the pseudo-labels and the
inner classifiers' accuracy there (validation videos), and the gradient of every term of the loss on
W_q (training videos). Written to gates.json and drawn to gates.svg.
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from configs.videos import get_config
from sofnet_jax.data.pipeline import create_eval_iterator
from sofnet_jax.parallel import devices
from sofnet_jax.run.config import read_fields
from sofnet_jax.systems.sofnet.losses import create_pseudo_labels
from sofnet_jax.training.experiment import Experiment
from sofnet_jax.training.progress import Progress, _initialise
from sofnet_jax.training.step import create_state, select_arrays

BEFORE = {
    "model.hidden": 512,
    "train.gate_steps": 2000,
    "optimizer.policy_name": "",
    "optimizer.policy_rate": 1.0,
    "loss.alpha": 0.9,
    "loss.reference_gflops": 0.0,
    "temperature.initial": 5.0,
    "temperature.final": 0.0,
}
# The name of a recipe: the fields that differ, and whether gates see features standardised.
RECIPES = {
    "as the paper": (BEFORE, False),
    "Adam, T 1, L_eff felt": ({}, False),
    "and standardised": ({}, True),
}
EVERY, BATCHES = 200, 8
TERMS = ("cls", "eff", "inner", "self")
TITLES = (
    "P(forward): inside solid, outside dotted",
    "share of pseudo-labels that are 1",
    "top-1 of the inner classifiers, inside",
    "gradient on W_q, mean over gates",
)


def main(run: str, out: str) -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    features = None
    for name, (changes, standardised) in RECIPES.items():
        experiment = create_experiment(run, changes)
        experiment.features = features
        rows[name] = follow(experiment, standardised)
        features = experiment.features
        (folder / "gates.json").write_text(json.dumps(rows))
    draw(rows, folder / "gates.svg")


def create_experiment(run: str, changes: dict) -> Experiment:
    fields = read_fields(Path(run) / "config.json")
    config = get_config()
    kept = {k: v for k, v in fields.items() if k.startswith("data.") or k == "model.backbone"}
    config.update_from_flattened_dict(kept | {"init_from": run, "train.warmup_epochs": 0})
    config.update_from_flattened_dict(changes)
    return Experiment(config)


def follow(e: Experiment, standardised: bool) -> list[dict]:
    stage = e.stages[1]
    progress = Progress(e, None, create_state(e.system, e.optimizer, e.config.seed), {})
    _initialise(progress, whole=False)
    state = devices.replicate(progress.state)
    features = e.prepare_features(stage, state.variables)
    if standardised:
        params = e.system.begin_gates(devices.to_host(state.params), features.moments)
        state = dataclasses.replace(state, params=devices.replicate(params))
    videos = read_validation(e, state.variables)
    sample = [select_arrays(batch) for batch in itertools.islice(features.repeat(1, 0), BATCHES)]
    step, batches, rows = e.create_train_step(1), features.repeat(e.config.seed, 0), []
    measure = create_measure(e)
    for number in range(stage.stop + 1):
        if number % EVERY == 0:
            rows.append({"step": number} | measure(devices.to_host(state.params), videos, sample))
            print(json.dumps(rows[-1]), flush=True)
        state, _ = step(state, devices.put_batch(select_arrays(next(batches))))
    return rows


def read_validation(e: Experiment, variables) -> dict:
    data = e.config.data
    batches = create_eval_iterator(
        *(e.val_source,), batch_size=8, num_frames=data.num_frames, size=data.size
    )
    extract = devices.pmap_predict_step(lambda v, batch: e.system.extract(v, batch["frames"]))
    parts = []
    for batch in batches:
        found = extract(variables, devices.put_batch({"frames": batch["frames"]}))
        own = {"frames": jax.tree.map(devices.fetch, found)}
        own |= {name: batch[name] for name in ("labels", "relevant")}
        parts.append(jax.tree.map(lambda x, valid=batch["valid"]: x[valid], own))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def create_measure(e: Experiment):
    objective, module = e.system.objective, e.system.module
    weights = (objective.alpha, 1 - objective.alpha, objective.beta, 1 - objective.beta)

    @jax.jit
    def look(params, frames, labels):
        outputs = module.apply({"params": params}, jax.tree.map(jnp.asarray, frames))
        forward = jax.nn.softmax(outputs.decision.logits)[..., 1]
        pseudo = create_pseudo_labels(outputs.inner_logits, labels)
        return forward, pseudo, outputs.inner_logits.argmax(-1), outputs.decision.gates

    @jax.jit
    def derive(params, batch, temperature, key):
        def terms(policies):
            outputs = module.apply(
                {"params": params | policies},
                batch["frames"],
                train=True,
                frozen=True,
                index=batch["index"],
                temperature=temperature,
                rngs={"gate": key, "dropout": key},
            )
            losses = objective(outputs, batch["labels"])
            return jnp.stack([losses.classification, losses.efficiency, losses.inner, losses.self])

        policies = {k: v for k, v in params.items() if k.startswith("policy_")}
        jacobian = jax.jacrev(terms)(policies)
        return jnp.stack([jacobian[f"policy_{n}"]["w_q"] for n in module.architecture.gate_names])

    def measure(params, videos, sample):
        labels = videos["labels"].argmax(1)[:, None, None]
        forward, pseudo, inner, gates = map(
            np.asarray, look(params, videos["frames"], videos["labels"])
        )
        inside, outside = videos["relevant"] > 0.5, videos["relevant"] < 0.5
        kept = gates[..., -1] > 0.5
        gradients = np.mean(  # over batches and noise: what an optimizer moves along
            [derive(params, batch, 1.0, jax.random.key(i)) for i, batch in enumerate(sample)], 0
        )
        norms = np.linalg.norm(gradients.reshape(*gradients.shape[:2], -1), axis=-1)
        return {
            "forward_inside": forward[inside].mean(0).tolist(),
            "forward_outside": forward[outside].mean(0).tolist(),
            "pseudo_inside": pseudo[inside].mean(0).tolist(),
            "pseudo_outside": pseudo[outside].mean(0).tolist(),
            "inner_top1": (inner == labels)[inside].mean(0).tolist(),
            "kept": float(kept.mean()),
            "precision": float(inside[kept].mean()) if kept.any() else 0.0,
            "gradients": (norms * np.array(weights)).tolist(),  # by gate and term, weighted
        }

    return measure


def draw(rows: dict, path: Path) -> None:
    """A row of panels for every recipe."""
    matplotlib.rcParams["svg.fonttype"] = "none"
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, 5))
    figure, axes = plt.subplots(len(rows), 4, figsize=(13, 2.7 * len(rows)), sharex=True)
    for (name, own), panels in zip(rows.items(), axes, strict=True):
        steps = [row["step"] for row in own]

        def plot(panel, field, steps=steps, own=own, **style):
            for k, values in enumerate(zip(*(r[field] for r in own), strict=True)):
                panel.plot(steps, values, color=colours[k], **style)

        plot(panels[0], "forward_inside")
        plot(panels[0], "forward_outside", linestyle=":")
        plot(panels[1], "pseudo_inside")
        plot(panels[1], "pseudo_outside", linestyle=":")
        plot(panels[2], "inner_top1")
        for k, term in enumerate(TERMS):
            values = [np.mean([gate[k] for gate in row["gradients"]]) for row in own]
            panels[3].semilogy(steps, values, label=term)
        panels[0].set_ylabel(name)
        for panel in panels[:3]:
            panel.set_ylim(0, 1)
    for panel, title in zip(axes[0], TITLES, strict=True):
        panel.set_title(title, fontsize=10)
    axes[0][3].legend(fontsize=7)
    for k, colour in enumerate(colours):
        axes[0][0].plot([], [], color=colour, label=f"res{k + 1}")
    axes[0][0].legend(fontsize=7)
    for panel in axes[-1]:
        panel.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
