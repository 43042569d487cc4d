import base64
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from flan_jax import catalog, reporting
from flan_jax import report as binary
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.evaluation.clusters import members
from flan_jax.evaluation.figures import ranked, summarize
from flan_jax.json_lines import first_not_finite
from flan_jax.metrics import metric
from flan_jax.reporting import details, evidence, runs, statistics, tables
from flan_jax.reporting.notes import notes

HOSTILE = '</pre><script>document.title="hacked"</script><img src=x onerror=alert(1)> & \ud800 | "quoted"'


# --------------------------------------------------------------------------------------------------------- evidence


def test_values_and_calibration_follow_from_the_predictions(pair):
    found = reporting.gather(pair)
    for run in pair:
        confidences, right = [], []
        for name, figures in run.results["datasets"].items():
            value = found.values[run.name][name]
            np.testing.assert_allclose(value.values_ExT.mean(), figures["mean"])
            np.testing.assert_allclose(value.values_ExT.mean(0), [t["sum"] for t in figures["templates"]])
            for lines in runs.predictions(run, name).values():
                for p in lines:
                    odds = np.exp(p["loglikelihood"])
                    confidences.append(odds.max() / odds.sum())
                    right.append(np.argmax(odds) == p["answer"])
        expected = statistics.Calibration.of(np.array(confidences), np.array(right))
        np.testing.assert_allclose(found.calibration(run.name).error, expected.error)


def test_the_bootstrap_is_seeded(pair):
    once, again, other = reporting.gather(pair), reporting.gather(pair), reporting.gather(pair, seed=1)
    bounds = [g.comparisons[0].datasets["snli"].interval.bounds for g in (once, again, other)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_worst_examples_come_worst_first_and_once():
    def line(identity, template, scores, answer=0):
        return {"id": identity, "template": template, "loglikelihood": scores, "answer": answer}

    rows = {
        1: [line("a", 1, [-3.0, -1.0]), line("b", 1, [-1.0, -4.0]), line("c", 1, [-9.0, -9.5, -2.0])],
        4: [line("a", 4, [-8.0, -1.0]), line("b", 4, [-1.0, -1.0]), line("c", 4, [-1.0, -2.0, -3.0], 2)],
    }
    found = evidence.worst_examples(rows)
    assert [(p["id"], p["template"], evidence.margin(p)) for p in found] == [("c", 1, -7), ("a", 4, -7), ("b", 4, 0)]
    assert [p["id"] for p in evidence.worst_examples(rows, 1)] == ["c"]
    generated = {0: [{"id": str(i), "template": 0, "score": s} for i, s in enumerate([0.4, 0.1, 0.9])]}
    assert [p["id"] for p in evidence.worst_examples(generated, 2)] == ["1", "0"]


def test_clean_subsets(pair, tmp_path):
    # In the file, other records have the ids of these: only what they are counts.
    clean = [{"id": f"test-{i + 1}", "hash": f"{i:016x}"} for i in range(40) if i % 4]
    dirty = [{"id": f"test-{i + 1}", "hash": f"{i:016x}"} for i in range(0, 40, 4)]
    hashes = {one["hash"] for one in clean}
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"datasets": {"rte": {"test": {"clean": clean, "dirty": dirty}}}}))
    found = reporting.gather(pair, path)
    for run in pair:
        (name,) = found.clean[run.name]
        shares = [
            np.mean([np.argmax(p["loglikelihood"]) == p["answer"] for p in lines if p["hash"] in hashes])
            for lines in runs.predictions(run, name).values()
        ]
        figures = found.clean[run.name]["rte"]
        np.testing.assert_allclose([figures["mean"], figures["std"]], [np.mean(shares), np.std(shares, ddof=1)])
        assert (figures["examples"], figures["clean"]) == (40, 30)
    shown = details.clean_table(pair, found)
    assert shown.rows[0][:3] == ("rte", "30 of 40", "25.0")
    path.write_text(json.dumps({"datasets": {"rte": {"test": {"clean": clean, "dirty": []}}}}))
    with pytest.raises(FlanError, match="10 examples of rte in run 'untuned' are not in"):
        reporting.gather(pair, path)
    old = {"clean": ["test-0"], "dirty": [{"id": "test-1"}]}  # of a version that went by ids
    for text in ("{}", json.dumps({"datasets": {"rte": {"test": old}}})):
        path.write_text(text)
        with pytest.raises(FlanError, match="no contamination results of this version in"):
            reporting.gather(pair, path)


