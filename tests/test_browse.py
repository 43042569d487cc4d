import dataclasses
import html
import json
import re

import pytest

from flan_jax import browse, catalog, own_data, prepare, styles, templates
from flan_jax.data import sources, tasks, vocabularies
from flan_jax.data.builder import ExampleBuilder
from flan_jax.errors import FlanError
from flan_jax.inspection import examples
from flan_jax.inspection.page import page

pytestmark = pytest.mark.slow

RTE = catalog.dataset("rte")
BYTES = vocabularies.ByteTokenizer()


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAN_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        examples._open.cache_clear()
        yield
        examples._open.cache_clear()


@pytest.fixture
def run(capsys):
    def run(*arguments):
        """(the JSON of the last line, what was printed before it)."""
        browse.main([*arguments, "--json"])
        *printed, last = capsys.readouterr().out.splitlines()
        return json.loads(last), "\n".join(printed)

    return run


def test_without_arguments_everything_is_named(run):
    found, printed = run()
    assert found["clusters"] == {c.name: [d.name for d in catalog.datasets(c.name)] for c in catalog.clusters()}
    assert set(found["mixtures"]) == set(catalog.mixture_names())
    words = set(re.findall(r"\w+", printed))
    assert words >= {*catalog.mixture_names(), *(c.name for c in catalog.clusters()), "dataset", "html"}


def test_summary_is_the_papers_table(run):
    found, printed = run("--summary")
    assert found["totals"] == {
        "clusters": 12,
        "datasets": 62,
        "variants": 67,
        "extras": 3,
        "templates": 620,
        "forward": found["totals"]["forward"],
        "inverted": 620 - found["totals"]["forward"],
    }
    papers = {d.paper_dataset: d for d in catalog.datasets() if d.in_flan}
    assert found["totals"]["forward"] == sum(len(d.forward_templates) for d in papers.values())
    assert "62 datasets, 12 clusters, 67 variants and 3 extras, 620 templates" in printed
    for record in catalog.datasets():
        (line,) = [v for v in found["variants"] if v["variant"] == record.name]
        assert (line["forward"] + line["inverted"], line["source"]) == (10, record.source)
        assert record.name in printed


def test_the_linter_finds_nothing_and_reports_what_it_finds(run, monkeypatch):
    monkeypatch.setattr(catalog, "datasets", lambda *_: (RTE, catalog.dataset("squad_v1")))
    found, printed = run("--lint")
    assert found == {"findings": [], "wording": []} and "no findings in the templates of 2 datasets" in printed
    broken = dataclasses.replace(RTE, templates=(templates.Template("{premise} {nothing}"), *RTE.templates[1:]))
    monkeypatch.setattr(catalog, "datasets", lambda *_: (broken,))
    with pytest.raises(SystemExit) as status:
        browse.main(["--lint"])
    assert status.value.code == 1


def test_the_linter_looks_at_one_dataset(run, capsys):
    found, printed = run("--lint=rte")
    assert found == {"findings": [], "wording": []} and printed == "no findings in the templates of rte"
    for name, why in {"rtee": "did you mean 'rte'", "nli": "a cluster: give one of its datasets", "": "empty"}.items():
        with pytest.raises(SystemExit) as status:
            browse.main([f"--lint={name}"])
        assert status.value.code == 2 and why in capsys.readouterr().err


@pytest.mark.parametrize("style", ["", "no_template", "gpt3", "2_shots"])
def test_examples_are_what_the_builder_makes(run, style):
    arguments = [f"--style={style}"] if style else []
    found, printed = run("--dataset=rte", "--count=2", *arguments)
    parsed = styles.parse(style or "instructions")
    source = sources.open_source(RTE, "samples")
    builder = ExampleBuilder(RTE, parsed, pool=tasks.exemplar_pool(RTE, source), tokenizer=BYTES)
    rows = list(tasks.text_records(tasks.records(RTE, source, "train").take(2)))
    for shown, (identity, fields) in zip(found["examples"], rows, strict=True):
        number = int(tasks.choose_template(RTE, identity, 0, 0, style=parsed))
        example = builder.build(identity, fields, number)
        assert (shown["inputs"], shown["targets"]) == (example.inputs, example.targets)
        assert (shown["template"], shown["record_id"]) == (number, identity)
        assert shown["input_tokens"] == len(example.inputs.encode())
        assert shown["options"] == list(example.fields["options"])
        assert f"template {number} ({shown['direction']}) · {identity}" in printed
        assert f"{shown['input_tokens']} + {shown['target_tokens']} tokens" in printed


def test_a_style_at_the_end_of_the_name(run):
    assert run("--dataset=rte_no_template") == run("--dataset=rte", "--style=no_template")


