"""What makes two runs different runs, and the digest by which a step tells its own from others."""

import copy
import dataclasses

import pytest

from flan_jax.data import stream
from flan_jax.models.config import COMPUTATION
from flan_jax.training import comparing
from flan_jax.training.described import flat
from flan_jax.training.run import Program, Run

PART = {"part": "sst2", "dataset": "sst2", "style": "instructions", "examples": 12, "rate": 12, "loss_weight": 1.0}
PART |= {"joint": "eos", "digest": "5" * 64}
RECORD = {
    "mixture": "flan_without_nli",
    "datasets": [PART, PART | {"part": "trec", "dataset": "trec", "digest": "7" * 64}],
    "absent": ["piqa"],
    "order": 2,
    "vocabulary": {"kind": "bytes", "fingerprint": "d" * 64, "content": "9" * 64},
    "start": {"checkpoint": "models/tiny", "step": 0, "manifest": "4" * 64, "weights": "0" * 16, "tuning": "6" * 64},
    "seed": 0,
    "program": {
        "model": {"num_layers": 3, "window": 0, "norm_epsilon": 1e-06, "attention_scale": None, "qk_norm": False},
        "computation": {"dtype": "float32", "remat": "full", "attention": "xla", "attention_block": 256}
        | {"head_chunk": 64, "unroll": False},
        "rows": 8,
        "inputs": 224,
        "targets": 32,
        "microbatches": 1,
        "optimizer": {"name": "adafactor", "learning_rate": 0.001, "schedule": [{"at": 1}, {"at": 2.0}]},
        "clip_norm": None,
        "frozen": [],
        "ema_decay": None,
        "lora": None,
        "prompt_length": None,
        "objective": {"loss_averaging": "per_token", "loss_on_inputs": False, "z_loss": 0.0}
        | {"label_smoothing": 0.0, "dropout_rate": 0.0},
    },
    "train_steps": 2,
    "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
    "hosts": {"platform": "cpu", "kind": "cpu", "devices": 1, "processes": 1},
    "hooks": ["mine.py:Hook"],
    "code": "a57f8930b253",
    "changes": [{"when": "2026-12-01", "step": 1, "changed": {"TRAIN_STEPS": [1, 2]}}],
    "recipe": {"weights": {"common_gen": 0.0}},
}
# Which fields make another run, by the beginnings of their names, and by those of exceptions.
DECIDE = ("mixture", "datasets", "order", "vocabulary", "start", "seed", "program")
FREE = ("datasets.0.dataset", "datasets.0.style", "datasets.1.dataset", "datasets.1.style")  # their tokens tell
FREE += ("start.checkpoint", "start.step", "start.manifest")  # weights and tuning tell
FREE += tuple(f"program.computation.{name}" for name in COMPUTATION if name != "dtype")


def run_of(record):
    return Run._of(copy.deepcopy(record))