def test_a_record_that_is_both_clean_and_not_is_not_clean(pair, tmp_path):
    (run,) = pair[:1]
    hashes = [{"hash": one} for one in reporting.gather([run]).values[run.name]["rte"].hashes]
    both = {"datasets": {"rte": {"test": {"clean": hashes, "dirty": hashes[:7]}}}}
    (tmp_path / "both.json").write_text(json.dumps(both))
    assert reporting.gather([run], tmp_path / "both.json").clean[run.name]["rte"]["clean"] == len(hashes) - 7
    (tmp_path / "none.json").write_text(json.dumps({"datasets": {"piqa": both["datasets"]["rte"]}}))
    with pytest.raises(FlanError, match="has piqa, and nothing that these runs have"):
        reporting.gather([run], tmp_path / "none.json")


@pytest.mark.parametrize("suffix", ["md", "json", "html"])
def test_of_three_files_all_are_written_or_none(pair, tmp_path, suffix):
    """A new report.md stood beside an old report.json."""
    out = tmp_path / "out"
    for one in ("md", "json", "html"):
        (out / f"report.{one}").mkdir(parents=True) if one == suffix else None
    with pytest.raises(FlanError, match=f"report.{suffix}: it is a folder"):
        reporting.write(pair, out)
    assert [path.name for path in out.iterdir()] == [f"report.{suffix}"]


def test_a_closed_output_ends_no_report(pair, tmp_path):
    runs = [f"{run.name}={run.output_dir}" for run in pair]
    command = [sys.executable, "-m", "flan_jax.report", "--runs", *runs, f"--output={tmp_path / 'out'}"]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "out" / "report.html").exists()


def test_a_break_in_a_name_makes_no_heading(pair):
    pair[0].results["checkpoint"] = "a model\n# A heading"
    pair[0].results["skipped"] = [{"dataset": "cb", "reason": "why\n## not"}]
    text = reporting.markdown(pair, reporting.gather(pair))
    assert "a model # A heading" in text and "\n# A heading" not in text and "\n## not" not in text


def test_without_predictions_only_the_results_are_shown(pair, tmp_path):
    shutil.rmtree(tmp_path / "untuned" / "predictions")
    (tmp_path / "tuned" / "predictions" / "snli" / "test_t0.jsonl").write_text('{"key": "k"}\n')  # of another job
    found = reporting.gather(pair)
    assert found.values["untuned"] == {} and set(found.values["tuned"]) == {"rte", "qnli"}
    assert found.comparisons[0].datasets == {}
    text = reporting.markdown(pair, found)
    assert "untuned has no predictions of single examples for rte, snli" in text
    assert "Calibration" in reporting.page(pair, found)


# ----------------------------------------------------------------------------------------------------------- tables


def test_table_has_datasets_and_cluster_mean(pair):
    shown = tables.results_table(pair, reporting.gather(pair))
    assert all(len(row) == len(shown.head) == sum(n for _, n in shown.groups) for row in shown.rows)
    by_name = {row[0]: row for row in shown.rows}
    figures = pair[1].results["datasets"]["snli"]
    assert by_name["snli"][4] == by_name["snli"][9] == "40"
    assert by_name["snli"][10] == f"{100 * figures['mean']:.1f} ± {100 * figures['std']:.1f}"
    assert by_name["snli"][11].endswith(f"(t{figures['best_dev_template']})")
    assert by_name["snli"][13] == "zero-shot, held out"
    assert by_name["qnli"][4:9] == ("–",) * 5
    # The mean is over what both have, and says that it is of a part of the cluster.
    title = f"Natural language inference, mean of 2 of {len(members('nli'))} datasets"
    assert shown.rows[min(shown.means)][0] == title
    means = [pair[1].results["datasets"][n]["mean"] for n in ("snli", "rte")]
    assert by_name[title][10] == f"{100 * np.mean(means):.1f}"


def test_what_was_skipped_for_one_reason_stands_in_one_line(pair):
    reason = "no examples of '{0}' in here: run prepare --datasets={0}; which"
    skipped = [{"dataset": n, "reason": reason.format(n)} for n in ("wic", "copa")]
    skipped.append({"dataset": "drop", "reason": "too long"})
    run = dataclasses.replace(pair[0], results=pair[0].results | {"skipped": skipped})
    lines = [line for line in notes([run], reporting.gather([run])) if "skipped" in line]
    expected = "untuned skipped wic, copa: no examples of 'wic,copa' in here: run prepare --datasets=wic,copa; which"
    assert lines == [expected, "untuned skipped drop: too long"]


