"""Every check holds on sound models, and fails on its own kind of fault, made in the real modules, and says where."""

import dataclasses
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import models, values
from flan_jax.checkpoint import arrays, digests, saved_digests
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import layouts, stream
from flan_jax.decoding import generator, steps
from flan_jax.errors import FlanError
from flan_jax.models import attention, attention_segments, cache
from flan_jax.models.attention import Slots
from flan_jax.scoring import encoder_packing, scorer, tree_packing, trees
from flan_jax.training import loss, state
from flan_jax.training.loss import Objective
from flan_jax.training.run import Program, Run
from flan_jax.verification import checks
from flan_jax.verification.findings import FAILS, HOLDS, SKIPPED
from flan_jax.verification.request import Request
from flan_jax.verification.subject import Subject

pytestmark = pytest.mark.slow

SHORT = {"lengths": {"inputs": 250, "targets": 64}, "datasets": ("copa", "sst2")}


@pytest.fixture
def broken():
    """For faults in what the plain side computes with too: it is traced anew, and again afterwards."""
    jax.clear_caches()
    yield
    jax.clear_caches()


def _run(folders, names, kind="decoder", **more):
    request = {"examples": 4, **SHORT, **more}
    subject = Subject(Request(str(folders[kind]), str(folders["prepared"]), **request))
    return {finding.name: finding for finding in checks.run(subject, names)}


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_all_hold_on_a_sound_model(verifiable, kind):
    found = _run(verifiable, checks.chosen([]), kind)
    assert list(found) == list(checks.CHECKS)
    assert found.pop("huggingface").status == SKIPPED
    for name, finding in found.items():
        assert finding.status == HOLDS, finding.line()
        assert finding.compared and finding.place, name
    close = [found[name] for name in ("rows", "trees", "gradient", "generation")]
    assert all(finding.difference < 0.1 * finding.allowed for finding in close), [f.line() for f in close]
    assert found["rows"].compared["examples"] >= 4 and found["trees"].compared["prompts"] >= 4
    assert found["gradient"].compared["ways"] == 3


def test_other_ways_to_compute_attention_hold_too(verifiable):
    found = _run(verifiable, ["rows", "gradient"], attention="segments", microbatches=1)
    assert {finding.status for finding in found.values()} == {HOLDS}
    assert found["gradient"].compared["ways"] == 1
    assert "microbatches and the order of rows left out" in found["gradient"].line()


def _with_objective(folder, to, **objective):
    """A checkpoint of the same weights, as a run that minimises something else has left it."""
    shutil.copytree(folder, to)
    config = Manifest.load(folder).model
    program = Program.of(models.DecoderConfig.from_dict(config), 8, None, 1, None, Objective(**objective))
    entries = {"mixture": "flan", "datasets": (), "absent": (), "order": 1, "vocabulary": {}, "start": {"random": 0}}
    Run(**entries, seed=0, program=program, train_steps=3, mesh={}, hosts={}).save(to)
    return to


PER_EXAMPLE = {"loss_averaging": "per_example"}


@pytest.mark.parametrize(
    "objective",
    [PER_EXAMPLE, PER_EXAMPLE | {"z_loss": 0.01, "label_smoothing": 0.1, "dropout_rate": 0.5, "loss_on_inputs": True}],
)
def test_what_the_run_minimises_is_what_is_checked(verifiable, tmp_path, objective):
    folders = {**verifiable, "run": _with_objective(verifiable["decoder"], tmp_path / "run", **objective)}
    subject = Subject(Request(str(folders["run"]), str(folders["prepared"]), examples=4, **SHORT))
    weights = subject.stream.batch(0)["weights"]
    assert 0 < weights[weights > 0].min() < 1
    found = {finding.name: finding for finding in checks.run(subject, ["rows", "gradient"])}
    assert {name: finding.status for name, finding in found.items()} == {"rows": HOLDS, "gradient": HOLDS}
    of_all = _run(verifiable, ["gradient"])["gradient"]
    assert found["gradient"].compared["ways"] == of_all.compared["ways"] == 3
    if "loss_on_inputs" in objective:
        assert found["gradient"].compared["target tokens"] > of_all.compared["target tokens"]


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_weights_of_examples_that_are_lost_are_found(verifiable, kind, monkeypatch):
    """Rows whose targets weigh 1 each, where each example is to weigh 1."""
    held = _run(verifiable, ["rows", "gradient"], kind, loss_averaging="per_example")
    assert {finding.status for finding in held.values()} == {HOLDS}
    sound = layouts._write_targets
    monkeypatch.setattr(layouts, "_write_targets", lambda *a: sound(*a[:4], values.PER_TOKEN, a[5]))
    found = _run(verifiable, ["rows", "gradient"], kind, loss_averaging="per_example")
    assert {finding.status for finding in found.values()} == {FAILS}
    assert found["rows"].place["array"] == "weights"


