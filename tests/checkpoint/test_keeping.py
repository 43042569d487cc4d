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


@pytest.mark.parametrize(
    ("best", "figures", "wanted"),
    [
        (Best("loss"), {1: 2.0, 2: 1.0, 3: 1.0, 4: None}, [2]),  # of equal ones the earlier
        (Best("loss", count=3), {1: 2.0, 4: 1.0, 3: 1.0, 2: None}, [3, 4, 1]),
        (Best("dev_score/seen/sst2"), {1: 0.5, 2: 0.75, 3: 0.75}, [2]),  # the higher, without being told
        (Best("mine", HIGHEST), {1: -1.0, 2: -2.0}, [1]),
        (Best("loss", count=2), {1: None}, []),
        (Best("loss"), {}, []),
    ],
)
def test_the_best(best, figures, wanted):
    assert best.first(figures) == wanted


def test_of_equal_ones_the_earlier_stays():
    figures = {10: 1.0, 20: 1.0, 30: 1.0, 40: 2.0}
    assert _kept(steps=(10, 20, 30, 40), figures=figures, last=1, best=Best("loss")) == [10, 40]
    assert _kept(steps=(10, 20, 30, 40), figures=figures, last=1, best=Best("loss", HIGHEST, 2)) == [10, 40]


@pytest.mark.parametrize(
    ("figure", "order"),
    [
        ("accuracy", HIGHEST),
        ("dev_score_cluster/seen/sentiment", HIGHEST),
        ("dev_loss/seen/sst2", LOWEST),
        ("cluster_loss/nli", LOWEST),
        ("my_dev_score", LOWEST),
    ],
)
def test_which_is_better(figure, order):
    assert keeping.better(figure) == Best(figure).order == order