def test_markdown_is_a_table_with_all_that_a_reader_needs(pair):
    text = reporting.markdown(pair, reporting.gather(pair))
    lines = text.split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("| dataset"))
    assert lines[first + 1] == "|" + "---|" * (lines[first].count("|") - 1)
    assert "| snli | accuracy | 33.3 |" in text
    assert "| **Natural language inference, mean of 2 of" in text
    assert "zero-shot, held out" in text and "untuned skipped squad_v1" in text
    assert "## tuned beside untuned" in text and "95 %: examples and templates" in text
    assert tables.Table((("", 1),), ("a",), [("x | y\nz",)]).markdown().endswith("| x \\| y z |")


def test_shots_and_styles_are_named(make_run):
    shots = make_run("few", {"snli": 1.0}, style="5_shots")
    gpt3 = make_run("before", {"snli": 1.0}, style="gpt3")
    shared = make_run("same", {"snli": 1.0}, style="5_shared_shots")
    assert shots.title == "few · few-shot (5)" and shared.title == "same · few-shot (5)"
    assert gpt3.title == "before · zero-shot · gpt3"
    dataset, cluster = tables.results_table([gpt3, shots], reporting.gather([gpt3, shots])).rows
    expected = ("zero-shot, held out", "few-shot (5), held out")
    assert (dataset[8], dataset[13]) == (cluster[8], cluster[13]) == expected
    # The same words in every form.
    found = reporting.gather([gpt3, shots])
    said = reporting.to_dict([gpt3, shots], found)
    assert tuple(run["datasets"]["snli"]["label"] for run in said["runs"]) == expected
    assert tuple(run["clusters"]["nli"]["label"] for run in said["runs"]) == expected
    for text in (reporting.markdown([gpt3, shots], found), reporting.page([gpt3, shots], found)):
        assert all(label in text for label in expected)


def test_how_many_exemplars_the_prompts_have_is_shown(make_run):
    """A style of 5 shots asks long texts without any: neither column nor label may hide it."""
    few = make_run("few", {"snli": 1.0, "rte": 1.0, "qnli": 1.0, "wnli": 1.0}, style="5_shots")
    for name, mean, without in (("snli", 5.0, 0), ("rte", 2.25, 90), ("qnli", 0.0, 400)):
        few.results["datasets"][name]["shots"] = {"wanted": 5, "mean": mean, "without": without, "of": 400}
    few = dataclasses.replace(few)
    none = make_run("none", {"snli": 1.0})
    found = reporting.gather([none, few])
    table = tables.results_table([none, few], found)
    shown = {row[0]: dict(zip(table.flat_head, row, strict=True)) for row in table.rows}
    said = {name: (row[f"{few.title}: shots"], row[f"{few.title}: label"]) for name, row in shown.items()}
    assert said["snli"] == ("5.0", "few-shot (5), held out")
    assert said["rte"] == ("2.2 (90 of 400 without)", "few-shot (5), held out; 2.2 exemplars fit")
    assert said["qnli"] == ("0.0 (400 of 400 without)", "few-shot (5), held out; no exemplar fits")
    assert said["wnli"] == ("–", "few-shot (5), held out")  # of results that do not say it
    del few.results["datasets"]["wnli"], few.results["datasets"]["snli"]
    alone = tables.results_table([dataclasses.replace(few)]).rows[-1]
    assert "mean" in alone[0] and alone[-1] == "few-shot (5), held out; 1.1 exemplars fit"  # of 2.25 and 0
    few = dataclasses.replace(few)
    assert shown["snli"][f"{none.title}: shots"] == "–"
    page = reporting.page([none, few], found)
    assert '<td class="held">few-shot (5), held out; 2.2 exemplars fit</td>' in page
    assert '<td class="marked">2.2 (90 of 400 without)</td>' in page and "Shots are the exemplars of a prompt" in page
    assert "shots" not in reporting.markdown([none], reporting.gather([none])).partition("## How")[0]
    few.results["datasets"]["rte"]["overlap"] = {"seen": 3, "of": 40}
    assert 'class="seen">few-shot (5), held out; 2.2 exemplars fit; 3 of 40 records seen<' in reporting.page(
        [none, dataclasses.replace(few)], found
    )


