import pytest

from sofnet_jax.host.errors import UserError
from sofnet_jax.run.version import refuse_older


def test_a_run_that_lacks_fields_is_refused_by_its_name(tmp_path):
    refuse_older(tmp_path, ["seed"], {"seed": 0, "another": 1})
    message = f"{tmp_path} was written by a version before 0.1.0, without model.shift; train again"
    with pytest.raises(UserError, match=message):
        refuse_older(tmp_path, ["seed", "model.shift"], {"seed": 0})
