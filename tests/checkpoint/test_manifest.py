import dataclasses
import json

import pytest

from flan_jax import configuration
from flan_jax.checkpoint.manifest import DECLARED, TUNED, UNKNOWN, UNTUNED, Manifest
from flan_jax.data.chat import Chat
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError

SMALL, BYTES = configuration.model_config("tiny"), ByteTokenizer()


def _manifest(status=UNTUNED, clusters=()):
    return Manifest.create(SMALL, BYTES, status, clusters, {"imported": "here"})


def test_manifest_survives_the_disk(tmp_path):
    manifest = _manifest(DECLARED, ["sentiment", "nli"])
    manifest.save(tmp_path / "deep" / "folder")
    assert Manifest.load(tmp_path / "deep" / "folder") == manifest
    assert [p.name for p in (tmp_path / "deep" / "folder").iterdir()] == ["manifest.json"]
    assert manifest.model == SMALL.to_dict()
    assert manifest.vocabulary.items() >= {"kind": "bytes", "fingerprint": BYTES.fingerprint}.items()
    assert manifest.history[0]["imported"] == "here" and "when" in manifest.history[0]


@pytest.mark.parametrize(
    ("status", "clusters", "known"),
    [
        (UNTUNED, (), frozenset()),
        (DECLARED, ("nli", "sentiment"), frozenset({"nli", "sentiment"})),
        (UNKNOWN, (), None),
    ],
)
def test_what_is_known_of_earlier_tuning(status, clusters, known):
    manifest = _manifest(status, clusters)
    assert manifest.trained_clusters == known and manifest.separator is None
    tuned = manifest.inherit(["snli"], ["nli"], "eos", {"tuned on": "snli"})
    assert tuned.trained_clusters == (None if known is None else known | {"nli"})
    assert tuned.tuning["status"] == (UNKNOWN if known is None else TUNED)
    assert manifest.trained_clusters == known  # the original is as it was


def test_tuning_accumulates():
    manifest = _manifest(DECLARED, ["translation"])
    for datasets, clusters in ((["sst2", "bool_q"], ["sentiment", "reading_comprehension"]), (["sst2"], ["sentiment"])):
        manifest = manifest.inherit(datasets, clusters, "eos", {"tuned on": datasets})
    assert manifest.tuning == {
        "status": TUNED,
        "datasets": ["bool_q", "sst2"],
        "clusters": ["reading_comprehension", "sentiment", "translation"],
        "text": [],
    }
    assert [entry.get("tuned on") for entry in manifest.history] == [None, ["sst2", "bool_q"], ["sst2"]]
    assert [entry.get("clusters") for entry in manifest.history[1:]] == [
        ["sentiment", "reading_comprehension"],
        ["sentiment"],
    ]
    assert manifest.separator == "eos"


def test_digests_differ():
    first = _manifest()
    others = [
        first.inherit(["sst2"], ["sentiment"], "eos", {}),
        dataclasses.replace(first, model=first.model | {"num_layers": 4}),
        dataclasses.replace(first, vocabulary={}),
        _manifest(UNKNOWN),
    ]
    digests = {m.digest() for m in (first, dataclasses.replace(first), *others)}
    assert len(digests) == 1 + len(others)