def test_few_shot_results_of_earlier_versions_are_not_called_zero_shot(make_run):
    run = make_run("old", {"snli": 1.0}, style="5_shots")
    for figures in (*run.results["datasets"].values(), *run.results["clusters"].values()):
        figures["status"] = "zero-shot, held out"  # what those versions wrote of every style
        figures.pop("label", None)
    found = reporting.gather([run])
    everywhere = (
        reporting.markdown([run], found),
        reporting.page([run], found),
        json.dumps(reporting.to_dict([run], found)),
    )
    assert all("few-shot (5), held out" in text and "zero-shot" not in text for text in everywhere)


def test_seen_is_shown_as_seen(make_run):
    run = make_run("tuned", {"snli": 0.5}, status=labels.SEEN)
    text = reporting.markdown([run], reporting.gather([run]))
    assert "zero-shot, seen |" in text and "held out |" not in text


def test_results_of_before_the_headline_metric_are_read(pair):
    for figures in pair[0].results["datasets"].values():
        del figures["metric"]
    assert tables.results_table(pair).rows[0][1] == "accuracy"


def test_generation_datasets_stand_in_every_table_that_fits(make_run, add_generation):
    both = [make_run("a", {"rte": 0.5}), make_run("bc", {"rte": 0.5})]
    scores = np.random.default_rng(0).random((2, 2, 5))
    for run, scores_TxE in zip(both, scores, strict=True):
        add_generation(run, "squad_v1", "f1", scores_TxE)
        add_generation(run, "wmt14_enfr/fr-en", "bleu")
    found = reporting.gather(both)
    rows = {row[0]: row for row in tables.results_table(both).rows}
    assert rows["squad_v1"][1:5] == ("f1", "–", "–", "5") and rows["wmt14_enfr/fr-en"][5] == "25.0 ± 0.0"
    assert set(found.comparisons[0].datasets) == {"rte", "squad_v1"}
    difference = scores[1].mean() - scores[0].mean()
    np.testing.assert_allclose(found.comparisons[0].datasets["squad_v1"].interval.value, difference)
    assert [row[0] for row in details.rankings_table(both, found).rows] == ["rte"]
    text = reporting.page(both, found)
    assert "wmt14_enfr/fr-en" in reporting.markdown(both, found) and "&lt;script&gt;" in text and "<script" not in text


@pytest.mark.parametrize("name", ["multirc", "cola", "cb", "stsb", "record", "glue_mrpc", "squad_v1", "xsum"])
def test_every_value_of_a_dataset_is_shown(make_run, add_generation, name):
    """E20: F1a, Matthews, mean F1, Pearson, SQuAD's EM and ROUGE-2 and -L were computed and never shown."""
    record = catalog.dataset(name)
    run = make_run("tuned", {name if record.kind == catalog.CLASSIFICATION else "rte": 1.0})
    if record.kind != catalog.CLASSIFICATION:
        first, *others = (key for used in record.metrics for key in metric(used).keys)
        add_generation(run, name, first, np.full((2, 5), 0.25))
        run.results["datasets"][name]["metrics"] = {first: 25.0} | {key: 3.5 + 11 * n for n, key in enumerate(others)}
    found, values = reporting.gather([run]), run.results["datasets"][name]["metrics"]
    keys = {key for used in record.metrics for key in metric(used).keys}
    assert keys <= set(values)
    text, page = reporting.markdown([run], found), reporting.page([run], found)
    for key in keys:
        assert f"| {name} | {key} |" in text and f">{key}<" in page, key
        if key != run.results["datasets"][name]["metric"]:  # which stands in the first table, with its spread
            assert f"| {name} | {key} | {values[key]:.1f} |" in text and f">{values[key]:.1f}<" in page, key
    assert reporting.to_dict([run], found)["runs"][0]["datasets"][name]["metrics"] == values


# ------------------------------------------------------------------------------------------------------------- page


def test_page_is_self_contained_and_escaped(tmp_path, make_run):
    run = make_run("x<b>y", {"snli": -1.0}, prompt=HOSTILE)
    paths = reporting.write([run], tmp_path / "out")
    page = paths["html"].read_text("utf-8")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]
    assert not re.search(r"""<script|<link[^>]+href="(?!data:)|src="(?!data:)|@import|url\(|https?://""", page)
    assert not re.search(r"<[^>]*\son\w+=", page)
    assert "&lt;script&gt;document.title" in page and "a generation &lt;dataset&gt;" in page and "x&lt;b&gt;y" in page
    images = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(images) == 3
    for image in images:
        ElementTree.fromstring(base64.b64decode(image))
    assert page.count("<article>") == 20


