import contextlib
import io
import json
import os
import subprocess

import pytest

from flan_jax import catalog, prepare
from flan_jax.data import preparation, token_store, vocabularies
from flan_jax.data.preparation import Options
from flan_jax.data.prepare_datasets import prepare_datasets

pytestmark = pytest.mark.slow

BYTES = vocabularies.ByteTokenizer()
NAMES = ("arc_easy", "squad_v1")  # arc_easy drops records, so a part's numbers depend on the parts before it
RUNNER = "runner=DirectRunner"


@pytest.fixture(scope="module", autouse=True)
def beam():
    """The room that runs Beam, which only these tests import: it takes 5 s."""
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    from flan_jax.data import beam

    return beam


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAN_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.parametrize("style", ["instructions", "without_options_2_shots"])
def test_the_store_is_byte_for_byte_that_of_prepare(beam, tmp_path, style):
    chosen = [catalog.dataset(name) for name in NAMES]
    options = Options(0, 400, 60, preparation.styles.parse(style))  # tight, so that some are trimmed or left out
    prepare_datasets(chosen, "samples", BYTES, tmp_path / "one", options)
    outcomes = beam.prepare(
        chosen, "samples", "bytes", tmp_path / "beam", options, str(tmp_path / "shards"), RUNNER, part_size=5
    )
    assert [o.dataset for o in outcomes] == list(NAMES) and not any(o.skipped for o in outcomes)
    assert sum(o.figures["trimmed"] + o.figures["overlong"] for o in outcomes) > 0
    assert files(tmp_path / "beam") == files(tmp_path / "one")
    assert len(list((tmp_path / "shards").rglob("*.npz"))) > 2 * len(NAMES)


def test_what_is_there_is_kept_and_a_lost_shard_is_made_again(beam, tmp_path):
    chosen = [catalog.dataset("rte")]
    arguments = (chosen, "samples", "bytes", tmp_path / "to", Options(), str(tmp_path / "shards"), RUNNER)
    beam.prepare(*arguments, part_size=5)
    before = files(tmp_path / "to")
    (kept,) = beam.prepare(*arguments, part_size=5)
    assert kept.figures["kept"] and files(tmp_path / "to") == before
    shards = sorted((tmp_path / "shards").rglob("*.npz"))
    times = {path: path.stat().st_mtime_ns for path in shards}
    shards[0].unlink()
    for path in (token_store.folder_of(tmp_path / "to", BYTES.fingerprint) / "rte").iterdir():
        path.unlink()
    (again,) = beam.prepare(*arguments, part_size=5)
    assert not again.figures["kept"] and files(tmp_path / "to") == before
    assert {path for path in shards if path.stat().st_mtime_ns != times[path]} == {shards[0]}


def test_from_the_command_line_dead_sources_are_named(tmp_path, capsys):
    (tmp_path / "data" / "rte").mkdir(parents=True)
    sample = preparation.sources.samples_folder() / "rte" / "train.jsonl"
    os.link(sample, tmp_path / "data" / "rte" / "train.jsonl")
    arguments = ["--datasets=rte,sst2", f"--data={tmp_path / 'data'}", f"--to={tmp_path / 'to'}"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        prepare.main([*arguments, f"--shards={tmp_path / 'shards'}", f"--beam_pipeline_options={RUNNER}", "--json"])
    report = json.loads(printed.getvalue().splitlines()[-1])
    assert [d["dataset"] for d in report["datasets"]] == ["rte"]
    assert [s["dataset"] for s in report["skipped"]] == ["sst2"]
    with pytest.raises(SystemExit):
        prepare.main([*arguments, f"--shards={tmp_path / 'shards'}"])
    assert "Beam needs both --shards" in capsys.readouterr().err


@pytest.mark.parametrize("full", ["shards", "store"])
def test_a_full_disk_ends_in_one_line_and_the_command_goes_on(full, make_disk, tmp_path, capfd):
    disk = make_disk(24)
    places = {"shards": tmp_path / "shards", "store": tmp_path / "store", full: disk / "x"}
    arguments = ["--datasets=arc_easy,squad_v1", f"--to={places['store']}", f"--shards={places['shards']}"]
    arguments.append(f"--beam_pipeline_options={RUNNER}")
    with pytest.raises(SystemExit) as stopped:
        prepare.main(arguments)
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("flan_jax: ")]
    assert stopped.value.code == 2 and "no space left on device; make room" in line and str(disk) in line
    assert "Traceback" not in out + err, err
    assert not [path for path in disk.rglob(".*") if path.suffix != ".lock"]
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    prepare.main(arguments)
    assert {path.parent.name for path in places["store"].rglob("info.json")} == {"arc_easy", "squad_v1"}
