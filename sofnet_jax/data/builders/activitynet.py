"""ActivityNet-v1.3."""

from sofnet_jax.data.builders.frames import FrameBuilder


class ActivityNet(FrameBuilder):
    """Untrimmed videos of 200 activities, with the segments of these where they are given."""

    name = "activitynet"
    description = "ActivityNet-v1.3: untrimmed videos of 200 activities, as JPEG frames."
    homepage = "http://activity-net.org"
    citation = (
        "F. Caba Heilbron, V. Escorcia, B. Ghanem, J. C. Niebles: ActivityNet: a large-scale video "
        "benchmark for human activity understanding. CVPR 2015."
    )