def test_spans_tell_the_record_from_the_template():
    (shown,) = examples.examples("rte", count=1, template=1)
    template = RTE.templates[1]
    assert "".join(s.text for s in shown.inputs if not s.field) == re.sub(r"\{\w+\}", "", template.input)
    assert [s.field for s in shown.inputs if s.field] == templates.placeholders(template.input)


def test_all_templates_of_one_record(run):
    found, printed = run("--templates=copa")
    assert [e["template"] for e in found["examples"]] == list(range(10))
    assert len({e["record_id"] for e in found["examples"]}) == 1
    assert all(f"template {number}" in printed for number in range(10))


def test_a_record_beyond_the_last_is_told():
    with pytest.raises(FlanError, match="copa has no train record 10000, counted from 0: give a smaller number"):
        examples.all_templates("copa", skip=10_000)


def test_a_test_only_dataset_is_shown_too(run):
    found, _ = run("--templates=wsc273")
    assert len(found["examples"]) == 10


def test_a_mixture_of_the_samples(run):
    found, printed = run("--mixture=flan_first_1_clusters_2_datasets")
    assert [m["dataset"] for m in found["members"]] == ["aeslc", "ag_news_subset"]
    for member in found["members"]:
        source = sources.open_source(catalog.dataset(member["dataset"]), "samples")
        assert member["examples"] == source.splits["train"].size
        assert member["dataset"] in printed


def test_a_row_and_a_mixture_that_are_prepared(run):
    mixture = "flan_first_5_clusters_1_datasets"
    row, printed = run("--row=0", f"--mixture={mixture}")
    names = {d.name for d in catalog.mixture(mixture)}
    assert "preparing the bundled samples" in printed
    assert row["filled"] == sum(s["tokens"] for s in row["segments"]) <= row["length"] == 1280
    assert row["target_filled"] == sum(s["target_tokens"] for s in row["segments"]) <= row["target_length"] == 256
    start = 0
    for segment in row["segments"]:
        assert segment["dataset"] in names and segment["start"] == start
        assert segment["tokens"] == len((segment["inputs"] + segment["targets"]).encode()) + 2
        assert segment["targets"][:20].split("\n")[0] in printed
        start += segment["tokens"]
    folder = browse.rows.prepared_samples(mixture)
    again, _ = run("--row=0", f"--mixture={mixture}", f"--prepared={folder}")
    assert again == row
    other, _ = run("--row=9", f"--mixture={mixture}", f"--prepared={folder}")
    assert (other["step"], other["number"]) == (1, 1)
    composed, _ = run(f"--mixture={mixture}", f"--prepared={folder}", "--steps=100")
    assert {m["dataset"] for m in composed["members"]} == names
    assert composed["draws"] == pytest.approx(sum(m["draws"] for m in composed["members"]))
    assert 100 * 8 < composed["draws"] < 100 * 8 * 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=rtee"], "unknown dataset 'rtee': did you mean 'rte'"),
        (["--dataset=rte", "--template=10"], "has templates 0 to 9, not 10"),
        (["--dataset=wsc273"], "dataset wsc273 has no train split in its source; it has test"),
        (["--dataset=rte", "--style=bare"], "unknown style 'bare'"),
        (["--templates=copaa"], "did you mean 'copa'"),
        (["--mixture=flan_withuot_nli"], "did you mean 'flan_without_nli'"),
        (["--mixture=flan", "--steps=3"], "--steps needs --prepared"),
        (["--row=0", "--vocabulary=x"], "needs --prepared"),
        (["--row=-1", "--mixture=flan_rte"], "argument --row: -1: "),
        (["--dataset=rte", "--prepared=nowhere"], "no folder nowhere: --prepared is what python -m flan_jax.prepare"),
        (["--row=0", "--prepared=nowhere"], "no folder nowhere"),
        (["--dataset="], "--dataset is empty"),
        (["--mixture="], "--mixture is empty"),
        (["--dataset=nli"], "'nli' is a cluster: give one of its datasets: .*rte"),
        (["--templates=nli"], "'nli' is a cluster"),
        (["--dataset=rte", "--style=5_shot"], "unknown style '5_shot': did you mean '5_shots'"),
        (["--dataset=RTEE"], "did you mean 'rte'"),
        (["--dataset=" + "x" * 10_000], "unknown dataset 'x{100}\\.\\.\\.'"),
        (["--dataset=rte", "--mixture=flan"], "--mixture does not count with --dataset: leave --mixture out"),
        (["--dataset=rte", "--prepared=nowhere", "--data=tfds"], "--prepared has records of its own: leave --data out"),
        (["--mixture=flan", "--style=5_shots"], "--style does not count with --mixture: leave --style out"),
        (["--templates=rte", "--count=5"], "--count does not count with --templates: leave --count out"),
        (["--summary", "--split=test"], "--split does not count with --summary: leave --split out"),
        (["--row=0", "--steps=5"], "--steps does not count with --row"),
        (["--count=5"], "--count does not count without what it is about, as --dataset or --mixture"),
        (["--prepared=nowhere"], "--prepared does not count without what it is about"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as status:
        browse.main(arguments)
    assert status.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_data_of_ones_own(run, tmp_path, monkeypatch, capsys):
    """Known by their PREPARED_DIR alone, and what is missing is made from where they came."""
    monkeypatch.setenv(own_data.VARIABLE, "")
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "target": "b"}\n')
    prepared = f"--prepared={tmp_path / 'to'}"
    prepare.main([f"--jsonl={tmp_path / 'mine.jsonl'}", f"--to={tmp_path / 'to'}"])
    (shown,), _ = map(lambda one: one if isinstance(one, str) else one["examples"], run("--templates=mine", prepared))
    assert (shown["inputs"], shown["targets"]) == ("a", "b")
    catalogue, _ = run()
    assert "mine" not in json.dumps(catalogue)
    refused = {
        ("--dataset=mine", prepared, "--split=test"): r"prepare --jsonl=mine.jsonl --to=.* --overwrite --test=NUMBER",
        ("--dataset=mine",): "unknown dataset 'mine'",
    }
    for arguments, message in refused.items():
        with pytest.raises(SystemExit):
            browse.main(arguments)
        assert re.search(message, capsys.readouterr().err)
    with pytest.raises(FlanError, match=r"it was prepared from jsonl:mine.jsonl.*give the PREPARED_DIR"):
        own_data.use(tmp_path / "to")
        browse.examples.examples("mine")


