"""A user's own data go from prepare through train to eval: lines, conversations, and a SeqIO task of this module."""

import json

import gin
import pytest
import seqio
import small_training
import tensorflow as tf

from flan_jax import browse, catalog, configuration, own_data, prepare
from flan_jax import eval as eval_binary
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import examples as example_files
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, labels
from flan_jax.overlap import audited
from flan_jax.overlap.given import Places

LENGTHS = {"inputs": 96, "targets": 16}
LIMITS = ["--max_input_length=96", "--max_target_length=16"]
WORDS = ["calm", "grey", "loud", "new", "odd", "red", "slow", "warm"]


def _say(split, shuffle_files=False, seed=None):
    words = [f"{a} {b}" for a in WORDS for b in WORDS]
    if split == "validation":
        words = [f"very {one}" for one in WORDS]
    return tf.data.Dataset.from_tensor_slices({"inputs": [f"repeat {w}" for w in words], "targets": words})


def _register():
    seqio.TaskRegistry.add(
        "own_repeat",
        source=seqio.FunctionDataSource(_say, splits=["train", "validation"]),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features=dict.fromkeys(("inputs", "targets"), seqio.Feature(seqio.ByteVocabulary())),
        metric_fns=[],
    )


_register()  # as a module of tasks does when it is imported


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """One PREPARED_DIR with the three of them."""
    folder = tmp_path_factory.mktemp("own")
    if "own_repeat" not in seqio.TaskRegistry.names():  # another file of the process may have cleared the registry
        _register()
    patch = pytest.MonkeyPatch()
    patch.setenv(own_data.VARIABLE, "")  # and as it was, at the end
    moods = [{"question": f"Is {w} {v} good?", "answer": "yes", "options": ["yes", "no"]} for w in WORDS for v in WORDS]
    chat = [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"Say {word} {end}"},
                {"role": "assistant", "content": word},
                {"role": "user", "content": "Again"},
                {"role": "assistant", "content": f"{word}!"},
            ]
        }
        for word in WORDS
        for end in "abcdef"
    ]
    to = f"--to={folder / 'prepared'}"
    prepare.main([f"--jsonl={write_lines(folder / 'moods.jsonl', moods)}", to, *LIMITS, "--cluster=sentiment"])
    prepare.main([f"--jsonl={write_lines(folder / 'chat.jsonl', chat)}", to, *LIMITS, "--name=my_chat", "--test=8"])
    of_task = ["--seqio=own_repeat", f"--module={__name__}", "--name=say", "--cluster=translation"]
    prepare.main([*of_task, to, *LIMITS, "--metric=exact_match"])
    yield folder / "prepared"
    patch.undo()


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """A step on each of two; the second run goes on from the first, so that what it was tuned on adds up."""
    folder = tmp_path_factory.mktemp("runs")
    own_data.use(folder)  # nothing is known of them, as when a program starts
    small_training.train(folder / "say", prepared, 1, mixture="say", feature_lengths=LENGTHS)
    more = {"initial_checkpoint_path": str(folder / "say"), "model": None, "vocabulary": None}
    small_training.train(folder / "my_chat", prepared, 1, mixture="my_chat", feature_lengths=LENGTHS, **more)
    return folder


def scores(checkpoint, prepared, output, *names):
    own_data.use(output)
    given = {"checkpoint_path": str(checkpoint), "output_dir": str(output), "prepared_dir": str(prepared)}
    given |= {"datasets": names, "allow_seen": True, "max_examples": 3, "max_dev_examples": 0}
    return eval_binary.evaluate(**given, mesh_shape={"data": 2, "fsdp": 4})["datasets"]


def test_the_manifest_names_them_with_their_clusters(runs):
    tunings = {name: Manifest.load(runs / name).tuning for name in ("say", "my_chat")}
    assert tunings["say"]["datasets"] == ["say"] and tunings["say"]["clusters"] == ["translation"]
    assert tunings["my_chat"]["datasets"] == ["my_chat", "say"]
    assert tunings["my_chat"]["clusters"] == ["translation", "unknown"]
    assert all(entry["records_digest"] for entry in tunings["my_chat"]["text"])