def paths_of(value, at=()):
    """Of all leaves in JSON."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if not items:
        yield at
    for key, one in items:
        yield from paths_of(one, (*at, key))


def changed(record, path, value):
    found = copy.deepcopy(record)
    at = found
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return found


def another(name, value):
    """A value of the same kind; instead of None, and of an empty list, whatever may stand there."""
    if name.startswith("program.objective."):
        return "per_example" if isinstance(value, str) else (not value if isinstance(value, bool) else 0.5)
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return ["x"]
    return f"{value}x"[::-1] if isinstance(value, str) else 3 if value is None else value + 1


def is_another(old, new):
    """Whether they are different runs, after making sure that all ways to ask say so."""
    found = bool(comparing.differences(old, new))
    assert found == bool(comparing.differences(new, old)) == (comparing.identity(old) != comparing.identity(new))
    assert comparing.is_of_another(comparing.identity(old), new) == found
    return found


@pytest.mark.parametrize("path", list(paths_of(RECORD)), ids=lambda path: ".".join(map(str, path)))
def test_each_field_makes_another_run_or_none(path):
    """Joints, orders, a part's examples, a model's window and more were left out of the digest."""
    value, name = RECORD, ".".join(map(str, path))
    for key in path:
        value = value[key]
    decides = path[0] in DECIDE and not name.startswith(FREE)
    assert is_another(run_of(RECORD), run_of(changed(RECORD, path, another(name, value)))) == decides


def test_the_record_has_all_fields():
    assert {field.name for field in dataclasses.fields(Run)} == {*RECORD}
    assert {field.name for field in dataclasses.fields(Program)} == {*RECORD["program"]}
    assert RECORD["order"] == stream.ORDER


@pytest.mark.parametrize(
    ("change", "decides"),
    [
        (lambda f: f["datasets"].reverse(), True),
        (lambda f: f["datasets"].pop(), True),
        (lambda f: f["datasets"][0].update(joint="newline"), True),
        (lambda f: f["start"].update(optimizer_state=True), True),
        (lambda f: f["start"].update(map={"decoder": "encoder"}), True),
        (lambda f: f["start"].update(map={"decoder": None}), True),
        (lambda f: f.update(start={"random": 0}), True),
        (lambda f: f["start"].pop("weights"), True),
        (lambda f: f["program"]["model"].update(more=1), True),
        (lambda f: f["program"]["model"].pop("window"), True),
        (lambda f: f["program"]["model"].pop("attention_scale"), False),  # it was None
        (lambda f: f["program"].update(lora={"rank": 2, "alpha": 2.0, "targets": ["attention"]}), True),
        (lambda f: f["program"]["model"].update(num_layers=3.0, qk_norm=0), False),
        (lambda f: f["program"]["objective"].update(z_loss=0), False),
        (lambda f: f["program"].pop("objective"), False),  # as in records of earlier versions
        (lambda f: [f["program"].pop(name) for name in ("clip_norm", "frozen", "ema_decay", "lora")], False),
        (lambda f: [one.pop("joint") for one in f["datasets"]], False),
        (lambda f: [one.pop("part") for one in f["datasets"]], False),
        (lambda f: f.update(recipe={}), False),  # the parts are the same
        (lambda f: (f.update(recipe={}), f["datasets"][0].update(rate=2)), True),
        (lambda f: f.update(absent=[], hooks=[], changes=[]), False),
    ],
)
def test_what_makes_another_run(change, decides):
    record = copy.deepcopy(RECORD)
    change(record)
    assert is_another(run_of(RECORD), run_of(record)) == decides


def test_the_step_of_a_start_counts_with_the_optimizers_state():
    record = changed(RECORD, ("start", "optimizer_state"), True)
    assert is_another(run_of(record), run_of(changed(record, ("start", "step"), 7)))


def test_random_starts_differ_by_the_seed():
    record = changed(RECORD, ("start",), {"random": 0})
    assert not is_another(run_of(record), run_of(changed(record, ("start", "random"), 1)))
    assert is_another(run_of(record), run_of(changed(record, ("seed",), 1)))


def test_starts_of_an_earlier_version_are_told_by_their_manifests():
    record = changed(RECORD, ("start",), {"checkpoint": "models/tiny", "step": 0, "manifest": "4" * 64})
    assert not is_another(run_of(record), run_of(changed(record, ("start", "checkpoint"), "elsewhere")))
    for name, value in {"step": 7, "manifest": "0" * 64}.items():
        assert is_another(run_of(record), run_of(changed(record, ("start", name), value)))
    assert not comparing.differences(run_of(record), run_of(RECORD))


def test_the_digest_is_the_one_that_steps_have():
    """Where this fails, steps that are there would count as those of another training.

    Whoever changes what `identity` gives for a record has to give `_RULE` the next number.
    """
    assert comparing.identity(run_of(RECORD)) == "2:777bd80d0b80a3e2"
    assert flat(RECORD["program"]["objective"]) == {
        name.removeprefix("program.objective."): value
        for name, value in comparing._USUAL.items()
        if name.startswith("program.objective.")
    }


@pytest.mark.parametrize("told", [None, "", "5a98d8101aaa392c", "1:5a98d8101aaa392c", "3:5a98d8101aaa392c", "x"])
def test_digests_by_other_rules_tell_nothing(told):
    assert not comparing.is_of_another(told, run_of(RECORD))
