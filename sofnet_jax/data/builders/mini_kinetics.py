"""Mini-Kinetics-200."""

from sofnet_jax.data.builders.frames import FrameBuilder


class MiniKinetics(FrameBuilder):
    """Ten seconds each of 200 of the 400 actions of Kinetics."""

    name = "mini_kinetics"
    description = "Mini-Kinetics: clips of ten seconds of 200 classes of Kinetics, as JPEG frames."
    homepage = "https://www.deepmind.com/open-source/kinetics"
    citation = (
        "Y. Meng et al.: AR-Net: adaptive frame resolution for efficient action recognition. ECCV "
        "2020 (the 200 classes). J. Carreira, A. Zisserman: Quo vadis, action recognition? CVPR "
        "2017 (Kinetics)."
    )
