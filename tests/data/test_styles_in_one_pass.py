"""Several styles of a dataset are prepared in one pass over its source, and are what each would be by itself."""

import collections
import dataclasses

import pytest

from flan_jax import catalog, prepare, styles
from flan_jax.data import preparation, sources, token_store
from flan_jax.data.prepare_datasets import prepare_datasets
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError

BYTES = ByteTokenizer()
FOUR = tuple(map(styles.parse, ("instructions", "2_shots", "without_options", "lettered_options_1_shots")))


@pytest.fixture
def reads(monkeypatch):
    """Counts the passes over each split, and the openings of a source."""
    counts = collections.Counter()
    read, opened = sources.OpenSource.read, sources.open_source

    def counted(self, split, *arguments, **more):
        counts[split] += 1
        return read(self, split, *arguments, **more)

    def counted_open(*arguments):
        counts["opened"] += 1
        return opened(*arguments)

    monkeypatch.setattr(sources.OpenSource, "read", counted)
    monkeypatch.setattr(sources, "open_source", counted_open)
    return counts


def test_one_pass_over_the_source_however_many_styles(tmp_path, reads):
    cb = catalog.dataset("cb")
    options = preparation.Options(max_input_length=370)  # examples of some styles are cut, and of others not
    for style in FOUR:
        reads.clear()
        prepare_datasets([cb], "samples", BYTES, tmp_path / "apart", dataclasses.replace(options, style=style))
        assert reads["train"] == 1  # the exemplars of evaluation are from the same reading
    reads.clear()
    result = prepare_datasets([cb], "samples", BYTES, tmp_path / "all", options, styles={"cb": FOUR})
    assert (reads["train"], reads["opened"]) == (1, 1)
    apart, together = (
        {one.name: token_store.TokenStore.open(tmp_path / name, BYTES.fingerprint, one)["cb"].info for one in FOUR}
        for name in ("apart", "all")
    )
    assert apart == together  # with the digests of all files, and the counts of what was cut
    assert len({info["digest"] for info in together.values()}) == len(FOUR)
    assert len({info["trimmed"] for info in together.values()}) > 1
    assert len({info["records_digest"] for info in together.values()}) == 1
    (figures,) = result["datasets"]
    assert {name: one["num_tokens"] for name, one in figures["styles"].items()} == {
        name: info["num_tokens"] for name, info in together.items()
    }


def test_only_what_is_not_there_is_read_for(tmp_path, reads):
    rte = catalog.dataset("rte")
    prepare_datasets([rte], "samples", BYTES, tmp_path, preparation.Options(style=FOUR[1]))
    reads.clear()
    result = prepare_datasets([rte], "samples", BYTES, tmp_path, preparation.Options(), styles={"rte": FOUR[:2]})
    kept = {name: one["kept"] for name, one in result["datasets"][0]["styles"].items()}
    assert kept == {"instructions": False, "2_shots": True} and reads["train"] == 1
    reads.clear()
    prepare_datasets([rte], "samples", BYTES, tmp_path, preparation.Options(), styles={"rte": FOUR[:2]})
    assert reads["train"] == 0


def test_prepare_takes_styles_and_the_file_of_a_mixture(tmp_path, capsys):
    (tmp_path / "mine.json").write_text(
        '{"parts": [{"of": "rte", "style": "no_template"}, {"of": "rte"}, {"of": "cb", "style": "without_options"}]}'
    )
    arguments = [f"--mixture={tmp_path}/mine.json", f"--to={tmp_path}/p", "--max_target_length=512"]
    prepare.main(arguments)
    said = capsys.readouterr().out
    assert "rte:no_template" in said and "rte:instructions" in said and "are filled to" in said
    assert "cb:without_options" not in said
    there = sorted(str(path.relative_to(tmp_path / "p" / "tokens")) for path in (tmp_path / "p" / "tokens").glob("*/*"))
    there = [name.removeprefix(BYTES.fingerprint[:16]) for name in there if "lock" not in name]
    assert there == ["/rte", "_no_template/rte", "_without_options/cb"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--style=5_shots,instructions_5_shots"], "the style '5_shots' is there twice"),
        (["--style=5_shots,,instructions"], "a style is missing between commas"),
        (["--style=5_shots,instrutions"], "unknown style 'instrutions': did you mean 'instructions'"),
        (["--style=instructions,5_shots", "--mixture=flan_no_template"], "name different styles"),
        (["--style=instructions,5_shots", "--shards=s", "--beam_pipeline_options=x"], "take one style at a time"),
        (["--mixture={'mixture': 'rte', 'weights': {'rte': 0}}"], "WEIGHTS take out all"),
        (["--mixture={'mixture': 'rte', 'weights': {'cb': 0}}"], "WEIGHTS names 'cb'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, arguments, line, capsys):
    with pytest.raises(SystemExit) as caught:
        prepare.main(
            [*(["--datasets=rte"] if "mixture" not in arguments[-1] else []), f"--to={tmp_path}/p", *arguments]
        )
    said = capsys.readouterr().err.strip()
    assert caught.value.code == 2 and line in said and "\n" not in said
    assert not (tmp_path / "p").exists()


def test_styles_of_each_dataset():
    rte, cb = catalog.dataset("rte"), catalog.dataset("cb")
    assert prepare.chosen_styles("", "", [rte]) == {"rte": (styles.PAPER,)}
    assert prepare.chosen_styles("5_shots, no_template", "", [rte, cb])["cb"] == tuple(
        map(styles.parse, ("5_shots", "no_template"))
    )
    assert prepare.chosen_styles("", "rte_5_shots", [rte, cb]) == dict.fromkeys(
        ("rte", "cb"), (styles.parse("5_shots"),)
    )
    with pytest.raises(FlanError, match="unknown style"):
        prepare.chosen_styles("x", "", [rte])
