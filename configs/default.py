"""The paper's experiment on ActivityNet-v1.3, without a data set: every field at its default.

`sofnet_jax/run/fields.py` lists the fields and their defaults; the other files change a few.
"""

from sofnet_jax.run.config import apply_variant, create_default, get_config

__all__ = ["apply_variant", "create_default", "get_config"]  # for configurations of your own
