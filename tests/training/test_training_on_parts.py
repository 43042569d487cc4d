"""Runs on mixtures of parts: what is logged, what the manifest and run.json say, and what may go on."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from flan_jax import catalog, configuration, parts, precompile, styles
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import token_store
from flan_jax.data.identity import Identities
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.overlap import evaluated
from flan_jax.training import loop, optimizers
from flan_jax.training.comparing import differences
from flan_jax.training.run import Run
from flan_jax.verification import checks
from flan_jax.verification.findings import HOLDS
from flan_jax.verification.request import Request
from flan_jax.verification.subject import Subject

BYTES = ByteTokenizer()
SMALL = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16
)
LENGTHS = {"inputs": 48, "targets": 16}
TWO = {"instructions": 1, "5_shots": 1}
MIXED = {"mixture": "flan", "styles": TWO, "weights": {"nli": 0, "paraphrase": 0}, "loss_weights": {"bool_q": 0.5}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    for style in TWO:
        where = token_store.folder_of(folder, BYTES.fingerprint, styles.parse(style))
        for name in ("rte", "sst2", "bool_q"):
            texts = [" ".join(rng.choice(["calm", "grey"], 3)) for _ in range(12)]
            examples = [
                token_store.TokenizedExample(*BYTES.encode([f"{style} {text}", "yes"]), 0, number)
                for number, text in enumerate(texts)
            ]
            info = {"num_records": 12, "renderings": 1, "vocab_size": BYTES.vocab_size}
            records = Identities.of((f"{name} {number}", {"text": f"{name} {number}"}) for number in range(12))
            token_store.write_dataset(where / name, info, examples, records=records)
    return folder


def _train(model_dir, prepared, **more):
    arguments = {"mixture": MIXED, "model": SMALL, "vocabulary": "bytes", "batch_size": 8, "feature_lengths": LENGTHS}
    arguments |= {"train_steps": 2, "optimizer": optimizers.adafactor(1e-2), "checkpoint_period": 100}
    return loop.train(model_dir=str(model_dir), prepared_dir=str(prepared), **(arguments | more))


@pytest.fixture(scope="module")
def begun(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    _train(folder, prepared, keep_best={"figure": "part_loss/sst2:5_shots", "best": "lowest", "count": 1})
    return folder


@pytest.fixture
def copied(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "run")


def test_losses_by_part_dataset_and_cluster(begun):
    lines = [json.loads(line) for line in (begun / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        names = ["sst2:5_shots", "sst2:instructions", "bool_q:5_shots", "bool_q:instructions"]
        assert list(line["part_loss"]) == names
        assert list(line["dataset_loss"]) == ["sst2", "bool_q"]
        assert list(line["cluster_loss"]) == ["sentiment", "reading_comprehension"]
        for dataset, value in line["dataset_loss"].items():
            each = [line["part_loss"][name] for name in names if name.startswith(dataset)]
            assert min(each) <= value <= max(each)
            assert line["cluster_loss"][catalog.dataset(dataset).cluster] == pytest.approx(value)


def test_the_manifest_says_what_was_drawn_from(begun):
    manifest = Manifest.load(begun)
    assert manifest.tuning["datasets"] == ["bool_q", "sst2"]
    assert manifest.tuning["clusters"] == ["reading_comprehension", "sentiment"]
    assert [(one["dataset"], one["style"]) for one in manifest.tuning["text"]] == [
        (name, style) for name in ("sst2", "bool_q") for style in ("5_shots", "instructions")
    ]
    last = manifest.history[-1]
    assert last["tuned on"] == "flan" and last["recipe"] == parts.of(MIXED).recipe
    assert "rte" not in last["absent"] and "trec" in last["absent"]
    assert [one["part"] for one in last["composition"]["members"]][:2] == ["sst2:5_shots", "sst2:instructions"]


def test_a_weight_of_0_is_not_seen_and_any_part_is(begun, prepared, tmp_path):
    tuning = Manifest.load(begun).tuning
    found = {name: labels.status(catalog.dataset(name), tuning) for name in ("rte", "sst2", "bool_q", "snli")}
    assert found == {"rte": "held out", "snli": "held out", "sst2": "seen", "bool_q": "seen"}
    own = {"name": "mine", "parts": [{"of": "flan_without_nli"}, {"of": "rte", "style": "5_shots", "weight": 1e-6}]}
    _train(tmp_path / "run", prepared, mixture=own, train_steps=1)
    manifest = Manifest.load(tmp_path / "run")
    assert "rte" in manifest.tuning["datasets"]
    assert labels.status(catalog.dataset("snli"), manifest.tuning) == "seen"  # whatever else the parts hold out


def test_the_text_of_every_style_is_compared(begun, prepared):
    tuning, found = Manifest.load(begun).tuning, []
    for entry in tuning["text"]:
        tokens, reason = evaluated.store_of(prepared, entry, BYTES.fingerprint)
        assert reason == ""
        found.append((tokens.folder.parent.name.removeprefix(BYTES.fingerprint[:16]), tokens.name, tokens.digest))
    assert [(suffix, name) for suffix, name, _ in found] == [
        (suffix, name) for name in ("sst2", "bool_q") for suffix in ("_5_shots", "")
    ]
    assert [digest for *_, digest in found] == [entry["digest"] for entry in tuning["text"]]


def test_run_json_has_the_parts_and_the_recipe(begun):
    found = json.loads((begun / "run.json").read_text())
    assert found["mixture"] == "flan" and found["recipe"]["styles"] == {"5_shots": 1.0, "instructions": 1.0}
    assert [(one["part"], one["rate"], one["loss_weight"]) for one in found["datasets"]] == [
        *(("sst2:5_shots", 6, 1.0), ("sst2:instructions", 6, 1.0)),
        *(("bool_q:5_shots", 6, 0.5), ("bool_q:instructions", 6, 0.5)),
    ]
    loaded = Run.load(begun)
    assert differences(loaded, loaded) == []


OTHER = {
    "another weight": (
        {**MIXED, "weights": MIXED["weights"] | {"sst2": 2}},
        "WEIGHTS.sst2 absent -> 2.0; give its values",
    ),
    "another share": ({**MIXED, "styles": {"instructions": 3, "5_shots": 1}}, "STYLES.instructions 1.0 -> 3.0"),
    "a style less": ({**MIXED, "styles": "5_shots"}, "MIXTURE_OR_TASK_NAME flan -> flan_5_shots"),
    "a dataset less": ({**MIXED, "weights": MIXED["weights"] | {"sst2": 0}}, "WEIGHTS.sst2 absent -> 0.0"),
    "another rate": ({**MIXED, "rates": {"cap": 5}}, "RATES.cap absent -> 5"),
    "another loss": ({**MIXED, "loss_weights": {"bool_q": 2}}, "LOSS_WEIGHTS.bool_q 0.5 -> 2.0"),
    "another joint": ({**MIXED, "joints": {"bool_q": "newline"}}, "JOINTS.bool_q absent -> newline"),
    "a dataset of a held-out cluster": (
        {**MIXED, "weights": {"paraphrase": 0}},
        "composition.rte:5_shots absent -> 12",
    ),
    "the name alone": ("flan_without_nli", "MIXTURE_OR_TASK_NAME flan -> flan_without_nli"),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_recipe_is_refused_by_name(copied, prepared, name):
    mixture, line = OTHER[name]
    with pytest.raises(FlanError) as caught:
        _train(copied, prepared, mixture=mixture, train_steps=3)
    assert line in str(caught.value) and f"{copied} holds another run" in str(caught.value)


def test_the_same_parts_by_another_recipe_go_on(copied, prepared):
    weights = {"paraphrase": 0, "nli": 0, "sst2:instructions": 1}
    same = {**MIXED, "styles": {"5_shots": 4, "instructions": 4}, "weights": weights}
    assert _train(copied, prepared, mixture=same, train_steps=3).step == 3


def test_a_run_of_before_there_were_parts_goes_on(prepared, tmp_path):
    _train(tmp_path / "run", prepared, mixture="flan_without_nli", train_steps=1)
    file = tmp_path / "run" / "run.json"
    values = json.loads(file.read_text())
    del values["recipe"], values["digest"]
    for one in values["datasets"]:
        for name in ("part", "style", "loss_weight", "joint"):
            del one[name]
    file.write_text(json.dumps(values))
    assert _train(tmp_path / "run", prepared, mixture="flan_without_nli").step == 2
    with pytest.raises(FlanError, match="WEIGHTS.sst2 absent -> 2.0"):
        _train(
            tmp_path / "run", prepared, mixture={"mixture": "flan_without_nli", "weights": {"sst2": 2}}, train_steps=3
        )
    file.unlink()  # and of one that kept no record: by its manifest
    with pytest.raises(FlanError, match="composition.sst2 12 examples at rate 12 -> 12 examples at rate 24"):
        _train(
            tmp_path / "run", prepared, mixture={"mixture": "flan_without_nli", "weights": {"sst2": 2}}, train_steps=3
        )
    assert _train(tmp_path / "run", prepared, mixture="flan_without_nli", train_steps=3).step == 3


def test_what_keep_best_can_name(prepared, tmp_path):
    best = {"figure": "part_loss/sst2:4_shots", "best": "lowest", "count": 1}
    with pytest.raises(
        FlanError, match="has no figure 'part_loss/sst2:4_shots': did you mean 'part_loss/sst2:5_shots'"
    ):
        _train(tmp_path / "run", prepared, train_steps=1, keep_best=best)


def test_verify_reads_the_mixture_of_the_checkpoint(begun, prepared):
    subject = Subject(Request(str(begun), str(prepared), lengths=LENGTHS))
    assert subject.mixture == parts.of(MIXED)
    assert len(subject.stream.parts) == 4 and subject.stream.loss_weight("bool_q:5_shots") == 0.5


def test_precompile_counts_the_parts_of_a_run_file():
    found = precompile.run_file(["runs/tune.gin"], [f"STYLES = {TWO}", "WEIGHTS = {'nli': 0}", "MODEL = 'tiny'"])
    assert found["parts"] == len(parts.of("flan", styles=TWO, weights={"nli": 0}).parts) == 2 * (66 - 10)


@pytest.mark.slow
def test_verify_holds_on_loss_weights_and_a_line_break(prepared, tmp_path):
    """Rows and gradients of parts are those of each example alone, weighted and joined as its part is."""
    mixture = {**MIXED, "joints": {"sst2": "newline", "bool_q:5_shots": "newline"}}
    _train(tmp_path / "run", prepared, mixture=mixture, train_steps=1)
    assert Manifest.load(tmp_path / "run").separator == "newline"  # of most draws
    subject = Subject(Request(str(tmp_path / "run"), str(prepared), lengths=LENGTHS, examples=8))
    (line_break,) = BYTES.encode(["\n"])[0]
    between = {one.segment.part: one.prompt[-1] for one in subject.some_drawn()}
    assert between["sst2:5_shots"] == line_break and between["bool_q:instructions"] == BYTES.eos_id
    for finding in checks.run(subject, ["rows", "gradient", "stream"]):
        assert finding.status == HOLDS, finding.line()