# ------------------------------------------------------------------------------------------------------- faults


def _segments_leak(patch):
    def visible(queries, keys):
        return (queries.segments[:, :, None] > 0) & (keys.segments[:, None, :] > 0)

    patch.setattr(attention, "visible", visible)


def _siblings_are_seen(patch):
    def visible(queries, keys):
        return attention.visible(Slots(*queries[:2]), Slots(*keys[:2]))

    patch.setattr(attention_segments, "visible", visible)


def _the_future_is_seen(patch):
    sound = attention.attend
    patch.setattr(attention, "attend", lambda *a, causal, **k: sound(*a, causal=False, **k))


def _a_window_is_too_wide(patch):
    sound = attention_segments.How
    patch.setattr(attention_segments, "How", lambda block, window, *rest: sound(block, window and window + 3, *rest))


def _positions_do_not_restart(patch):
    sound = layouts._write

    def write(out, row, starts, segments, lengths, prefix=""):
        sound(out, row, starts, segments, lengths, prefix)
        for number, start, length in zip(row, starts, lengths, strict=True):
            out[f"{prefix}positions"][number, start : start + length] += start

    patch.setattr(layouts, "_write", write)


def _segments_share_a_number(patch):
    sound = layouts._write
    patch.setattr(
        layouts, "_write", lambda out, row, starts, segments, *rest: sound(out, row, starts, segments**0, *rest)
    )


def _changed_batches(change):
    """A fault in the arrays of a batch of rows."""

    def fault(patch):
        for layout in (layouts.DecoderLayout, layouts.EncoderDecoderLayout):
            sound = layout.batch

            def batch(self, rows, weights=None, sound=sound):
                return change(sound(self, rows, weights))

            patch.setattr(layout, "batch", batch)

    return fault


@_changed_batches
def _the_separator_is_missing(batch):
    side = "encoder_tokens" if "encoder_tokens" in batch else "tokens"
    return batch | {side: np.where(batch[side] == 1, 2, batch[side])}


@_changed_batches
def _targets_are_one_off(batch):
    return batch | {"targets": np.roll(batch["targets"], 1, axis=1)}


@_changed_batches
def _an_input_carries_loss(batch):
    return batch | {"weights": np.ones_like(batch["weights"])}


@_changed_batches
def _the_last_eos_carries_no_loss(batch):
    return batch | {"weights": np.where(batch["targets"] == 1, 0, batch["weights"]).astype(np.float32)}


def _logits_are_one_off(patch):
    sound = loss.target_hidden
    patch.setattr(loss, "target_hidden", lambda *a: jnp.roll(sound(*a), 1, axis=1))


def _a_loss_is_skipped(patch):
    sound = loss.token_cross_entropy

    def cross_entropy(*a):
        found = sound(*a)
        return found._replace(loss_BxT=found.loss_BxT.at[:, 3].set(0.0))

    patch.setattr(loss, "token_cross_entropy", cross_entropy)


def _each_row_weighs_the_same(patch):
    sound = loss.target_loss

    def target_loss(model, params, batch, num_datasets):
        total, metrics = sound(model, params, batch, num_datasets)
        alone = len(batch["weights"]) == 1
        return total / metrics["weight"] * 10 if alone else total, metrics

    patch.setattr(loss, "target_loss", target_loss)