# ------------------------------------------------------------------------------------------------------------ page


def embedded(text):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(data)


def test_the_page_has_every_template_and_stands_alone(run, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "datasets", lambda *_: (RTE, catalog.dataset("squad_v1")))
    found, _ = run(f"--html={tmp_path / 'deep' / 'page.html'}")
    text = (tmp_path / "deep" / "page.html").read_text("utf-8")
    assert found["bytes"] == len(text.encode())
    assert not re.search(r"""(src|href)=["']|@import|url\(|https?://""", text.split('id="data"')[0])
    rte, squad = embedded(text)
    for record, entry in ((RTE, rte), (catalog.dataset("squad_v1"), squad)):
        assert (entry["cluster"], entry["variants"]) == (record.cluster, [record.name])
        assert [(t["input"], t["target"], t["direction"]) for t in entry["templates"]] == [
            (t.input, t.target, t.direction) for t in record.templates
        ]
        assert all(len(t["examples"]) == 2 for t in entry["templates"])


def test_variants_with_the_same_templates_share_a_place_on_the_page():
    (anli,) = embedded(page(["anli_r1", "anli_r2", "anli_r3"]))
    assert anli["variants"] == ["anli_r1", "anli_r2", "anli_r3"]


def test_no_record_can_break_out_of_the_page(monkeypatch):
    evil = "</script><script>alert(1)</script><!--" + "x" * 5_000
    template = templates.Template("{premise}", "{answer}")
    shown = dataclasses.replace(
        examples.all_templates("rte")[0],
        inputs=(examples.Span(evil, "premise"),),
        targets=(examples.Span(html.unescape("&lt;b&gt;"), None),),
    )
    monkeypatch.setattr("flan_jax.inspection.page.all_templates", lambda *_, **__: [shown])
    monkeypatch.setattr(catalog, "dataset", lambda _: dataclasses.replace(RTE, templates=(template,)))
    text = page(["rte"])
    assert text.count("</script>") == 2  # the page's own
    (text_of_record, field), *_ = embedded(text)[0]["templates"][0]["examples"][0]["inputs"]
    assert text_of_record.startswith(evil[:40]) and "more characters]" in text_of_record and field == "premise"


def test_what_a_style_cannot_show_is_not_shown(home):
    plain, without = (examples.examples(f"arc_easy{style}", count=9) for style in ("", "_without_options"))
    of_options = re.compile("Which of (these|the following)")
    asks = {i for i, f in examples.records("arc_easy", "train") if of_options.match(f["question"])}
    shown = [{one.record_id for one in some} for some in (plain, without)]
    assert len(plain) == len(without) == 9 and shown[0] & asks and not shown[1] & asks
    assert {one.record_id for one in examples.all_templates("arc_easy_without_options")} == {without[0].record_id}
