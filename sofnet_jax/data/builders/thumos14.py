"""THUMOS'14."""

from sofnet_jax.data.builders.frames import FrameBuilder


class Thumos14(FrameBuilder):
    """Untrimmed videos of 101 sports and actions; 20 of these with their segments.

    The split `train` is the benchmark's validation set, `val` its test set: the challenge's own
    training set are the trimmed clips of UCF101, which the paper does not use.
    """

    name = "thumos14"
    description = "THUMOS'14: untrimmed videos of 101 actions, as JPEG frames."
    homepage = "http://crcv.ucf.edu/THUMOS14"
    citation = "Y.-G. Jiang et al.: THUMOS challenge: action recognition with many classes. 2014."