def test_entries_of_another_kind_are_one_line(tmp_path):
    """They were tracebacks where they were read."""
    Manifest.create(SMALL, BYTES, UNTUNED).save(tmp_path)
    path = tmp_path / "manifest.json"
    whole = json.loads(path.read_text())
    del whole["digest"]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(whole).encode())  # as some editors save it
    assert Manifest.load(tmp_path).tuning["status"] == UNTUNED
    for change in (
        {"tuning": "x"},
        {"tuning": {"status": "tuned", "clusters": []}},
        {"tuning": {"status": "tuned", "clusters": [], "datasets": [1]}},
        {"tuning": {"status": 1, "clusters": [], "datasets": []}},
        {"tuning": {"status": "tuned", "clusters": [], "datasets": [], "text": ["x"]}},
        {"vocabulary": {"kind": "bytes", "fingerprint": True}},
        {"vocabulary": []},
        {"model": None},
        {"separator": 7},
        {"history": ["x"]},
        {"history": None},
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(FlanError, match=r"manifest\.json is broken .*restore it or convert") as caught:
            Manifest.load(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {}}', '{"history": [], "colour": 1}', '{"history": 3}'])
def test_a_broken_manifest_is_one_line(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FlanError, match=r"manifest\.json is broken") as caught:
        Manifest.load(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def _with_chat(folder):
    templates = {"default": "{{ bos_token }}\r\n{{ messages[0].content }}", "tool use": "{{ messages | length }}\u2028"}
    tokenizer = ByteTokenizer(stop_ids=(3, 200), chat=Chat(templates, {"bos_token": "<s>"}))
    Manifest.create(SMALL, tokenizer, UNTUNED).save(folder)
    tokenizer.save(folder / "vocabulary")
    assert Manifest.load(folder).load_vocabulary(folder).stop_ids == (1, 3, 200)
    return folder / "vocabulary"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("chat_template.jinja", b"messages[0]", b"messages[2]"),
        ("chat_template.jinja", None, None),
        ("chat_template.jinja", b"{{ bos_token }}", b""),
        ("additional_chat_templates/tool use.jinja", b"length", b"lengtj"),
        ("additional_chat_templates/tool use.jinja", None, None),
        ("vocabulary.json", b"200", b"201"),
        ("vocabulary.json", b"3, ", b""),
        ("vocabulary.json", b"<s>", b"<t>"),
    ],
)
def test_what_ends_and_frames_an_answer_is_checked(tmp_path, file, old, new):
    path = _with_chat(tmp_path) / file
    path.unlink() if old is None else path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(FlanError, match="vocabulary is damaged: its chat templates or its end tokens") as caught:
        Manifest.load(tmp_path).load_vocabulary(tmp_path)
    assert "\n" not in str(caught.value)
    values = json.loads((tmp_path / "manifest.json").read_text())  # as the message says for edits on purpose
    del values["digest"], values["vocabulary"]["content"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    Manifest.load(tmp_path).load_vocabulary(tmp_path)


def test_the_text_of_tuning_is_inherited():
    first, second = ({"dataset": name, "digest": name * 2, "records": 3} for name in ("sst2", "rte"))
    once = _manifest().inherit(["sst2"], ["sentiment"], "eos", {}, [first])
    assert once.tuning["text"] == [first]
    twice = once.inherit(["sst2", "rte"], ["nli", "sentiment"], "eos", {}, [first, second])  # resumed: it is the same
    assert twice.tuning["text"] == [first, second] and once.tuning["text"] == [first]
    assert twice.recorded({"converted": "safetensors"}, BYTES).tuning["text"] == [first, second]


def test_a_manifest_without_text_still_loads(tmp_path):
    _manifest().inherit(["sst2"], ["sentiment"], "eos", {}).save(tmp_path)
    values = json.loads((tmp_path / "manifest.json").read_text())
    del values["tuning"]["text"], values["digest"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    old = Manifest.load(tmp_path)
    assert "text" not in old.tuning
    again = old.inherit(["rte"], ["nli"], "eos", {}, [{"dataset": "rte"}])
    assert again.tuning["text"] == [{"dataset": "rte"}] and again.tuning["datasets"] == ["rte", "sst2"]


@pytest.mark.parametrize("files", [("model.safetensors",), ("model-00001-of-00002.safetensors", "tokenizer.json")])
def test_a_folder_of_transformers_is_to_be_taken_in_first(tmp_path, files):
    """One that is downloaded, and has no manifest of ours beside it."""
    for name in ("config.json", *files):
        (tmp_path / name).write_text("{}")
    with pytest.raises(
        FlanError, match="is in the format of transformers: take it in first, with python -m flan_jax.c"
    ):
        Manifest.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FlanError, match="no checkpoint at .*: manifest.json is missing"):
        Manifest.load(tmp_path)
