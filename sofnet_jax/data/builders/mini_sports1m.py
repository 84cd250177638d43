"""Mini-Sports1M."""

from sofnet_jax.data.builders.frames import FrameBuilder


class MiniSports1M(FrameBuilder):
    """A subset of the 487 sports of Sports-1M; which one, the list that is given says."""

    name = "mini_sports1m"
    description = "Mini-Sports1M: a subset of Sports-1M, 487 sports, as JPEG frames."
    homepage = "https://github.com/gtoderici/sports-1m-dataset"
    citation = (
        "A. Karpathy et al.: Large-scale video classification with convolutional neural networks. "
        "CVPR 2014."
    )
