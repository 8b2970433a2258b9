"""Which units compute on integers, for many policies at once."""

import numpy as np

from supernet.imported.following import FOLLOWERS, FOLLOWS, INTEGER, REAL, follows, integer_units
from supernet.imported.import_onnx import import_onnx
from tests.nas.emit.small_networks import attention, conv_net, curved_net


def test_policies_do_not_depend_on_each_other_and_more_integers_never_make_fewer() -> None:
    rng = np.random.default_rng(0)
    for content, shapes in (
        (conv_net(), {"image": (1, 3, 16, 16)}),
        (curved_net(), {"image": (1, 3, 8, 8), "mask": (1, 1, 8, 8)}),
        (attention(), {"tokens": (1, 5, 32), "positions": (1, 5, 32)}),
    ):
        model = import_onnx(content, shapes=shapes)
        chosen = [[REAL, INTEGER] if unit.op not in FOLLOWERS else [FOLLOWS] for unit in model.units]
        choices = np.array([[rng.choice(each) for each in chosen] for _ in range(40)], np.int8)
        together = integer_units(model, choices)
        alone = np.concatenate([integer_units(model, row[None]) for row in choices])
        np.testing.assert_array_equal(together, alone)
        most = integer_units(model, choices.max(axis=0, keepdims=True))
        assert (together <= most).all()
        followers = [unit.op in FOLLOWERS and not follows(model, unit) for unit in model.units]
        assert not together[:, followers].any()