def test_held_back_records_are_scored_and_labelled(runs, prepared, tmp_path):
    """With clusters the hold-out rule applies; without, nothing but what was tuned on is said for sure."""
    found = scores(runs / "say", prepared, tmp_path / "a", "moods", "say", "my_chat")
    assert {name: (one["label"], one["metric"]) for name, one in found.items()} == {
        "moods": ("zero-shot, held out", "accuracy"),
        "say": ("zero-shot, seen", "em"),
        "my_chat": ("zero-shot, unknown", "rouge1"),
    }
    assert found["moods"]["random"] == 0.5
    found = scores(runs / "my_chat", prepared, tmp_path / "b", "moods", "my_chat")
    assert {name: one["label"] for name, one in found.items()} == {
        "moods": "zero-shot, unknown",
        "my_chat": "zero-shot, seen",
    }
    assert (tmp_path / "b" / "report.html").is_file()
    lines = [json.loads(x) for x in (tmp_path / "b/predictions/my_chat/test_t0.jsonl").read_text().splitlines()[1:]]
    assert lines[0]["prompt"].startswith("System: Be brief.\n\nUser: Say ") and lines[0]["prompt"].endswith(
        "Assistant:"
    )


def test_run_files_name_them(runs, prepared, tmp_path):
    """A name is looked for in PREPARED_DIR, and a misspelt one has near matches from there."""
    own_data.use(tmp_path)
    places = [f"CHECKPOINT_PATH = '{runs / 'say'}'", f"EVAL_OUTPUT_DIR = '{tmp_path}'", f"PREPARED_DIR = '{prepared}'"]
    with gin.unlock_config():
        gin.clear_config()
        with pytest.raises(FlanError, match="did you mean 'my_chat'"):
            configuration.parse(["runs/eval.gin"], [*places, "DATASETS = ('my_chatt',)"])
        own_data.use(tmp_path)
        configuration.parse(["runs/eval.gin"], [*places, "DATASETS = ('my_chat', 'rte')"])
        gin.clear_config()


def test_of_the_catalog_nothing_is_held_out_for_sure_from_an_unknown_cluster(runs, prepared):
    own_data.use(prepared)
    tuned = {name: Manifest.load(runs / name) for name in ("say", "my_chat")}
    status = {name: labels.status(catalog.dataset("rte"), manifest.tuning) for name, manifest in tuned.items()}
    assert status == {"say": labels.HELD_OUT, "my_chat": labels.UNKNOWN}
    # Its cluster was seen anyway.
    assert labels.status(catalog.dataset("wmt14_enfr"), tuned["my_chat"].tuning) == labels.SEEN
    assert evaluator.held_out(tuned["my_chat"]) == []
    assert "my_chat" not in {record.name for record in catalog.mixture("flan")}


def test_the_audit_compares_them_and_takes_no_unknown_cluster_for_seen(runs, prepared):
    own_data.use(prepared)
    found = audited.audit([str(runs / "my_chat")], ["moods", "my_chat", "say"], Places(str(prepared)))
    rows = {row["evaluated"]: row for row in found["rows"] if row["evaluated"] != audited.ALL}
    assert {name: row["name"] for name, row in rows.items()} == {"moods": "", "my_chat": "dataset", "say": "dataset"}
    assert all(row["seen"] == 0 for row in rows.values())


def test_what_is_held_back_shares_no_prompt_with_training(prepared):
    """Both turns of a conversation are on the same side, and their ids and hashes stand with the tokens."""
    own_data.use(prepared)
    store = token_store.TokenStore.open(prepared, ByteTokenizer().fingerprint)
    for name, whole in (("moods", 64), ("my_chat", 96), ("say", 64 + 8)):
        tokens = store[name]
        kept = {one.decode() for one in tokens.records.ids.tolist()}
        rows = [row for split in ("dev", "test") for row in example_files.read(prepared, name, split)]
        assert len(rows) + tokens.num_records == whole, name
        assert not {row["id"].partition("#")[0] for row in rows} & {one.partition("#")[0] for one in kept}, name
        assert not {row["hash"].encode() for row in rows} & set(tokens.records.hashes.tolist())
    assert len(example_files.read(prepared, "say", "test")) == 8  # the task's own split


def test_the_loss_is_on_the_turns_of_the_assistant(prepared):
    tokens = token_store.TokenStore.open(prepared, ByteTokenizer().fingerprint)["my_chat"]
    texts = [tuple(ByteTokenizer().decode(part) for part in tokens.example(number)) for number in range(2)]
    first = texts[0][1]
    before = texts[0][0].removesuffix("\n\nAssistant:")
    assert texts[1] == (f"{before}\n\nAssistant: {first}\n\nUser: Again\n\nAssistant:", f"{first}!")
    assert first in WORDS


def test_browse_shows_them(prepared, capsys):
    for asked in (["--mixture=my_chat"], ["--mixture=my_chat", "--row=0"], ["--dataset=my_chat"]):
        browse.main([*asked, f"--prepared={prepared}"])
    said = capsys.readouterr().out
    assert "unknown" in said and "Assistant:" in said
