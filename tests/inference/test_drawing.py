import numpy as np

from sofnet_jax.inference.drawing import draw_band
from sofnet_jax.inference.prediction import Guess, Prediction, Spending
from sofnet_jax.systems.base import Trace
from sofnet_jax.systems.tsn import KEPT


def test_a_class_in_a_script_without_a_font_is_legible(no_fonts):
    def draw(name):
        prediction = Prediction(
            video="a.mp4",
            start=0.0,
            end=1.0,
            guesses=(Guess(name, 0.9),),
            scores=np.array([0.9]),
            actions=(KEPT,),
            trace=Trace(np.array([0]), np.array([0])),
            times=(0.5,),
            num_frames=1,
            spent=Spending(1.0, 1.0),
            plain=Spending(1.0, 1.0),
            decode_ms=1.0,
            network_ms=1.0,
        )
        return draw_band(np.zeros((96, 240, 3), np.uint8), prediction, 0.7)

    assert np.array_equal(draw("\u8dd1"), draw(r"\u8dd1"))
    assert not np.array_equal(draw("\u8dd1"), draw(r"\u8d70"))
