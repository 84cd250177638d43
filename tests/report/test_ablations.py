"""The methods of the paper's tables, as changes of the configuration."""

import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import synthetic
from sofnet_jax.report.ablations import METHODS, create_config, scale_size
from sofnet_jax.run.config import create_default


def fields(config: ConfigDict) -> dict[str, object]:
    return flatten_dict(config.to_dict(), sep=".")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_changes_what_it_says_and_the_seed(name):
    base, method = create_default(), METHODS[name]
    config = create_config(base, method, seed=7)
    expected = {"seed": 7, **method.changes}
    if method.size != 168:
        expected["data.size"] = method.size
    before, after = fields(base), fields(config)
    assert before.keys() == after.keys()
    assert after == before | expected
    assert before == fields(create_default())  # the base is left as it was


def test_no_two_methods_are_the_same():
    configs = [fields(create_config(create_default(), method, 0)) for method in METHODS.values()]
    assert all(a != b for i, a in enumerate(configs) for b in configs[:i])
    titles = [method.title for method in METHODS.values()]
    assert len(set(titles)) == len(titles)


def test_sizes_keep_the_paper_s_proportions():
    assert [scale_size(168, size) for size in (168, 192, 224)] == [168, 192, 224]
    assert [scale_size(48, size) for size in (168, 192, 224)] == [48, 56, 64]
    assert [scale_size(100, size) for size in (168, 192, 224)] == [100, 112, 136]
    config = create_config(synthetic.get_config(), METHODS["sofnet_192"], 0)
    assert config.data.size == 56


def test_a_field_that_the_base_lacks_is_not_made():
    base = create_default()
    with base.unlocked():
        del base.model["shift"]
    with pytest.raises(KeyError, match="shift"):
        create_config(base, METHODS["tsm"], 0)


def test_tables_compare_what_the_paper_does():
    def find(table: str) -> set[str]:
        return {method.name for method in METHODS.values() if table in method.tables}

    assert find("table4") == {"tsn", "fc_unguided", "fc", "unguided", "sofnet"}
    assert find("table5") == {"sofnet", "sofnet_192", "sofnet_224"}
    # (α, β) of the supplement, "-" for β being "unguided": (1, -), (.9, -), (1, 0), (1, .5),
    # (1, 1), (.9, .5), and the paper's own (.9, .9).
    weights = [
        (c.loss.alpha, c.loss.beta if c.loss.guidance else None)
        for c in (create_config(create_default(), METHODS[name], 0) for name in find("tableD"))
    ]
    assert sorted(weights, key=str) == sorted(
        [(1, None), (0.9, None), (1, 0), (1, 0.5), (1, 1), (0.9, 0.5), (0.9, 0.9)], key=str
    )
