import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sofnet_jax.backbones.layers import BatchNorm, Conv
from sofnet_jax.backbones.resnet import ResidualStage, ResNet
from sofnet_jax.backbones.spec import BACKBONES, ResNetSpec

# Halves the compilation time.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def test_stages_of_resnet50():
    network = ResNet(BACKBONES["resnet50"])
    images = jax.ShapeDtypeStruct((2, 168, 168, 3), jnp.float32)
    (features, _), _ = jax.eval_shape(
        lambda key, x: network.init_with_output(key, x, False), jax.random.key(0), images
    )
    assert {name: x.shape[1:] for name, x in features.items()} == {
        "res1": (42, 42, 64),
        "res2": (42, 42, 256),
        "res3": (21, 21, 512),
        "res4": (11, 11, 1024),
        "res5": (6, 6, 2048),
    }


def test_recomputation_changes_memory_alone():
    blocks = ResNetSpec("basic", (2, 0, 0, 0), 4, 3).stages[0]
    stages = [ResidualStage(blocks, Conv, BatchNorm, remat=remat) for remat in (False, True)]
    images = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
    init = jax.jit(stages[0].init, static_argnums=2, compiler_options=_QUICK)
    variables = init(jax.random.key(1), images, False)
    # Blocks start as the identity, whose weights have no gradient.
    params = jax.tree.map(lambda p: p + 0.5, variables["params"])

    def run(stage, params):
        return stage.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            images,
            True,
            mutable=["batch_stats"],
        )

    def count_stored(stage):
        _, vjp = jax.eval_shape(lambda p: jax.vjp(partial(run, stage), p), params)
        return sum(math.prod(x.shape) for x in jax.tree.leaves(vjp))

    def differentiate(stage):
        def loss(params):
            (out, _), updates = run(stage, params)
            return jnp.square(out).sum(), (out, updates)

        return jax.jit(jax.grad(loss, has_aux=True), compiler_options=_QUICK)(params)

    assert count_stored(stages[1]) < count_stored(stages[0]) / 2
    stored, recomputed = (jax.tree.leaves(differentiate(stage)) for stage in stages)
    assert max(abs(x).max() for x in stored) > 1
    for a, b in zip(stored, recomputed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_recomputation_keeps_the_names_of_the_weights():
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    plain, recomputing = (
        jax.eval_shape(
            lambda key, x, remat=remat: ResNet(BACKBONES["tiny"], remat=remat).init(key, x, False),
            jax.random.key(0),
            images,
        )
        for remat in (False, True)
    )
    assert plain == recomputing
