"""A published ImageNet ResNet-50 on real images, against PyTorch; without the material, skipped.

`pytest tests/test_imagenet.py -s` prints the accuracies and the differences.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_sofnet
from PIL import Image

from sofnet_jax.systems.tsn import TSNNetwork, deploy
from sofnet_jax.weights.load import create_shapes, initialise, load_weights

MATERIAL = Path(os.environ.get("SOFNET_MATERIAL", Path(__file__).parents[2] / "shared" / "data"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (MATERIAL / "weights").is_dir(), reason="SOFNET_MATERIAL names no folder with weights/"
    ),
]
BATCH = 20


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (i, 224, 224, 3): short side 256, centre 224; and the classes."""
    with (MATERIAL / "images" / "imagenet100_labels.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    pixels = []
    for name, *_ in rows:
        image = Image.open(MATERIAL / "images" / "imagenet100" / Path(name).name).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize(
            [round(side * scale) for side in image.size], Image.Resampling.BILINEAR
        )
        left, top = ((side - 224) // 2 for side in image.size)
        pixels.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
    return np.stack(pixels), np.array([int(row[1]) for row in rows])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    paths = {suffix: folder / f"resnet50{suffix}" for suffix in (".pth", ".safetensors")}
    for path in paths.values():
        subprocess.run([sys.executable, MATERIAL / "weights" / "unpack.py", path], check=True)
    return paths


def classify_ours(variables, architecture, pixels, dtype=np.float32) -> np.ndarray:
    model = TSNNetwork(architecture, dtype=dtype)
    score = jax.jit(lambda variables, frames: model.apply(variables, frames)[:, 0])
    batches = np.split(pixels[:, None], len(pixels) // BATCH)
    return np.concatenate([score(variables, batch) for batch in batches])


def classify_folded(variables, architecture, pixels) -> np.ndarray:
    network = deploy(architecture, variables, dtype="float32")

    @jax.jit
    def score(network, frames):
        span = network.spans[0]
        _, evidence = span.extract(None, frames)
        logits, _ = span.score(None, evidence)
        return logits

    batches = np.split(pixels, len(pixels) // BATCH)
    return np.concatenate([score(network, batch) for batch in batches])


def classify_theirs(path: Path, pixels: np.ndarray) -> np.ndarray:
    network = torch_sofnet.SoFNet(num_classes=1000, gates=()).eval()
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    frames = ((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)[:, None]
    with torch.no_grad():
        batches = torch.from_numpy(frames).split(BATCH)
        return torch.cat(
            [network.warm_up_forward(batch).frame_logits[:, 0] for batch in batches]
        ).numpy()


def test_real_images(images, files):
    pixels, labels = images
    theirs = classify_theirs(files[".pth"], pixels)
    weights = {suffix: load_weights(str(path)) for suffix, path in files.items()}
    a = weights[".pth"].architecture
    variables, report = initialise(create_shapes(a), weights[".pth"])
    again, _ = initialise(create_shapes(a), weights[".safetensors"])
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), variables, again))
    assert not report.reinitialised and len(report.loaded) == 161 + 106
    rows = {
        "PyTorch": theirs,
        "as trained": classify_ours(variables, a, pixels),
        "BatchNorm folded": classify_folded(variables, a, pixels),
        "bfloat16": classify_ours(variables, a, pixels, jnp.bfloat16),
    }
    print(f"\n{report}\n{'':17}  top-1 %  largest difference  other decisions")
    for name, logits in rows.items():
        top1 = 100 * (logits.argmax(1) == labels).mean()
        other = (logits.argmax(1) != theirs.argmax(1)).sum()
        print(f"{name:17}  {top1:7.0f}  {np.abs(logits - theirs).max():18.1e}  {other:15}")
    for name in ("as trained", "BatchNorm folded"):
        np.testing.assert_allclose(rows[name], theirs, atol=1e-4, rtol=0)
        np.testing.assert_array_equal(rows[name].argmax(1), theirs.argmax(1))
    # 106 roundings to 8 bits, each off by up to 2⁻⁹ of the logits' scale, that add up at random.
    limit = np.sqrt(106) * 2**-9 * np.abs(theirs).max()
    assert np.abs(rows["bfloat16"] - theirs).max() < limit
    # A decision may turn where the two best classes are closer than that.
    best = np.sort(theirs, axis=1)
    sure = best[:, -1] - best[:, -2] > 2 * limit
    np.testing.assert_array_equal(rows["bfloat16"].argmax(1)[sure], theirs.argmax(1)[sure])
