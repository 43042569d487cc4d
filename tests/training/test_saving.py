"""Which checkpoints of a run stay, over its starts."""

import pytest
from small_training import train

from flan_jax.checkpoint import choosing
from flan_jax.errors import FlanError
from flan_jax.training import loop
from flan_jax.training.hooks.watchdog import Watchdog

SCORES = {1: 3.0, 2: 9.0, 3: 8.0, 4: 1.0, 5: 2.0, 6: 0.5}


class Scores:
    """Writes a figure at some steps, as an evaluation does."""

    def __init__(self, scores):
        self.scores = scores

    def after_step(self, context, step, values):
        if step in self.scores:
            context.write("scores", {"dev": self.scores[step]})


class Announced(Scores):
    """Says so before, and has the devices wait."""

    def start(self, context):
        context.later["scores"] = {"dev": 0.0}

    def pauses(self, context, step):
        return step in self.scores


def test_the_last_the_best_and_every_so_many(prepared, tmp_path, capsys):
    keep = {"checkpoint_period": 1, "keep_checkpoints": 1, "keep_every": 5}
    keep |= {"keep_best": {"figure": "scores/dev", "best": "highest", "count": 2}}
    train(tmp_path, prepared, 4, hooks=[Scores({2: 9.0})], **keep)
    assert choosing.steps(tmp_path) == [2, 4]
    assert "KEEP_BEST: step 1 has no figure 'scores/dev'" in capsys.readouterr().out
    left = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp-1"  # of a killed start
    left.mkdir()
    train(tmp_path, prepared, 7, hooks=[Scores({5: 1.0, 6: 0.5})], **keep)
    assert choosing.steps(tmp_path) == [2, 5, 7]  # 2 is known to be the best from the start before
    assert not left.exists()


def test_a_figure_that_does_not_exist_ends_the_run_at_its_first_step(prepared, tmp_path):
    with pytest.raises(FlanError, match=r"KEEP_BEST: a step has no figure 'los': did you mean 'loss'"):
        train(tmp_path, prepared, 3, keep_best={"figure": "los"}, checkpoint_period=1)
    with pytest.raises(FlanError, match="no figure 'cluster_loss/nli': did you mean 'cluster_loss/sentiment'"):
        train(tmp_path, prepared, 3, keep_best={"figure": "cluster_loss/nli"}, checkpoint_period=1)


def test_the_best_step_of_a_hook_s_own_figure_is_saved(prepared, tmp_path, capsys, monkeypatch):
    """And the last save, when no step is left to wait for, may take as long as one between steps."""
    dogs, waits = [], []

    class Kept(Watchdog):
        def start(self, context):
            dogs.append(self)
            super().start(context)

    class Looks:
        def after_step(self, context, step, values):
            waits.append(dogs[0]._wait)

        def end(self, context):
            waits.append(dogs[0]._wait)

    monkeypatch.setattr(loop, "Watchdog", Kept)
    best = {"figure": "scores/dev", "best": "highest"}
    hooks = [Announced({1: 5.0, 3: 9.0}), Looks()]
    train(tmp_path, prepared, 4, hooks=hooks, keep_best=best, keep_checkpoints=1, no_step_seconds=500)
    assert choosing.steps(tmp_path) == [3, 4]
    assert "best by scores/dev, highest: step 3 (9)" in capsys.readouterr().out
    said = [(wait.limit, wait.doing.partition(":")[0]) for wait in waits]
    assert said == [(2000, f"in what happens after step {step}") for step in (1, 2, 3, 4, 4)]
    with pytest.raises(FlanError, match=r"^KEEP_BEST: HOOKS write no figure 'scores/test': did you mean 'scores/dev'"):
        train(tmp_path / "other", prepared, 4, hooks=hooks, keep_best=best | {"figure": "scores/test"})
