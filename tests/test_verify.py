import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from flan_jax import verify
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import examples as example_files
from flan_jax.errors import FlanError
from flan_jax.verification import checks
from flan_jax.verification.request import Request

pytestmark = pytest.mark.slow

FEW = ("--examples=2", "--inputs=400", "--targets=64")


@pytest.fixture
def run(verifiable, capsys):
    """(exit status, lines of standard output, standard error)."""

    def run(*arguments, kind="decoder"):
        folders = [f"--checkpoint={verifiable[kind]}", f"--prepared={verifiable['prepared']}", *FEW]
        status = 0
        try:
            verify.main([*folders, *arguments])
        except SystemExit as stopped:
            status = stopped.code
        shown = capsys.readouterr()
        return status, shown.out.splitlines(), shown.err

    return run


def test_a_line_a_check_and_json_last(run, verifiable):
    status, lines, _ = run("--json", "--seed=1")
    assert status == 0
    assert [line.split(":")[0].split() for line in lines[1:8]] == [
        ["skipped" if name == "huggingface" else "ok", name] for name in checks.CHECKS
    ]
    assert lines[0].startswith(f"{verifiable['decoder']} step 3; rows of flan in ")
    assert lines[8] == "held: 6, failed: 0, skipped: 1"
    found = json.loads(lines[9])
    assert found["ok"] and list(found["checks"]) == list(checks.CHECKS) and len(lines) == 10
    assert found["checks"]["rows"]["compared"]["examples"] == 2
    assert found["checks"]["rows"]["place"].keys() >= {"dataset", "record", "template", "step", "row"}


def test_a_check_that_fails_is_exit_status_1(run, monkeypatch):
    from flan_jax.scoring import trees

    sound = trees._separated
    monkeypatch.setattr(trees, "_separated", lambda *a: sound(*a[:-1], False))
    status, lines, _ = run("--checks=trees,stream", "--json")
    assert status == 1
    assert lines[1].startswith("ok      stream") and lines[2].startswith("FAILED  trees")
    assert lines[3] == "held: 1, failed: 1, skipped: 0"
    assert json.loads(lines[4])["ok"] is False


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_some_checks_on_one_dataset(run, kind):
    status, lines, _ = run("--checks=rows,trees", "--datasets=copa", "--json", kind=kind)
    found = json.loads(lines[-1])["checks"]
    assert status == 0 and list(found) == ["rows", "trees"]
    assert {check["place"]["dataset"] for check in found.values()} == {"copa"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--examples=0"], "argument --examples: 0: it has to be"),
        (["--microbatches=0"], "argument --microbatches: 0: it has to be"),
        (["--seed=-1"], "argument --seed: -1: it has to be"),
        ([f"--seed={2**32}"], "argument --seed: 4294967296: it can be"),
        (["--targets=0"], "argument --targets: 0: it has to be"),
        (["--inputs=20", "--targets=2"], "no example of"),
        (["--step=4"], "no step 4 in"),
        (["--checks=rowz"], "unknown check 'rowz': did you mean 'rows'"),
        (["--mixture=flam"], "unknown mixture 'flam'"),
        (["--mixture=flan_no_template"], "and style no_template"),
        (["--mixture=flan_without_commonsense", "--datasets=copa"], "unknown dataset of mixture"),
        (["--datasets=rte"], "dataset 'rte' is not in"),
        (["--datasets=cop"], "did you mean 'copa'"),
        (["--attention=fast"], "it can be xla or"),
        (["--attention=cudnn"], "computes in bfloat16"),
        (["--huggingface=nowhere", "--checks=huggingface"], "there is no config.json"),
        (["--checks=huggingface"], "not everything that was asked for could be checked. huggingface: the model came"),
        (["--checkpoint=nowhere"], "no checkpoint at nowhere"),
        ([f"--checkpoint={__file__}"], f"no checkpoint at {__file__}"),
        (["--prepared=nowhere"], "no folder nowhere of prepared data: run python -m"),
    ],
)
def test_bad_input_is_one_line(run, arguments, message):
    status, _, error = run(*arguments)
    assert status == 2
    line = error.strip().splitlines()[-1]
    assert line.startswith("flan_jax: ") and message in line


@pytest.mark.parametrize(
    "wrong", [{"examples": 0}, {"microbatches": 1.5}, {"seed": -1}, {"lengths": {"inputs": 1, "targets": 8}}]
)
def test_a_request_has_the_same_limits(wrong):
    with pytest.raises(FlanError, match="--(examples|microbatches|seed|inputs) is .*: it has to be a whole number"):
        Request("somewhere", "prepared", **wrong)


def test_a_damaged_checkpoint_is_refused(run, verifiable, tmp_path):
    shutil.copytree(verifiable["decoder"], tmp_path / "damaged")
    largest = max((tmp_path / "damaged").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 8
    largest.write_bytes(content)
    status, lines, error = run(f"--checkpoint={tmp_path / 'damaged'}")
    assert status == 2 and lines == [] and "step 3 of" in error


def test_a_record_that_its_template_does_not_fit_is_named(run, verifiable, tmp_path):
    shutil.copytree(verifiable["prepared"], tmp_path / "prepared")
    file = tmp_path / "prepared" / "examples" / "copa" / "test.jsonl"
    dev = [(row["id"], row["fields"]) for row in example_files.read(tmp_path / "prepared", "copa", "dev")]
    test = [("copa 7", {"options": ["a", "b"], "answer": "a"})]
    example_files.write_folder(file.parent, {"test": test, "dev": dev})
    status, _, error = run(f"--prepared={tmp_path / 'prepared'}", "--checks=trees", "--datasets=copa")
    assert status == 2 and f"{file}, record 'copa 7': " in error and "prepare 'copa' again with --overwrite" in error
    example_files.write_folder(file.parent, {"test": [], "dev": dev})  # the dev examples will do
    status, lines, _ = run(f"--prepared={tmp_path / 'prepared'}", "--checks=trees", "--datasets=copa")
    assert status == 0 and "split dev" in lines[1]


def test_kernels_of_other_platforms_give_way(run, verifiable, tmp_path):
    for kind in ("splash", "cudnn"):
        shutil.copytree(verifiable["decoder"], tmp_path / kind)
        manifest = Manifest.load(tmp_path / kind)
        model = {**manifest.model, "attention": kind, "dtype": "bfloat16"}
        dataclasses.replace(manifest, model=model).save(tmp_path / kind)
        assert run(f"--checkpoint={tmp_path / kind}", "--checks=rows")[0] == 0


def test_data_without_options_or_texts(run, verifiable, tmp_path):
    shutil.copytree(verifiable["prepared"], tmp_path / "prepared")
    shutil.rmtree(tmp_path / "prepared" / "examples")
    status, lines, error = run(f"--prepared={tmp_path / 'prepared'}", "--checks=stream,trees")
    assert status == 2 and lines[2].startswith("skipped trees") and "prepare a dataset of classification" in error
    status, lines, _ = run(f"--prepared={tmp_path / 'prepared'}")
    assert status == 0 and lines[-1] == "held: 5, failed: 0, skipped: 2"


def test_without_tensorflow_and_torch(verifiable):
    code = (
        "import sys; from flan_jax import verify; verify.main(sys.argv[1:]); "
        "sys.exit(3 if {'tensorflow', 'torch', 'transformers'} & set(sys.modules) else 0)"
    )
    folders = [f"--checkpoint={verifiable['decoder']}", f"--prepared={verifiable['prepared']}", *FEW]
    subprocess.run([sys.executable, "-c", code, *folders, "--checks=stream,rows"], check=True)