def test_json_has_everything(pair, tmp_path):
    paths = reporting.write(pair, tmp_path / "out")
    found = json.loads(paths["json"].read_text())
    assert [run["name"] for run in found["runs"]] == ["untuned", "tuned"]
    assert found["runs"][1]["datasets"].keys() == pair[1].results["datasets"].keys()
    assert found["clusters"]["nli"]["datasets"] == ["rte", "snli"] and found["clusters"]["nli"]["partial"]
    assert (
        found["values"]["tuned"]["rte"]["over_templates"]["interval"][0] < found["runs"][1]["datasets"]["rte"]["mean"]
    )
    assert set(found["comparisons"][0]["datasets"]) == {"snli", "rte"}
    assert set(found["calibration"]["tuned"]["datasets"]) == {"snli", "rte", "qnli"}


def test_the_binary(pair, tmp_path, capsys):
    names = [f"{run.name}={run.output_dir}" for run in pair]
    binary.main(["--runs", *names, f"--output={tmp_path / 'out'}", "--json"])
    printed = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert set(printed["files"]) == {"md", "json", "html"} and printed["comparisons"][0]["other"] == "tuned"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tuned"], "--runs takes NAME=EVAL_OUTPUT_DIR, not 'tuned'"),
        (["a=nowhere"], "no readable results.json in nowhere"),
        (["a={tuned}", "a={tuned}"], "--runs has two of the name a"),
        (["a={odd}"], "results.json holds no results of an evaluation"),
        (["a={cut}"], "results.json is damaged, and no whole JSON: run python -m flan_jax.eval again"),
    ],
)
def test_errors_are_one_line(pair, tmp_path, capsys, names, message):
    for folder, text in (("odd", "[]"), ("cut", '{"checkpoint": "a", "datasets"')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "results.json").write_text(text)
    names = [name.format(**{key: tmp_path / key for key in ("tuned", "odd", "cut")}) for name in names]
    with pytest.raises(SystemExit) as caught:
        binary.main(["--runs", *names, f"--output={tmp_path / 'out'}"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert message in line and not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------- browser


@pytest.mark.parametrize("width", [1400, 420])
def test_a_browser_renders_the_page_without_errors(open_page, tmp_path, width, make_run):
    names = ["snli", "rte", "anli_r1", "copa", "record", "definite_pronoun_resolution"]
    listed = [
        make_run("untuned", dict.fromkeys(names, 0.1), style="gpt3"),
        make_run("a_run_with_a_rather_long_name", dict.fromkeys(names, 1.0), prompt=HOSTILE),
        make_run("few", dict.fromkeys(names, 1.5), style="5_shots", prompt=HOSTILE + "x" * 3000),
    ]
    page = reporting.write(listed, tmp_path / "out")["html"]
    # A probe that the page itself does not have: what the browser made of it, as text in the title.
    probe = (
        "<script>addEventListener('load',()=>{const images=[...document.images];document.title=JSON.stringify({"
        "images:images.length,drawn:images.filter(i=>i.complete&&i.naturalWidth>100).length,"
        "wider:document.documentElement.scrollWidth-innerWidth,articles:document.querySelectorAll('article').length,"
        "tables:document.querySelectorAll('table').length})})</script></body>"
    )
    text = page.read_text("utf-8")
    probed = tmp_path / "probed.html"
    probed.write_text(
        re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        .replace("<details>", "<details open>")
        .replace("</body>", probe),
        encoding="utf-8",
    )

    as_written = open_page(page, width)
    assert "<title>FLAN-JAX evaluation: untuned" in as_written and as_written.count("<article>") == 20 * len(names)
    (title,) = re.findall(r"<title>(.*?)</title>", open_page(probed, width))
    found = json.loads(title)
    assert found["images"] == found["drawn"] == 4
    assert found["articles"] == 20 * len(names)
    assert found["wider"] <= 0  # tables and plots scroll in their own boxes, the page does not


# ---------------------------------------------------------------------------------------- numbers that are not finite


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("where", ["mean", "stderr", "random"])
def test_results_that_are_not_finite_are_refused_by_name(tmp_path, number, where, make_run):
    make_run("old", {"rte": 1.0})
    path = tmp_path / "old" / "results.json"
    values = json.loads(path.read_text())
    values["datasets"]["rte"][where] = "HERE"
    path.write_text(json.dumps(values).replace('"HERE"', number))
    with pytest.raises(FlanError, match=r"old/results\.json is no result \(.* is no number of a result\): run python"):
        reporting.load_run("old", tmp_path / "old")


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_predictions_that_are_not_finite_are_refused_by_name(tmp_path, capsys, number, make_run):
    run = make_run("old", {"rte": 1.0})
    number_of = run.figures("rte")["templates"][1]["template"]
    path = tmp_path / "old" / "predictions" / "rte" / f"test_t{number_of}.jsonl"
    text = path.read_text()
    value = json.loads(text.splitlines()[3])["loglikelihood"][1]
    path.write_text(text.replace(repr(value), number))
    with pytest.raises(SystemExit):
        binary.main([f"--runs=old={tmp_path / 'old'}", f"--output={tmp_path / 'report'}"])
    line = capsys.readouterr().err.strip()
    assert f"{path} holds no predictions ({number} is no number of a result)" in line and "\n" not in line
    assert not (tmp_path / "report").exists()


def test_a_prediction_without_a_highest_option_is_refused():
    for scores in ([-1.0, np.nan], [np.inf, -1.0], [-np.inf, -np.inf], [None, 1.0]):
        prediction = {"id": "test-3", "dataset": "rte", "template": 2, "loglikelihood": scores, "answer": 0}
        with pytest.raises(FlanError, match="dataset 'rte', template 2, id 'test-3'"):
            ranked(prediction, "sum")


def test_what_is_undefined_is_said(make_run):
    run = make_run("tuned", {"cola": 50.0})
    for figures in run.results["datasets"]["cola"]["templates"][:2]:
        figures["undefined"] = ["matthews"]
    count = len(run.results["datasets"]["cola"]["templates"])
    said = f"tuned: matthews of cola is undefined with 2 of {count} templates, where all answers are the same"
    assert any(note.startswith(said) for note in notes([run], evidence.gather([run])))
    record = catalog.dataset("cola")
    lines = [
        {"id": str(i), "options": ["no", "yes"], "answer": i % 2, "loglikelihood": [0.0, -1.0], "cut_tokens": 0}
        | {"tokens": [1, 1], "bytes": [2, 3]}
        for i in range(4)
    ]
    figures = summarize(record, {0: lines}, {})
    assert figures["templates"][0]["undefined"] == ["matthews"] and figures["metrics"]["matthews"] == 0.0
    assert first_not_finite(figures) is None
    with pytest.raises(FlanError, match="dataset cola has no test predictions"):
        summarize(record, {}, {})
    with pytest.raises(FlanError, match="dataset cola has no test predictions"):
        summarize(record, {0: []}, {})


# ---------------------------------------------------------------------------------------------------------- copying


def test_a_report_says_where_copying_has_more_than_a_model(pair, add_generation):
    for number, run in enumerate(pair):
        add_generation(run, "common_gen", "rouge1", np.full((2, 5), 0.2 + 0.3 * number))
        add_generation(run, "xsum", "rouge1", np.full((2, 5), 0.3))
        run.results["datasets"]["common_gen"]["copied"] = 0.456
        run.results["datasets"]["xsum"]["copied"] = 0.1
        run.results["datasets"]["common_gen"]["templates"][0]["copies"] = 3
        run.__dict__.pop("datasets", None)
    found = reporting.gather(pair)
    table = tables.results_table(pair, found)
    rows = {row[0]: row for row in table.rows}
    column = table.head.index("copied")
    assert (rows["common_gen"][column], rows["xsum"][column], rows["snli"][column]) == ("45.6", "10.0", "–")
    assert sum(span for _, span in table.groups) == len(table.head) == len(rows["xsum"])
    said = [line for line in notes(pair, found) if line.startswith("Repeating the given text")]
    assert len(said) == 1 and "common_gen (45.6, more than untuned)" in said[0] and "xsum" not in said[0]
    assert any(
        "tuned has answers that are the given words and no others: 3 of 5 of common_gen" in n
        for n in notes(pair, found)
    )
    for run in pair:
        run.results["datasets"]["common_gen"]["copied"] = 0.9
        run.__dict__.pop("datasets", None)
    assert "common_gen (90.0, more than every model)" in "".join(notes(pair, found))


def test_a_report_of_options_alone_has_no_column_for_copying(pair):
    assert "copied" not in tables.results_table(pair, reporting.gather(pair)).head
    assert not [line for line in notes(pair, reporting.gather(pair)) if line.startswith("Repeating")]
