import collections
import json
import shutil

import pytest
import seqio

from flan_jax import catalog, export
from flan_jax.data import sources, tasks

pytestmark = pytest.mark.slow

LENGTHS = {"inputs": 20_000, "targets": 2_000}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAN_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def run(to, *arguments):
    export.main([f"--to={to}", *arguments])
    return lines_of(to)


@pytest.mark.parametrize(
    "name",
    [
        "flan_rte",
        "flan_rte_t3",
        "flan_squad_v1",
        "flan_rte_no_template",
        "flan_rte_shuffled_options_2_shots",
        "flan_rte_lettered_options",
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_lines_are_what_seqio_reads(tmp_path, name, split):
    tasks.register(names=[] if name.endswith("_t3") or name in ("flan_rte", "flan_squad_v1") else [name])
    task = seqio.TaskRegistry.get(name)
    found = run(tmp_path / "out.jsonl", f"--name={name}", f"--split={split}")
    rows = list(task.get_dataset(LENGTHS, split, shuffle=False).as_numpy_iterator())[: len(found)]  # epoch 0
    record = catalog.mixture("rte" if "rte" in name else "squad_v1")[0]
    assert len(found) == sources.open_source(record, "samples").splits[split].size
    for line, row in zip(found, rows, strict=True):
        assert line["inputs"] == row["inputs_pretokenized"].decode()
        assert line["targets"] == row["targets_pretokenized"].decode()
        assert line["record_id"] == row["record_id"].decode()
        assert (line["dataset"], line["cluster"]) == (record.name, record.cluster)
        assert line["template"] == row["template"]
        assert line.get("options", []) == [o.decode() for o in row.get("options", [])]


def test_later_epochs_take_other_templates(tmp_path):
    found = run(tmp_path / "out.jsonl", "--name=rte", "--epochs=3")
    chosen = collections.defaultdict(list)
    for line in found:
        chosen[line["record_id"]].append(line["template"])
    assert {len(c) for c in chosen.values()} == {3}
    assert any(len(set(c)) > 1 for c in chosen.values())


def test_a_mixture_has_its_members_one_after_another(tmp_path):
    mixture = "flan_first_2_clusters_2_datasets"
    found = run(tmp_path / "out.jsonl", f"--name={mixture}", "--count=4")
    assert [line["dataset"] for line in found] == [d.name for d in catalog.mixture(mixture) for _ in range(4)]


def test_a_dead_source_costs_itself_alone(tmp_path, capsys):
    shutil.copytree(sources.samples_folder() / "rte", tmp_path / "data" / "rte")
    found = run(tmp_path / "out.jsonl", "--name=flan_without_translation", f"--data={tmp_path / 'data'}", "--json")
    assert {line["dataset"] for line in found} == {"rte"}
    captured = capsys.readouterr()
    report = json.loads(captured.out.splitlines()[-1])
    assert len(report["skipped"]) == len(catalog.mixture("flan_without_translation")) - 1
    assert "skipped copa: no folder copa/ of JSONL" in captured.err


def test_standard_output(capsys):
    export.main(["--name=rte", "--to=-", "--count=2"])
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 2


def test_what_fails_leaves_the_old_file(tmp_path, monkeypatch, capsys):
    target = tmp_path / "out.jsonl"
    target.write_text("old\n")

    def broken(*_, **__):
        yield {"inputs": "one"}
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "examples", broken)
    with pytest.raises(SystemExit) as status:
        export.main([f"--to={target}", "--name=rte"])
    assert status.value.code == 130
    assert target.read_text() == "old\n" and [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name=rtee"], "unknown mixture 'rtee': did you mean"),
        (["--name=flan_rte_t10"], "unknown mixture 'flan_rte_t10'"),
        (["--name=wsc273", "--split=train"], "nothing to export: no source of 1 could be read (first: it has no"),
        (["--name=rte_17_shots"], "up to 16 shots"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        export.main([f"--to={tmp_path / 'out.jsonl'}", *arguments])
    assert status.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_records_that_speak_of_options_that_are_not_shown_get_no_line(tmp_path, capsys):
    every = run(tmp_path / "all.jsonl", "--name=flan_arc_easy")
    capsys.readouterr()
    found = run(tmp_path / "out.jsonl", "--name=flan_arc_easy_without_options")
    left = {line["record_id"] for line in every} - {line["record_id"] for line in found}
    assert (
        left
        and f"left out: {len(left)} of arc_easy, which style without_options cannot show" in capsys.readouterr().err
    )