def _a_gradient_is_lost(patch):
    sound = state.loss_lib.target_loss

    def target_loss(model, params, batch, num_datasets):
        layers = params["decoder"]["layers"]
        kept = {**params["decoder"], "layers": {**layers, "mlp": jax.lax.stop_gradient(layers["mlp"])}}
        return sound(model, {**params, "decoder": kept}, batch, num_datasets)

    patch.setattr(loss, "target_loss", target_loss)


def _a_tree_lacks_its_separator(patch):
    sound = trees._separated

    def separated(tokenizer, prompt, *rest):
        tree, fixed = sound(tokenizer, prompt, *rest)
        return dataclasses.replace(tree, trunk=tree.trunk[:-1]), fixed

    patch.setattr(trees, "_separated", separated)


def _an_options_end_is_not_scored(patch):
    sound = trees._separated
    patch.setattr(trees, "_separated", lambda *a: sound(*a[:-1], False))


def _branches_do_not_restart(patch):
    sound = tree_packing.assemble

    def assemble(*a):
        batch = sound(*a)
        place = np.broadcast_to(np.arange(batch.arrays["tokens"].shape[1]), batch.arrays["tokens"].shape)
        later = batch.arrays["branches"] > 1
        batch.arrays["positions"][later] = place[later]
        return batch

    patch.setattr(tree_packing, "assemble", assemble)


def _predictions_are_one_off(patch):
    sound = tree_packing.assemble

    def assemble(*a):
        batch = sound(*a)
        batch.arrays["predictors"][:] = np.maximum(batch.arrays["predictors"] - 1, 0)
        return batch

    patch.setattr(tree_packing, "assemble", assemble)


def _scores_are_logits(patch):
    def log_probabilities(logits, targets):
        chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0), axis=-1)
        return jnp.stack([chosen, jnp.ones_like(chosen)])

    patch.setattr(scorer, "_log_probabilities", log_probabilities)


def _everything_is_greedy(patch):
    sound = scorer._log_probabilities
    patch.setattr(scorer, "_log_probabilities", lambda *a: sound(*a).at[1].set(1.0))


def _prompts_share_the_encoder(patch):
    sound = encoder_packing.encoder_arrays

    def arrays_(*a):
        found = sound(*a)
        found["encoder_segments"] = np.minimum(found["encoder_segments"], 1)
        return found

    patch.setattr(encoder_packing, "encoder_arrays", arrays_)


def _a_shared_prefix_is_shifted(patch):
    sound = cache.Cache.for_all

    def for_all(self):
        shared = sound(self)
        return shared._replace(keys=jnp.roll(shared.keys, 1, axis=2))

    patch.setattr(cache.Cache, "for_all", for_all)


def _a_cache_loses_a_token(patch):
    sound = steps.Steps.stepped
    patch.setattr(
        steps.Steps,
        "stepped",
        lambda self, params, cache, tokens, starts, before, room: sound(
            self, params, cache, tokens, starts - 3, before, room
        ),
    )


def _the_second_likeliest_is_taken(patch):
    patch.setattr(generator.sampling, "next_tokens", lambda logits, *a: jnp.argsort(logits, axis=-1)[:, -2])


def _changed_answers(change):
    """A fault in what a generator says."""

    def fault(patch):
        sound = generator.Generator.generate
        patch.setattr(generator.Generator, "generate", lambda *a: [change(made) for made in sound(*a)])

    return fault


@_changed_answers
def _answers_are_cut_off(made):
    return dataclasses.replace(made, tokens=made.tokens[:3], end=None)


@_changed_answers
def _nothing_is_said(made):
    return dataclasses.replace(made, tokens=(), end=None)


def _draws_depend_on_the_process(patch):
    sound, numbers = stream.Stream._permutation, itertools.count(1)

    def permutation(self, *a):
        number = self.__dict__.setdefault("number", next(numbers))  # an address could be that of another stream
        return np.random.default_rng(number).permutation(sound(self, *a)[:])

    patch.setattr(stream.Stream, "_permutation", permutation)


def _hosts_count_rows_from_zero(patch):
    sound = stream.Stream.batch

    def batch(self, step, rows=slice(None)):
        return sound(self, step, slice(0, rows.stop - rows.start) if rows.stop else rows)

    patch.setattr(stream.Stream, "batch", batch)


