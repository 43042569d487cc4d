"""What lies in a user's folder of data and is not used is said, by every command that reads the folder, and why."""

import json

import pytest

from flan_jax import browse, catalog, export, prepare
from flan_jax.data import left_out, sources
from flan_jax.data.local_rows import BadRow
from flan_jax.splits import resolve_splits


def slices(record, **sizes):
    return resolve_splits(record, sizes)


@pytest.mark.parametrize(
    ("name", "sizes", "says"),
    [
        ("rte", {"train": 10, "validation": 4}, []),
        (
            "rte",
            {"train": 10, "validation": 4, "test": 3},
            ["rte/test.jsonl, 3 rows that no split takes (train from train, dev from train, test from validation)"],
        ),
        (
            "story_cloze",
            {"train": 1, "validation": 8, "test": 4},
            [
                "story_cloze/train.jsonl, 1 row that no split takes "
                "(train from validation, dev from validation, test from test)"
            ],
        ),
        (
            "rte",
            {"train": 40_000, "validation": 4},
            ["9,800 of 40,000 rows of rte/train.jsonl (train takes 30,000, dev takes 200)"],
        ),
        (
            "anli_r1",
            {"train": 9, "validation": 1000, "test": 5},
            ["800 of 1,000 rows of anli_r1/validation.jsonl (dev takes 200)"],
        ),
        ("wsc273", {"train": 7, "test": 5}, ["wsc273/train.jsonl, 7 rows that no split takes (test from test)"]),
        # Two variants share a folder: what the other reads is not said.
        ("mnli_matched", {"train": 9, "validation_matched": 4, "validation_mismatched": 4}, []),
        (
            "mnli_mismatched",
            {"train": 9, "validation_matched": 4, "validation_mismatched": 4, "test": 2},
            [
                "mnli/test.jsonl, 2 rows that no split takes "
                "(train from train, dev from train, test from validation_mismatched and validation_matched)"
            ],
        ),
        # Three share a file, and each takes another part of it.
        (
            "fix_punct",
            {"train": 200_000},
            ["106,800 of 200,000 rows of fix_punct/train.jsonl (train takes 30,000, dev takes 200, test takes 3,000)"],
        ),
        ("winogrande", {"train": 9, "validation": 4}, []),  # train stands in for train_xl
        (
            "winogrande",
            {"train": 9, "train_xl": 9, "validation": 4},
            [
                "winogrande/train.jsonl, 9 rows that no split takes "
                "(train from train_xl, dev from train_xl, test from validation)"
            ],
        ),
    ],
)
def test_rows_that_no_split_takes(name, sizes, says, tmp_path):
    record = catalog.dataset(name)
    files = [tmp_path / record.folder / f"{split}.jsonl" for split in sizes]
    assert left_out.unread_rows(record, files, sizes, slices(record, **sizes)) == says


ODD = ("dev", "train_old", "train (1)", "Train", "train-00000-of-00001", "results")  # .jsonl


@pytest.mark.parametrize(
    ("dataset", "own", "splits"),
    [
        ("rte", ("train", "validation", "test"), "test, train, validation"),
        ("winogrande", ("train", "train_xl", "validation"), "test, train, train_xl, validation"),
        (  # two variants share a folder
            "mnli_matched",
            ("train", "validation_matched", "validation_mismatched"),
            "test, train, validation, validation_matched, validation_mismatched",
        ),
    ],
)
def test_only_the_files_of_splits_are_data(dataset, own, splits, tmp_path):
    record = catalog.dataset(dataset)
    folder = tmp_path / record.folder
    folder.mkdir()
    for name in (*own, *ODD, ".train", "._train"):
        (folder / f"{name}.jsonl").write_text("{}")
    for name in ("train.csv", "README.md", "TRAIN.JSONL"):
        (folder / name).write_text("")
    (folder / "dev.old").mkdir()
    given, others = left_out.split_files(record, folder)
    assert [file.stem for file in given] == sorted(own)
    assert left_out.foreign_files(record, others) == [
        *(f"{record.folder}/{name}.jsonl, whose name is no split ({splits})" for name in sorted(ODD)),
        f"{record.folder}/TRAIN.JSONL, which does not end in .jsonl",
        f"{record.folder}/train.csv, which does not end in .jsonl",
    ]


def test_lines():
    rows = [str(BadRow("a/train.jsonl", number, "broken")) for number in range(1, 9)]
    other = str(BadRow("b/train.jsonl", 3, "broken"))
    found = list(left_out.lines([*rows, *rows, other], ["a note", "another", "a note"]))
    assert found == [*rows[:5], "3 more rows of a/train.jsonl", other, "a note", "another"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("rte", "story_cloze"):
        (folder / name).mkdir()
        samples = sources.samples_folder() / name
        for split in ("train", "validation", "test"):
            file = samples / ("validation.jsonl" if split == "test" or name == "story_cloze" else f"{split}.jsonl")
            lines = [line for line in file.read_text().splitlines() if json.loads(line).get("label") != -1]
            (folder / name / f"{split}.jsonl").write_text("\n".join([*lines[:4], "{broken"]) + "\n")
    return folder


SAID = {
    "rte": ["rte/test.jsonl, ", "that no split takes", "rte/test.jsonl line ", "not JSON"],
    "story_cloze": ["story_cloze/train.jsonl, ", "that no split takes (train from validation, "],
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("command", ["prepare", "check", "browse", "browse templates", "export"])
def test_every_command_says_so(command, name, data, tmp_path, capsys):
    main, arguments = {
        "prepare": (prepare.main, [f"--datasets={name}", f"--to={tmp_path / 'to'}", "--workers=1"]),
        "check": (prepare.main, [f"--datasets={name}", "--check"]),
        "browse": (browse.main, [f"--dataset={name}", "--split=test"]),
        "browse templates": (browse.main, [f"--templates={name}"]),
        "export": (export.main, [f"--name={name}", f"--to={tmp_path / 'to.jsonl'}"]),
    }[command]
    main([*arguments, f"--data={data}"])
    printed = capsys.readouterr()
    said = [line for line in (printed.out + printed.err).splitlines() if line.startswith("left out: ")]
    for part in SAID[name]:
        assert any(part in line for line in said), said
    assert len(said) == len(set(said))


@pytest.mark.parametrize("command", ["check", "browse", "export"])
def test_it_is_in_the_json_too(command, data, tmp_path, capsys):
    main, arguments = {
        "check": (prepare.main, ["--datasets=rte", "--check"]),
        "browse": (browse.main, ["--dataset=rte"]),
        "export": (export.main, ["--name=rte", f"--to={tmp_path / 'to.jsonl'}"]),
    }[command]
    main([*arguments, f"--data={data}", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    said = found["sources"][0]["notes"] if command == "check" else found["left_out"]
    assert any("rte/test.jsonl, 4 rows that no split takes" in line for line in said), found


@pytest.mark.parametrize("command", ["check", "browse", "export"])
def test_of_the_samples_nothing_is_said(command, tmp_path, capsys):
    main, arguments = {
        "check": (prepare.main, ["--datasets=rte", "--check"]),
        "browse": (browse.main, ["--dataset=rte"]),
        "export": (export.main, ["--name=rte", f"--to={tmp_path / 'to.jsonl'}"]),
    }[command]
    main(arguments)
    printed = capsys.readouterr()
    assert "left out" not in printed.out + printed.err
