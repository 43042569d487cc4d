import datetime

import pytest
from orbax.checkpoint import checkpoint_managers as policies
from orbax.checkpoint.checkpoint_manager import CheckpointInfo

from flan_jax.checkpoint import keeping
from flan_jax.checkpoint.keeping import HIGHEST, LOWEST, Best

STEPS = (10, 20, 25, 30, 40, 50)
LOSSES = {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.5, 50: 4.0}  # 25 was saved at a preemption, and nothing was evaluated


def _kept(steps=STEPS, figures=LOSSES, **asked):
    infos = [CheckpointInfo(step, datetime.datetime.min, None) for step in steps]
    # A time without a zone, as Orbax has it of earlier starts' steps.
    policy = keeping.policy(**asked, figure_of=figures.get)
    kept = policy.should_preserve(infos, context=policies.PreservationContext())
    assert all(info.time.tzinfo for info in infos)
    return [step for step, keep in zip(steps, kept, strict=True) if keep]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"last": 1}, [50]),
        ({"last": 2}, [40, 50]),
        ({"last": 9}, list(STEPS)),
        ({"last": 0}, [50]),  # the newest whole one is never removed
        ({"last": 1, "every": 20}, [20, 40, 50]),
        ({"last": 1, "every": 1000}, [50]),
        ({"last": 1, "best": Best("loss")}, [20, 50]),
        ({"last": 1, "best": Best("loss", LOWEST, 2)}, [20, 40, 50]),
        ({"last": 1, "best": Best("loss", HIGHEST, 2)}, [10, 50]),
        ({"last": 1, "best": Best("loss", LOWEST, 99)}, [10, 20, 30, 40, 50]),
        ({"last": 2, "every": 30, "best": Best("loss")}, [20, 30, 40, 50]),
    ],
)
def test_what_stays(asked, kept):
    assert _kept(**asked) == kept


def test_without_the_figure_only_the_last_stay():
    assert _kept(last=2, figures={}, best=Best("losss", LOWEST, 9)) == [40, 50]
    assert _kept(steps=(10,), last=1, figures={}, best=Best("losss")) == [10]
    assert _kept(steps=(), last=1, best=Best("loss")) == []