def _changed_parameters(change):
    """A fault in what is restored, which the digests that a load compares would name."""

    def fault(patch):
        sound = arrays.restore_params
        patch.setattr(saved_digests, "verify", lambda *a: None)
        patch.setattr(arrays, "restore_params", lambda *a, **named: change(sound(*a, **named)))

    return fault


@_changed_parameters
def _a_parameter_is_rounded(params):
    name = "decoder_norm"
    scale = params["decoder"][name]["scale"]
    return {**params, "decoder": {**params["decoder"], name: {"scale": scale.at[5].multiply(1 + 2e-7)}}}


@_changed_parameters
def _a_parameter_is_not_finite(params):
    wo = params["decoder"]["layers"]["mlp"]["wo"]["kernel"]
    params["decoder"]["layers"]["mlp"]["wo"]["kernel"] = wo.at[1, 2, 3].set(jnp.nan)
    return params


T5 = "encoder_decoder"
FAULTS = {  # fault: (model, the checks that fail with a part of what they say, the checks that hold)
    _segments_leak: ("decoder", {"rows": "largest difference"}, ["generation"]),
    _siblings_are_seen: ("decoder", {"trees": "option "}, ["rows"]),
    _the_future_is_seen: ("decoder", {"rows": "target token"}, []),
    _a_window_is_too_wide: ("decoder", {"trees": "option "}, ["rows"]),
    _positions_do_not_restart: ("decoder", {"rows": "array positions, slot of the segment 0"}, []),
    _segments_share_a_number: ("decoder", {"rows": "slots of segments"}, ["trees"]),
    _the_separator_is_missing: ("decoder", {"rows": "array tokens"}, ["trees"]),
    _targets_are_one_off: ("decoder", {"rows": "array targets", "gradient": "in one batch"}, ["trees"]),
    _an_input_carries_loss: ("decoder", {"rows": "slots that carry loss, found "}, []),
    _the_last_eos_carries_no_loss: ("decoder", {"rows": "slots that carry loss"}, []),
    _logits_are_one_off: ("decoder", {"rows": "target token", "gradient": "parameter"}, ["trees", "generation"]),
    _a_loss_is_skipped: ("decoder", {"rows": "loss of target token 3"}, ["trees"]),
    _each_row_weighs_the_same: ("decoder", {"gradient": "in 2 microbatches"}, ["rows"]),
    _a_gradient_is_lost: ("decoder", {"gradient": "parameter decoder/layers/mlp/"}, ["rows"]),
    _a_tree_lacks_its_separator: ("decoder", {"trees": "joint eos"}, ["rows"]),
    _an_options_end_is_not_scored: ("decoder", {"trees": "figure tokens"}, []),
    _branches_do_not_restart: ("decoder", {"trees": "option "}, ["rows"]),
    _predictions_are_one_off: ("decoder", {"trees": "option "}, []),
    _scores_are_logits: ("decoder", {"trees": "option "}, []),
    _everything_is_greedy: ("decoder", {"trees": "figure is_greedy"}, []),
    _a_shared_prefix_is_shifted: ("decoder", {"trees": "behind an exemplar"}, []),
    _a_cache_loses_a_token: ("decoder", {"generation": "generated token"}, ["rows", "trees"]),
    _the_second_likeliest_is_taken: ("decoder", {"generation": "generated token"}, []),
    _answers_are_cut_off: ("decoder", {"generation": "did not end, found "}, []),
    _nothing_is_said: ("decoder", {"generation": "did not end, found 0, expected 16"}, []),
    _draws_depend_on_the_process: ("decoder", {"stream": "hosts"}, ["trees"]),
    _hosts_count_rows_from_zero: ("decoder", {"stream": "hosts 2"}, []),
    _a_parameter_is_rounded: ("decoder", {"digests": "parameter decoder/decoder_norm/scale"}, ["rows"]),
    _a_parameter_is_not_finite: (
        "decoder",
        {
            "digests": "mlp/wo/kernel",
            "rows": "nan",
            "gradient": "nan",
            "trees": "not finite",
            "generation": "not finite",
        },
        ["stream"],
    ),
}
OF_ENCODERS = {
    _segments_leak: (T5, {"rows": "largest difference"}, []),
    _positions_do_not_restart: (T5, {"rows": "positions, slot of the segment 0"}, ["trees"]),
    _the_separator_is_missing: (T5, {"rows": "array encoder_tokens"}, []),
    _targets_are_one_off: (T5, {"rows": "array targets"}, []),
    _siblings_are_seen: (T5, {}, ["trees"]),  # not the attention that it has
    _an_options_end_is_not_scored: (T5, {"trees": "figure tokens"}, []),
    _prompts_share_the_encoder: (T5, {"trees": "option "}, ["rows"]),
    _a_cache_loses_a_token: (T5, {"generation": "generated token"}, []),
}
CASES = [*FAULTS.items(), *OF_ENCODERS.items()]
OF_BOTH_SIDES = (_segments_leak, _the_future_is_seen)


@pytest.mark.parametrize(("fault", "expected"), CASES, ids=[f"{e[0]}{f.__name__}" for f, e in CASES])
def test_a_fault_is_found_by_its_check_and_named(verifiable, monkeypatch, request, fault, expected):
    kind, failing, holding = expected
    if fault in OF_BOTH_SIDES:
        request.getfixturevalue("broken")
    fault(monkeypatch)
    found = _run(verifiable, checks.chosen([*failing, *holding]), kind)
    for name, says in failing.items():
        assert found[name].status == FAILS, found[name].line()
        assert says in found[name].line()
        if found[name].allowed:  # or exactly equal; rounding is far below, a fault far above
            assert not found[name].difference < 10 * found[name].allowed, found[name].line()
    for name in holding:
        assert found[name].status == HOLDS, found[name].line()


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("kind", ["decoder", T5])
def test_a_leak_is_found_with_one_example(verifiable, monkeypatch, kind):
    _segments_leak(monkeypatch)
    assert _run(verifiable, ["rows"], kind, examples=1)["rows"].status == FAILS


def test_rows_of_one_example_hold_nothing(verifiable):
    lengths = {"inputs": 500, "targets": 8}  # one question of TREC in bytes, with its options
    found = _run(verifiable, ["rows"], examples=2, lengths=lengths, datasets=("trec",))["rows"]
    assert found.compared["rows"] == found.compared["examples"]
    assert found.status == FAILS and "could not notice an example that sees the one before it" in found.line()


def _zeros(params):
    return jax.tree.map(jnp.zeros_like, params)


def _nothing_is_attended_to(params):
    def changed(path, x):
        return x * 0 if any("attention" in str(key) for key in path) and "out" in str(path) else x

    return jax.tree_util.tree_map_with_path(changed, params)


@pytest.mark.parametrize(
    ("change", "names", "kind"),
    [
        (_zeros, ["rows", "trees", "generation", "gradient"], "decoder"),
        (_zeros, ["rows"], T5),
        (_nothing_is_attended_to, ["rows", "trees", "generation"], "decoder"),
        (_nothing_is_attended_to, ["rows", "trees", "generation"], T5),
    ],
)
def test_a_model_that_would_notice_no_fault_does_not_hold(verifiable, monkeypatch, change, names, kind):
    _changed_parameters(change)(monkeypatch)
    for name, finding in _run(verifiable, names, kind).items():
        assert finding.status == FAILS, (name, finding.line())
        assert "it could not notice" in finding.line() or finding.difference > 0


def test_every_check_can_fail():
    elsewhere = {"huggingface"}  # in test_against_transformers.py
    assert {name for _, (_, failing, _) in CASES for name in failing} == set(checks.CHECKS) - elsewhere


def test_a_damaged_checkpoint_is_not_loaded(verifiable, monkeypatch):
    sound = digests.of_tree
    monkeypatch.setattr(saved_digests, "of_tree", lambda tree: sound(jax.tree.map(lambda x: x + 1, tree)))
    with pytest.raises(FlanError, match="step 3 of .*decoder"):
        _run(verifiable, ["rows"])
