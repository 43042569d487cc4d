import dataclasses
import json
import shutil

import numpy as np
import pytest

from flan_jax import report as binary
from flan_jax import reporting
from flan_jax.errors import FlanError
from flan_jax.evaluation.clusters import members
from flan_jax.json_lines import bound_lines, read_lines
from flan_jax.reporting import asked, details, groups, runs, tables
from flan_jax.reporting.notes import notes

# ---------------------------------------------------------------------------------------------- results on the disk


def _change(run, function):
    path = run.output_dir / "results.json"
    results = json.loads(path.read_text())
    function(results)
    path.write_text(json.dumps(results))
    return path


def _as_own(results, tuned_on, of, text=(), cluster="mine"):
    """Calls RTE a dataset of one's own, with a record of what was tuned on."""
    results["datasets"]["my_ds"] = results["datasets"].pop("rte") | {"cluster": cluster}
    results["tuning"] = {"status": "tuned", "datasets": tuned_on, "clusters": of}
    results["tuning"]["text"] = [{"dataset": name} for name in text]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r["datasets"]["rte"].pop("mean"),
            "dataset rte has no number 'mean'; it was edited or is of another version",
        ),
        (lambda r: r["datasets"]["rte"].update(mean=54.3), "dataset rte has a mean of 54.3, which is no share"),
        (lambda r: r["datasets"]["rte"].update(mean=True), "dataset rte has no number 'mean'"),
        (lambda r: r["datasets"]["rte"].update(templates=[]), "dataset rte has no templates"),
        (lambda r: r["datasets"]["rte"]["templates"][0].pop("template"), "has a template without a figure"),
        (lambda r: r["datasets"]["rte"].update(cluster=None), "dataset rte has no cluster"),
        (lambda r: r["datasets"].update(rte=0.5), "dataset rte has no figures"),
        (lambda r: r.update(datasets=[]), "holds no datasets by name"),
        (
            lambda r: r["datasets"]["rte"].update(mean=0.01),
            "dataset rte has a mean of 0.0100, and templates whose mean is",
        ),
        (lambda r: r["datasets"]["rte"].update(std=-1), "has a standard deviation of -1"),
        (lambda r: r["datasets"]["rte"].update(examples=-5), "has -5 examples"),
        (lambda r: r["datasets"]["rte"].update(examples=0), "has 0 examples"),
        (lambda r: r["datasets"]["rte"].update(examples=39.5), "has 39.5 examples"),
        (lambda r: r["datasets"]["rte"].update(label="held in"), "has the label 'held in', which is none"),
        (lambda r: r["datasets"]["rte"].update(metrics="x"), "has 'metrics' that are no names with values"),
        (lambda r: r["datasets"]["rte"].update(metrics={"macro_f1": "x"}), "has no number 'macro_f1'"),
        (lambda r: r["datasets"]["rte"].update(best_dev="x"), "has no share 'best_dev'"),
        (lambda r: r["datasets"]["rte"].update(random=[1]), "has no share 'random'"),
        (lambda r: r["datasets"]["rte"].update(random=-3), "has no share 'random'"),
        (lambda r: r["datasets"]["rte"].update(best_dev=0.999), "has 0.9990 for the template that is best on dev"),
        (lambda r: r["datasets"]["rte"].update(mean=10**400), "has no number 'mean'"),
        (lambda r: r["datasets"]["rte"].update(cluster="sentiment"), "has the cluster 'sentiment', and is of 'nli'"),
        (lambda r: r["datasets"]["rte"].update(label="zero-shot, held out", status="seen"), "held out', and is seen"),
        (lambda r: r["datasets"]["rte"].update(cost={"seconds": {}}), "has no number 'seconds' in its cost"),
        (lambda r: r["datasets"]["rte"].update(overlap={"kin": [5]}), "has 'kin' in its overlap"),
        (lambda r: r["datasets"]["rte"]["templates"][0].update(template="0"), "has a template with the number '0'"),
        (lambda r: r.update(skipped=[{"dataset": "cb"}]), "has skipped datasets without a name or a reason"),
        (lambda r: r.update(tuning={"status": "tuned", "datasets": [], "clusters": 5}), "a tuning whose clusters"),
        (
            lambda r: r.update(tuning={"status": "tuned", "datasets": ["cb"], "clusters": ["nli"]}),
            "is called held out, and is seen by its record of what was tuned on",
        ),
        *(
            (lambda r, tuning=tuning: r.update(tuning=tuning), "dataset rte is called held out, and ")
            for tuning in (
                {"status": "untuned", "datasets": ["rte"], "clusters": ["nli"]},
                {"status": "declared untuned", "datasets": ["rte"], "clusters": ["nli"]},
                {"status": "tuned", "datasets": ["rte"], "clusters": []},
                {"status": "tuned", "datasets": ["rte"]},
                {"status": "tuned", "clusters": ["nli"]},
                {"datasets": [], "clusters": []},
                {"status": "Tuned", "datasets": [], "clusters": []},
                {"status": "tuned", "datasets": ["rte"], "clusters": ["nli", "bogus"]},
                {"status": "tuned", "datasets": ["sst2"], "clusters": ["sentiment"], "text": [{"dataset": "rte"}]},
                {"status": "unknown", "datasets": [], "clusters": []},
                {"status": "tuned", "datasets": [], "clusters": []},
                {"status": "tuned", "datasets": ["my_nli"], "clusters": []},
                {},
            )
        ),
        (
            lambda r: r.update(
                checkpoints={"rte": "B step 1"},
                tunings={"B step 1": {"status": "tuned", "datasets": ["rte"], "clusters": ["nli"]}},
                tuning={"status": "each cluster by a checkpoint of its own", "datasets": [], "clusters": []},
            ),
            "is seen by its record",
        ),
        (lambda r: r.update(checkpoints={"rte": "B step 1"}), "two records say what was tuned on"),
        *(
            (lambda r, more=more: _as_own(r, **more), "dataset my_ds is called held out, and is ")
            for more in (
                {"tuned_on": ["bool_q"], "of": ["reading_comprehension"], "text": ["my_ds"]},
                {"tuned_on": ["my_ds"], "of": ["mine"]},
                {"tuned_on": ["other"], "of": ["mine"]},
                {"tuned_on": ["glue_mrpc"], "of": ["paraphrase"], "cluster": "nli"},  # the paper's rule
                {"tuned_on": ["x"], "of": ["unknown"]},
                {"tuned_on": ["bool_q"], "of": ["reading_comprehension"], "cluster": "unknown"},
            )
        ),
        (
            lambda r: r.update(tunings={"A": {"status": "tuned", "datasets": ["cb"], "clusters": ["nli"]}}),
            "several records say what was tuned on",
        ),
        (lambda r: r.update(checkpoints=["A"]), "has checkpoints or tunings that are no names with values"),
        (lambda r: r.update(tunings={"A": None}), "has checkpoints or tunings that are no names with values"),
        (lambda r: r.update(checkpoint=["a"]), "has a checkpoint that is no name"),
        (lambda r: r["datasets"]["rte"].update(status=["x"]), "has a status that is no word"),
        (lambda r: r["datasets"]["rte"].update(skipped_examples="x"), "has no count of skipped examples"),
        (lambda r: r["datasets"]["rte"].update(overlap={"with": None}), "has 'with' in its overlap"),
        (lambda r: r["datasets"]["rte"].update(overlap={"with": {"x": -1}}), "has counts in its overlap"),
        (lambda r: r["datasets"]["rte"].update(overlap={"reason": 5}), "has a reason in its overlap"),
        (lambda r: r["datasets"]["rte"].update(cost={"seconds": -1}), "has no number 'seconds' in its cost"),
        (lambda r: r["datasets"]["rte"].update(metrics={"macro_f1": None}), "has no number 'macro_f1'"),
        (lambda r: r["datasets"]["rte"].update(metric_versions={"accuracy": 5}), "has versions of metrics"),
        (lambda r: r["datasets"]["rte"].update(std=0.3), "has a standard deviation of 0.3000, and templates with"),
        (
            lambda r: r["datasets"]["rte"].update(shots={"wanted": 5, "mean": -3, "without": 0, "of": 1}),
            "has shots that are no numbers",
        ),
        (
            lambda r: r["datasets"]["rte"].update(shots={"wanted": 5, "mean": 3, "without": 0, "of": 0}),
            "has shots that are no numbers",
        ),
        (lambda r: r["datasets"]["rte"]["templates"][0].update(value=None), "has a template without a figure"),
        (lambda r: r["datasets"]["rte"]["templates"][0].update(dev=10**9), "has no share 'dev' for template 0"),
        (lambda r: r["datasets"]["rte"]["templates"][0].update(per_byte=10**400), "has no share 'per_byte'"),
        (lambda r: r["datasets"]["rte"].update(label="few-shot (5), held out"), "and its prompts are zero-shot"),
        (lambda r: r["datasets"]["rte"].update(label="banana, held out"), "and its prompts are zero-shot"),
        (lambda r: r["datasets"]["rte"].update(copied="x"), "has no share 'copied'"),
        (lambda r: r["datasets"]["rte"].update(copied=-0.5), "has no share 'copied'"),
        (lambda r: r["datasets"]["rte"].update(copied=0.5), "has no share 'copied'"),
        (lambda r: r["datasets"]["rte"].update(majority=-0.9), "has no share 'majority'"),
        (lambda r: r["datasets"]["rte"].update(std=99), "has a standard deviation of 99"),
        (lambda r: r["datasets"]["rte"].update(best_dev_template=77), "has template '77' as the best on dev"),
        (lambda r: r["datasets"]["rte"].update(best_dev_template=[1]), "has template '[1]' as the best on dev"),
        (lambda r: r["datasets"]["rte"].update(metrics=None), "has 'metrics' that are no names with values"),
        (lambda r: r["datasets"]["rte"].update(mean_per_byte="x"), "has no number 'mean_per_byte'"),
        (lambda r: r["datasets"]["rte"].update(dev_ways={"sum": "x"}), "has ways to score on dev that are no numbers"),
        (lambda r: r["datasets"]["rte"].update(overlap={"seen": "many", "checked": True}), "has 'many' records seen"),
        (lambda r: r["datasets"]["rte"].update(overlap={"seen": 3, "of": 2}), "has '3' records seen"),
        *(
            (lambda r, key=key, value=value: r["datasets"]["rte"]["templates"][0].update({key: value}), said)
            for key, value, said in (
                ("copies", "3", "has no count of 'copies' for template 0"),
                ("copies", None, "has no count of 'copies' for template 0"),
                ("copies", -3, "has no count of 'copies' for template 0"),
                ("copies", 2.5, "has no count of 'copies' for template 0"),
                ("unfinished", 10**9, "has no count of 'unfinished' for template 0"),
                ("cut_prompts", "x", "has no count of 'cut_prompts' for template 0"),
                ("undefined", 3, "has undefined metrics of template 0"),
                ("input", 4, "has no text for template 0"),
                ("input", ["a"], "has no text for template 0"),
            )
        ),
        (lambda r: r["datasets"]["rte"]["templates"][0].update(value="0.5"), "has no number for template 0"),
        (lambda r: r["datasets"]["rte"]["templates"].append(r["datasets"]["rte"]["templates"][0]), "a template twice"),
        (lambda r: r.update(settings=5), "has settings that are no names with values"),
        (lambda r: r.update(settings={"style": "nope"}), "has a style that is none (unknown style 'nope')"),
        (lambda r: r.update(settings={"style": 5}), "has a style that is none"),
        (lambda r: r.update(skipped="x"), "has skipped datasets without a name"),
        (lambda r: r.update(skipped=[{}]), "has skipped datasets without a name"),
        (lambda r: r.update(invalid=[1]), "has invalid datasets without a name"),
        (lambda r: r.pop("clusters"), "holds no results of an evaluation"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(make_run, capsys, tmp_path, change, message):
    run = make_run("tuned", {"rte": 1.0})
    _change(run, change)
    with pytest.raises(SystemExit) as caught:
        binary.main(["--runs", f"tuned={run.output_dir}", f"--output={tmp_path / 'out'}"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert message in line and "results.json" in line and not (tmp_path / "out").exists()


def test_a_lone_surrogate_does_not_stop_a_report(make_run, tmp_path, rewrite):
    """JSON can hold one, and UTF-8 cannot."""
    run = make_run("tuned", {"rte": 1.0})
    _change(
        run, lambda r: (r.update(checkpoint="a \ud800"), r["datasets"]["rte"]["templates"][0].update(input="\udfff?"))
    )
    for path in (run.output_dir / "predictions" / "rte").iterdir():
        rewrite(path, lambda i, line: {**line, "prompt": "So \ud800"})
    binary.main(["--runs", f"tuned={run.output_dir}", f"--output={tmp_path / 'out'}"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "a \ufffd" in text and "\ufffd?" in text


def test_a_group_is_of_the_same_examples_and_of_one_program(make_run, tmp_path):
    """A mean over 8 and 60 examples is of neither."""
    few, many = make_run("few", {"rte": 0.0, "cb": 0.0}, count=20), make_run("many", {"rte": 0.0, "cb": 0.0})
    few.results["datasets"]["cb"]["examples"] = many.results["datasets"]["cb"]["examples"]  # as if it were of as many
    group = groups.as_one("both", [few, many])
    assert list(group.datasets) == ["cb"]
    assert group.results["skipped"] == [{"dataset": "rte", "reason": "its runs have 20 and 40 examples"}]
    other = dataclasses.replace(many, results={**many.results, "harness": "lm-evaluation-harness 0.4.9"})
    with pytest.raises(FlanError, match="group both has runs of FLAN-JAX and lm-evaluation-harness: group"):
        groups.as_one("both", [few, other])


@pytest.mark.parametrize(
    "more",
    [
        {"tuned_on": ["bool_q"], "of": ["reading_comprehension"]},
        {"tuned_on": ["other", "bool_q"], "of": ["another", "reading_comprehension"]},
        {"tuned_on": ["sst2"], "of": ["sentiment"], "cluster": "nli"},
    ],
)
def test_an_own_dataset_that_was_not_seen_stays_held_out(make_run, more):
    run = make_run("tuned", {"rte": 1.0})
    _change(run, lambda r: _as_own(r, **more))
    assert runs.load_run("tuned", run.output_dir).figures("my_ds")["status"] == "held out"


def test_a_group_is_of_the_same_records(seeds):
    """Other records of the same number had a mean, and no word said so."""
    for i, run in enumerate(seeds[1:]):
        run.results["datasets"]["rte"]["data"] = {"test": {"records": 60, "digest": f"d{i // 2}"}}
        run.results["datasets"]["cb"]["data"] = {"test": {"records": 60, "digest": "same"}}
    group = groups.as_one("tuned", seeds[1:])
    assert list(group.datasets) == ["cb"]
    assert {"dataset": "rte", "reason": "its runs have other records"} in group.results["skipped"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r["datasets"]["rte"]["templates"].pop(), "its runs were asked with other templates"),
        (
            lambda r: r["datasets"]["rte"]["templates"][0].update(input="{premise} So {hypothesis}?"),
            "its runs were asked with other templates",
        ),
        (
            lambda r: r["settings"].update(max_input_tokens=512),
            "its runs were asked with max_input_tokens 1024 and 512",
        ),
        (
            lambda r: r["datasets"]["rte"].update(label="zero-shot, seen", status="seen"),
            "its runs are zero-shot, held out and zero-shot, seen",
        ),
    ],
)
def test_a_group_is_asked_alike(seeds, change, why):
    """Means over other templates, limits and labels were shown, and no word said so."""
    change(seeds[2].results)
    seeds[2].__dict__.pop("datasets", None)
    group = groups.as_one("tuned", seeds[1:])
    assert "rte" not in group.datasets
    assert {"dataset": "rte", "reason": why} in group.results["skipped"]


def test_a_group_is_of_models_of_its_own(seeds, rewrite):
    """Three copies of one seed had a mean of 27.3 ± 0.0."""
    for run in seeds[1:]:
        run.results["weights"] = "73b03d557e6f910b"
    with pytest.raises(FlanError, match="tuned seed 0 and tuned seed 1, which are the same model, asked the same"):
        groups.as_one("tuned", seeds[1:])
    for number, run in enumerate(seeds[1:]):
        run.results["settings"]["seed"] = number
    with pytest.raises(FlanError, match="the same model, asked the same"):  # nothing is drawn by the seed
        groups.as_one("tuned", seeds[1:])
    for run in seeds[1:]:
        run.results["settings"]["style"] = "5_shots"
        for figures in run.results["datasets"].values():
            figures["label"] = "few-shot (5), held out"
        run.__dict__.pop("datasets", None)
        for path in (run.output_dir / "predictions").rglob("*.jsonl"):
            rewrite(path, lambda i, line, name=run.name: line | {"prompt": f"An exemplar of {name}. {line['prompt']}"})
    assert groups.as_one("tuned", seeds[1:]).datasets
    seeds[1].results["tuning"] = {"status": "untuned", "datasets": [], "clusters": []}
    with pytest.raises(FlanError, match="whose tuning is untuned and tuned"):
        groups.as_one("all", seeds[1:])


def test_who_says_that_a_model_was_tuned_is_no_difference(seeds):
    """A mean of models tuned here and elsewhere was refused as one of "tuned and declared"."""
    nli = {"datasets": ["cb"], "clusters": ["nli"]}
    seeds[1].results["tuning"] = {"status": "declared", **nli}
    seeds[2].results["tuning"] = {"status": "tuned", **nli}
    seeds[3].results["tuning"] = {"status": "each cluster by a checkpoint of its own", "datasets": [], "clusters": []}
    seeds[3].results["tunings"] = {"A": {"status": "tuned", **nli}, "B": {"status": "declared", **nli}}
    assert groups.as_one("tuned", seeds[1:]).datasets
    seeds[3].results["tunings"]["B"] = {"status": "declared untuned", "datasets": [], "clusters": []}
    with pytest.raises(FlanError, match="whose tuning is tuned and each cluster by a checkpoint of its own"):
        groups.as_one("tuned", seeds[1:])
    seeds[3].results["tunings"] = {}
    seeds[3].results["tuning"] = {"status": "declared", "datasets": [], "clusters": []}  # on what, nobody says
    with pytest.raises(FlanError, match="whose tuning is tuned and declared"):
        groups.as_one("tuned", seeds[1:])


def test_a_way_to_score_that_a_run_lacks_is_in_no_mean(seeds):
    seeds[2].results["datasets"]["rte"]["mean_per_character"] = None
    seeds[2].__dict__.pop("datasets", None)
    figures = groups.as_one("tuned", seeds[1:]).figures("rte")
    assert "mean_per_character" not in figures and figures["mean_per_byte"] > 0


def test_a_group_keeps_what_each_checkpoint_was_tuned_on(seeds):
    tuned = {
        c: {"status": "tuned", "datasets": [d], "clusters": [c]} for c, d in (("nli", "cb"), ("sentiment", "sst2"))
    }
    for number, run in enumerate(seeds[1:]):
        run.results["tuning"] = {"status": "each cluster by a checkpoint of its own", "datasets": [], "clusters": []}
        run.results["tunings"] = {f"{c} {number}": tuning for c, tuning in tuned.items()}
    text = "\n".join(notes([groups.as_one("tuned", seeds[1:])], reporting.gather([groups.as_one("tuned", seeds[1:])])))
    for number in range(3):
        assert f"tuned seed {number}: nli {number}: tuned; its tuning mixtures held nli" in text


def test_a_baseline_is_of_the_same_metric(make_run):
    """F1 of what was given stood beside another program's exact match."""
    theirs, ours = make_run("theirs", {"rte": 0.0}), make_run("ours", {"rte": 1.0})
    ours.results["datasets"]["rte"] |= {"copied": 0.99, "random": None}
    theirs.results["datasets"]["rte"] |= {"metric": "em", "headline_metric": {"key": "em", "version": "1"}}
    for pair in ([theirs, ours], [ours, theirs]):
        (said,) = (line for line in notes(pair, reporting.gather(pair)) if line.startswith("Repeating"))
        assert "rte (99.0, more than ours)" in said
    assert "copied" not in tables.results_table([theirs, ours], reporting.gather([theirs, ours])).head


def test_counts_are_of_the_runs_that_have_them(seeds):
    """Of an earlier version nobody counted copies: it is in no denominator."""
    for run in seeds[1:]:
        run.results["datasets"]["rte"]["templates"][0]["copies"] = 2
    del seeds[1].results["datasets"]["rte"]["templates"][0]["copies"]
    shown = groups.grouped(seeds, {"tuned": ["tuned seed *"]})
    assert "copies" not in shown[1].figures("rte")["templates"][0]
    text = "\n".join(notes(seeds, reporting.gather(seeds)))
    assert "tuned seed 1 has answers that are the given words and no others: 2 of 60 of rte" in text


def test_a_baseline_is_of_any_run_that_has_it(make_run):
    """Those of the first run alone were shown, and a log of the harness, or an old run, has none."""
    old, new = make_run("old", {"rte": 0.0}), make_run("new", {"rte": 1.0})
    for name in ("random", "majority"):
        old.results["datasets"]["rte"][name] = None
    table = tables.results_table([old, new], reporting.gather([old, new]))
    row = dict(zip(table.head, next(row for row in table.rows if row[0] == "rte"), strict=True))
    assert row["random"] == f"{100 * new.results['datasets']['rte']['random']:.1f}" and "majority" in table.head


def test_baselines_that_differ_have_no_column(make_run):
    """Of four options and of two, guessing had the first run's 25.0 for both."""
    four, two = make_run("four", {"rte": 0.0}), make_run("two", {"rte": 1.0})
    four.results["datasets"]["rte"]["random"] = 0.25
    table = tables.results_table([four, two], reporting.gather([four, two]))
    row = dict(zip(table.head, next(row for row in table.rows if row[0] == "rte"), strict=True))
    assert row.get("random", "-") in ("-", "–", "") and row["majority"]
    text = "\n".join(notes([four, two], reporting.gather([four, two])))
    assert "stand here alone: random of rte (25.0 in four, 50.0 in two)" in text


def test_other_limits_are_said(make_run):
    """Prompts of 512 tokens and of 1,024 were compared with a verdict."""
    short, long = make_run("short", {"rte": 0.0}), make_run("long", {"rte": 1.0})

    def said():
        return "\n".join(notes([short, long], reporting.gather([short, long])))

    short.results["settings"]["max_input_tokens"] = 512
    assert "long beside short: rte asked with max_input_tokens 512 and 1024. There the difference is of model" in said()
    # Of options nothing is written, and 1,024 is what None means.
    short.results["settings"] |= {"max_input_tokens": 1024, "max_new_tokens": 4}
    assert "asked with max_" not in said()
    short.results["settings"]["max_input_tokens"] = [5]
    assert "rte asked with max_input_tokens [5] and 1024" in said()


def test_limits_of_answers_are_those_of_generated_text(make_run):
    run = make_run("run", {"rte": 0.0})
    run.results["settings"]["max_new_tokens"] = 4
    assert asked.limits(run, "rte") == {"max_input_tokens": "1024"}
    assert asked.limits(run, "squad_v1") == {"max_input_tokens": "1024", "max_new_tokens": "4"}
    assert asked.limits(run, "not_ours") == {"max_input_tokens": "None", "max_new_tokens": "4"}


@pytest.mark.parametrize("below", ["", "reports"])
def test_the_report_of_another_run_is_not_replaced(make_run, capsys, below):
    run, other = make_run("tuned", {"rte": 1.0}), make_run("other", {"rte": 1.0})
    where = other.output_dir / below
    arguments = ["--runs", f"tuned={run.output_dir}", f"--output={where}"]
    if below:  # a folder inside is one's own
        binary.main(arguments)
        assert (where / "report.md").exists() and not (other.output_dir / "report.md").exists()
        return
    with pytest.raises(SystemExit):
        binary.main(arguments)
    assert "is the folder of an evaluation, which has a report of its own" in capsys.readouterr().err


def test_the_report_of_a_run_itself_is_not_replaced(make_run, capsys):
    run = make_run("tuned", {"rte": 1.0})
    before = sorted(run.output_dir.rglob("*"))
    with pytest.raises(SystemExit):
        binary.main(["--runs", f"tuned={run.output_dir}", f"--output={run.output_dir}/../{run.output_dir.name}"])
    assert "is the folder of an evaluation, which has a report of its own" in capsys.readouterr().err
    assert sorted(run.output_dir.rglob("*")) == before


def test_results_of_the_first_version_are_read(make_run):
    """No metric, no label, no metrics, no wordings, and cluster means by another rule, which are not believed."""
    run = make_run("old", {"anli_r1": 0.0, "anli_r2": 0.0, "rte": 2.0}, words=False)

    def age(results):
        for figures in results["datasets"].values():
            for key in ("metric", "label", "metrics"):
                figures.pop(key, None)
            figures["status"] = "zero-shot, held out"
            for t in figures["templates"]:
                t.pop("value")
                t.pop("metrics")
        results["clusters"]["nli"] = {"mean": 0.99, "best_dev": 0.99, "random": 0.5, "majority": 0.5, "status": "seen"}

    _change(run, age)
    run = reporting.load_run("old", run.output_dir)
    found = reporting.gather([run])
    text = reporting.markdown([run], found)
    assert "99.0" not in text and "zero-shot, held out" in text and "not recorded" in text
    means = reporting.to_dict([run], found)["runs"][0]["clusters"]["nli"]
    assert means["mean"] == pytest.approx(np.mean([f["mean"] for f in run.datasets.values()]))


def test_line_ends_and_byte_order_marks_of_windows(make_run):
    run = make_run("tuned", {"rte": 1.0})
    expected = reporting.gather([run]).values["tuned"]["rte"].values_ExT
    for path in run.output_dir.rglob("*.json*"):
        mark = b"\xef\xbb\xbf" if path.name == "results.json" else b""
        path.write_bytes(mark + path.read_bytes().replace(b"\n", b"\r\n"))
    again = reporting.load_run("tuned", run.output_dir)
    np.testing.assert_array_equal(reporting.gather([again]).values["tuned"]["rte"].values_ExT, expected)


@pytest.mark.parametrize("text", ["", "\n", '{"key": "k"}\n', "no JSON"])
def test_empty_predictions_leave_the_results_alone(make_run, text):
    run = make_run("tuned", {"rte": 1.0})
    next((run.output_dir / "predictions" / "rte").iterdir()).write_text(text)
    found = reporting.gather([run])
    assert found.unusable["tuned"]["rte"].startswith(("test_t", "no predictions at hand"))
    text = reporting.markdown([run], found)
    assert "tuned has no values of single examples (test_t" in text and "for rte: left out of differences" in text
    reporting.page([run], found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "test_t0.jsonl").unlink(), "test_t0.jsonl is missing"),
        (lambda folder: (folder / "test_t3.jsonl").unlink(), "test_t3.jsonl is missing"),
        (lambda folder: _cut(folder / "test_t1.jsonl", -30), "test_t1.jsonl cannot be read"),
        (lambda folder: _cut(folder / "test_t1.jsonl", -5000), "test_t1.jsonl "),
    ],
)
def test_predictions_that_are_not_whole_are_named(make_run, change, says):
    run = make_run("tuned", {"rte": 1.0})
    change(run.output_dir / "predictions" / "rte")
    found = reporting.gather([run])
    assert found.unusable["tuned"]["rte"].startswith(says)
    assert f"tuned has no values of single examples ({says}" in reporting.markdown([run], found)


def test_predictions_that_were_edited_give_no_values(make_run):
    run = make_run("tuned", {"rte": 1.0})
    path = run.output_dir / "predictions" / "rte" / "test_t1.jsonl"
    header, *lines = read_lines(path)
    path.write_text(bound_lines(header, lines, "lines"))
    assert "rte" in reporting.gather([run]).values["tuned"]
    path.write_text(path.read_text().replace('"answer": 1', '"answer": 0', 1))
    found = reporting.gather([reporting.load_run("tuned", run.output_dir)])
    assert found.unusable["tuned"]["rte"] == "test_t1.jsonl cannot be read: it was cut off or changed"


def test_predictions_without_the_digest_that_they_need_give_no_values(make_run):
    """With it removed nothing was checked, though today's results bind it."""
    run = make_run("tuned", {"rte": 1.0})
    for number in (t["template"] for t in run.results["datasets"]["rte"]["templates"]):
        _change(run, lambda r, n=number: r["datasets"]["rte"]["templates"][n].update(key="k"))
    found = reporting.gather([reporting.load_run("tuned", run.output_dir)])
    assert found.unusable["tuned"]["rte"] == "test_t0.jsonl lacks the digest of its lines"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dataset": "cb"}, "test_t1.jsonl line 2 is of dataset cb"),
        ({"split": "dev"}, "test_t1.jsonl line 2 is of split dev"),
        ({"template": 4}, "test_t1.jsonl line 2 is of template 4"),
        ({"hash": "ffffffffffffffff"}, "its templates have 39 of 40 examples in common"),
    ],
)
def test_predictions_of_something_else_give_no_values(make_run, change, why):
    run = make_run("tuned", {"rte": 1.0})
    path = run.output_dir / "predictions" / "rte" / "test_t1.jsonl"
    header, first, *rest = read_lines(path)
    path.write_text(bound_lines(header, [first | change, *rest], "lines"))
    found = reporting.gather([reporting.load_run("tuned", run.output_dir)])
    assert found.unusable["tuned"]["rte"] == why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"score": None}, "has a score that is no share"),
        ({"score": 50.3}, "has a score that is no share"),
        ({"prompt": None}, "has a prompt that is no text"),
        ({"prediction": 7}, "has a prediction that is no text"),
    ],
)
def test_lines_that_cannot_be_are_named(make_run, change, why):
    run = make_run("tuned", {"rte": 1.0})
    path = run.output_dir / "predictions" / "rte" / "test_t1.jsonl"
    header, first, *rest = read_lines(path)
    path.write_text(bound_lines(header, [first | change, *rest], "lines"))
    with pytest.raises(FlanError, match=f"test_t1.jsonl line 2 {why}: run python -m flan_jax.eval again"):
        runs.predictions(run, "rte")


@pytest.mark.parametrize(
    ("value", "of_first", "why"),
    [
        (99.0, {"em": 15.0}, "em 99.0000, and templates whose mean is 15.0000"),
        (15.0, {}, "em 15.0000, and templates without it"),
    ],
)
def test_metrics_that_their_templates_do_not_have_are_named(make_run, value, of_first, why):
    run = make_run("tuned", {"rte": 1.0})

    def edited(results):
        figures = results["datasets"]["rte"]
        figures["metrics"] = {"em": value}
        for number, t in enumerate(figures["templates"]):
            t["metrics"] = {"em": 15.0} if number else of_first

    _change(run, edited)
    with pytest.raises(FlanError, match=f"rte has {why}; it was edited"):
        runs.load_run("tuned", run.output_dir)


def test_a_group_of_which_nothing_is_left_says_why(seeds, tmp_path):
    for number, run in enumerate(seeds[1:]):
        _change(run, lambda r, n=number: r["settings"].update(max_input_tokens=512 + n))
    loaded = [reporting.load_run(run.name, run.output_dir) for run in seeds[1:]]
    with pytest.raises(
        FlanError, match="g have no dataset with a result .*its runs were asked with max_input_tokens 512 and 513"
    ):
        reporting.write(loaded, tmp_path / "out", groups={"g": ["tuned seed *"]})


def test_baselines_that_differ_within_a_group_are_said(seeds):
    seeds[1].results["datasets"]["rte"]["random"] = 0.25
    shown = groups.grouped(seeds[1:], {"g": ["tuned seed *"]})
    assert "random of rte (25.0 in tuned seed 0, 50.0 in" in "\n".join(notes(shown, reporting.gather(shown)))


def test_two_records_of_one_models_tuning_are_named(make_run):
    first, second = make_run("untuned", {"rte": 0.0}), make_run("tuned", {"rte": 1.0})
    for run in (first, second):
        run.results["weights"] = "73b03d557e6f910b"
    assert "same weights" not in "\n".join(notes([first, second], reporting.gather([first, second])))
    first.results["tuning"] = {"status": "declared untuned", "datasets": [], "clusters": []}
    text = "\n".join(notes([first, second], reporting.gather([first, second])))
    assert (
        "untuned and tuned are of the same weights, and their records of the tuning differ (declared untuned;" in text
    )


@pytest.mark.parametrize("value", [None, []])
def test_settings_that_are_none_are_named(make_run, value):
    run = make_run("tuned", {"rte": 1.0})
    _change(run, lambda r: r.update(settings=value))
    with pytest.raises(FlanError, match="has settings that are no names with values"):
        runs.load_run("tuned", run.output_dir)


def _cut(path, size):
    path.write_text(path.read_text()[:size])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": 9}, "has the answer 9, and 2 options"),
        ({"answer": -1}, "has the answer -1, and 2 options"),
        ({"answer": None}, "has the answer None"),
        ({"answer": [0]}, "has the answer [0]"),
        ({"answer": True}, "has the answer True"),
        ({"loglikelihood": [-1.0]}, "has no 'loglikelihood' for each of its 2 options"),
        ({"loglikelihood": []}, "has no 'loglikelihood'"),
        ({"loglikelihood": ["x", -1.0]}, "has scores that are not finite"),
        ({"loglikelihood": [None, -1.0]}, "has scores that are not finite"),
        ({"options": []}, "has no options"),
        ({"options": ["a", "b", "c"]}, "has no 'loglikelihood' for each of its 3 options"),
        ({"options": "ab"}, "has no options"),
        ({"tokens": [1]}, "has no 'tokens'"),
        ({"hash": 5}, "has a hash that is no text"),
        ({"hash": None}, "has a hash that is no text"),
    ],
)
def test_a_broken_line_of_predictions_is_one_line(make_run, rewrite, capsys, tmp_path, change, says):
    run = make_run("tuned", {"rte": 1.0})
    path = run.output_dir / "predictions" / "rte" / "test_t2.jsonl"
    rewrite(path, lambda i, line: line | change if i == 4 else line)
    with pytest.raises(SystemExit) as caught:
        binary.main(["--runs", f"tuned={run.output_dir}", f"--output={tmp_path / 'out'}"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert f"{path} line 6 " in line and "run python -m flan_jax.eval again" in line and not (tmp_path / "out").exists()
    assert says in line


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        (["tuned={folder}/results.json"], "results.json is a file: give the folder that it is in"),
        (["a\nb={folder}"], "'a\\nb' is no name for a report"),
        ([" ={folder}"], "' ' is no name for a report"),
        (["tuned={none}"], "there is nothing to report: tuned have no dataset with a result"),
    ],
)
def test_runs_that_make_no_report(make_run, capsys, tmp_path, runs, says):
    run = make_run("tuned", {"rte": 1.0})
    none = make_run("none", {"rte": 1.0})
    _change(none, lambda results: results["datasets"].clear())
    listed = [one.format(folder=run.output_dir, none=none.output_dir) for one in runs]
    with pytest.raises(SystemExit) as caught:
        binary.main(["--runs", *listed, f"--output={tmp_path / 'out'}"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert says in line and not (tmp_path / "out").exists()


def test_a_dataset_without_a_valid_result_is_in_no_mean(make_run):
    both = [make_run("a", {"rte": 1.0, "cb": 1.0}), make_run("bc", {"rte": 1.0, "cb": 1.0})]
    both[1].results["datasets"].pop("cb")
    both[1].results["invalid"] = [{"dataset": "cb", "reason": "invalid: scores are not finite"}]
    both[1].results["skipped"] = [{"dataset": "cb", "reason": "invalid: scores are not finite"}]
    shown = tables.results_table(both)
    (mean,) = shown.means
    assert shown.rows[mean][0].endswith(f"mean of 1 of {len(members('nli'))} datasets")
    assert shown.rows[mean][5] == tables.percent(both[0].figures("rte")["mean"])
    assert "bc skipped cb: invalid" in reporting.markdown(both, reporting.gather(both))


def test_runs_without_a_common_dataset_have_no_mean(make_run):
    both = [make_run("a", {"rte": 1.0}), make_run("bc", {"cb": 1.0})]
    found = reporting.gather(both)
    assert not tables.results_table(both).means
    assert reporting.to_dict(both, found)["runs"][0]["clusters"] == {}
    assert "cb, rte, which not all runs have, in no mean" in reporting.markdown(both, found)
    reporting.page(both, found)


def test_extras_stand_apart(make_run):
    run = make_run("tuned", {"winogrande": 1.0, "wsc": 9.0})
    shown = tables.results_table([run])
    assert [row[0] for row in shown.rows] == [
        "winogrande",
        f"Coreference, mean of 1 of {len(members('coreference'))} datasets",
        "wsc (extra, in no mean)",
    ]
    assert shown.rows[1][5] == shown.rows[0][5].split(" ±")[0]
    assert reporting.to_dict([run], reporting.gather([run]))["clusters"]["coreference"]["extras"] == ["wsc"]


# --------------------------------------------------------------------------------------------------------- wordings


def test_wordings_are_those_that_were_evaluated(make_run):
    run, old = make_run("tuned", {"rte": 1.0}), make_run("old", {"rte": 1.0}, words=False)
    for text in (
        reporting.markdown([run], reporting.gather([run])),
        reporting.page([run], reporting.gather([run])),
    ):
        assert "Wording 3 of rte: {premise}" in text and "not recorded" not in text
    for text in (
        reporting.markdown([old], reporting.gather([old])),
        reporting.page([old], reporting.gather([old])),
    ):
        assert "not recorded" in text and "{hypothesis}" not in text  # nothing of today's catalog


# ----------------------------------------------------------------------------------------------------------- groups


@pytest.fixture
def seeds(make_run):
    first = make_run("untuned", {"rte": 0.1, "cb": 0.1}, count=60)
    return [first, *(make_run(f"tuned seed {i}", {"rte": 1.0, "cb": 1.0}, count=60, seed=i) for i in range(3))]


def test_a_group_is_mean_and_spread_over_its_runs(seeds):
    shown = groups.grouped(seeds, {"tuned": ["tuned seed *"]})
    assert [run.name for run in shown] == ["untuned", "tuned"] and len(shown[1].members) == 3
    each = [run.figures("rte")["mean"] for run in seeds[1:]]
    figures = shown[1].figures("rte")
    assert figures["mean"] == pytest.approx(np.mean(each)) and figures["std"] == pytest.approx(np.std(each, ddof=1))
    by_name = {row[0]: row for row in tables.results_table(shown, reporting.gather(shown)).rows}
    assert by_name["rte"][10] == f"{100 * np.mean(each):.1f} ± {100 * np.std(each, ddof=1):.1f}"
    assert shown[1].title == "tuned · zero-shot · 3 runs"
    found = reporting.gather(shown)
    means = [np.mean([run.figures(n)["mean"] for n in ("rte", "cb")]) for run in seeds[1:]]
    text = reporting.markdown(shown, found)
    assert f"{100 * np.mean(means):.1f} ± {100 * np.std(means, ddof=1):.1f}" in text
    assert found.comparisons[0].datasets["rte"].interval.value == pytest.approx(
        np.mean(each) - seeds[0].figures("rte")["mean"]
    )
    assert reporting.to_dict(shown, found)["runs"][1]["members"] == [f"tuned seed {i}" for i in range(3)]


def test_a_group_says_what_its_runs_say(seeds):
    """What one of the runs has seen, left out, cut or could not define is so of their mean."""
    overlap = {"checked": True, "reason": "", "of": 60, "with": {"qnli": 3}, "kin": {}, "identical": 0}
    for i, run in enumerate(seeds[1:]):
        rte = run.results["datasets"]["rte"]
        rte["overlap"] = overlap | {"seen": (3, 7, 0)[i]}
        rte["skipped_examples"] = i
        rte["templates"][0] |= {"cut_prompts": 2, "unfinished": 5, "undefined": ["macro_f1"][: i % 2]}
    shown = groups.grouped(seeds, {"tuned": ["tuned seed *"]})
    figures = shown[1].figures("rte")
    assert (figures["overlap"]["seen"], figures["overlap"]["checked"], figures["skipped_examples"]) == (7, True, 2)
    assert figures["metric_versions"] == seeds[1].figures("rte")["metric_versions"]
    text = reporting.markdown(shown, reporting.gather(shown))
    assert "7 of 60 records seen" in text and "2 of rte. Its results say which" in text
    assert "6 prompts shortened" in text and "15 of 180 of rte" in text and "macro_f1 of rte is undefined" in text
    seeds[1].results["datasets"]["rte"]["overlap"] = None
    del seeds[1].__dict__["datasets"]
    figures = groups.grouped(seeds, {"tuned": ["tuned seed *"]})[1].figures("rte")
    assert figures["overlap"]["seen"] == 7 and figures["overlap"]["reason"] == "not checked: not all of the runs say"


def test_a_group_has_the_mean_of_every_way_to_score(seeds):
    """Of the sum alone there were means, and a dash for the others."""
    for number, run in enumerate(seeds[1:]):
        run.results["datasets"]["rte"]["shots"] = {"wanted": 5, "mean": 1.0 + number, "without": number, "of": 60}
        if number == 1:
            del run.results["datasets"]["cb"]["mean_per_byte"]
    shown = groups.grouped(seeds, {"tuned": ["tuned seed *"]})
    figures, each = shown[1].figures("rte"), [run.figures("rte") for run in seeds[1:]]
    for name in ("mean_per_token", "mean_per_byte", "mean_per_character"):
        assert figures[name] == pytest.approx(np.mean([one[name] for one in each]))
    assert "mean_per_byte" not in shown[1].figures("cb")
    dev = {way: np.mean([one["dev_ways"][way] for one in each]) for way in each[0]["dev_ways"]}
    assert figures["dev_ways"] == pytest.approx(dev) and figures["best_dev_way"] == max(dev, key=dev.get)
    assert figures["shots"] == {"wanted": 5, "mean": 2.0, "without": 3, "of": 180}
    table = details.rankings_table(shown, reporting.gather(shown))
    cells = dict(zip(table.flat_head, next(row for row in table.rows if row[0] == "rte"), strict=True))
    for title, name in (("sum", "mean"), ("per token", "mean_per_token"), ("per byte", "mean_per_byte")):
        assert cells[f"{shown[1].title}: {title}"] == f"{100 * figures[name]:.1f}"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["tuned=nobody"], "group tuned: there is no run 'nobody', but untuned, tuned seed 0"),
        (["tuned=tuned seed 0"], "group tuned has one run"),
        (["a=tuned seed 0,tuned seed 1", "b=tuned seed 1,tuned seed 2"], "run tuned seed 1 is in the groups a and b"),
        (["untuned=tuned seed *"], "there is a group and a run of the name untuned"),
        (["tuned"], "--group takes NAME=RUN,RUN,..., not 'tuned'"),
        (["t=tuned seed 0,tuned seed 1", "t=tuned seed 2"], "--group has two of the name t"),
    ],
)
def test_bad_groups_are_one_line(seeds, tmp_path, capsys, groups, message):
    listed = [f"{run.name}={run.output_dir}" for run in seeds]
    with pytest.raises(SystemExit):
        binary.main(["--runs", *listed, "--group", *groups, f"--output={tmp_path / 'out'}"])
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert message in line and not (tmp_path / "out").exists()


def test_the_binary_takes_groups(seeds, tmp_path, capsys):
    listed = [f"{run.name}={run.output_dir}" for run in seeds]
    binary.main(["--runs", *listed, "--group", "tuned=tuned seed *", f"--output={tmp_path / 'out'}", "--json"])
    printed = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert set(printed["clusters"]) == {"untuned", "tuned"} and printed["tests"] == 3
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Runs of the groups" in page and "tuned · zero-shot · 3 runs" in page


def test_a_group_leaves_out_what_not_all_have(seeds, make_run):
    more = make_run("tuned seed 9", {"rte": 1.0, "snli": 1.0}, count=60)
    one = groups.as_one("tuned", [*seeds[1:], more])
    assert set(one.datasets) == {"rte"}
    assert {s["dataset"]: s["reason"] for s in one.results["skipped"]} == {
        "cb": "not in tuned seed 9",
        "snli": "not in tuned seed 0, tuned seed 1, tuned seed 2",
    }
    few = make_run("few", {"rte": 1.0}, style="5_shots")
    with pytest.raises(FlanError, match="group tuned has runs of the styles instructions and 5_shots"):
        groups.as_one("tuned", [seeds[1], few])


def test_a_group_without_predictions(seeds):
    for run in seeds[1:]:
        shutil.rmtree(run.output_dir / "predictions")
    shown = groups.grouped(seeds, {"tuned": ["tuned seed *"]})
    found = reporting.gather(shown)
    assert found.unusable["tuned"]["rte"] == "no predictions at hand" and found.worst == {}
    reporting.page(shown, found)


def test_a_group_of_one_folder_twice_has_no_spread(make_run, capsys, tmp_path):
    run = make_run("tuned", {"rte": 1.0})
    folder = run.output_dir
    with pytest.raises(SystemExit) as caught:
        binary.main(["--runs", f"a={folder}", f"b={folder}/../tuned", "--group=g=a,b", f"--output={tmp_path / 'out'}"])
    assert caught.value.code == 2 and not (tmp_path / "out").exists()
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert line.startswith(f"flan_jax: group g has {folder} twice")


def test_markdown_shows_what_a_browser_would_take_for_html(make_run):
    run = make_run("a<b>c", {"rte": 1.0})
    _change(run, lambda r: r["datasets"]["rte"]["templates"][0].update(input="Given <premise> and <script>x</script>"))
    run = reporting.load_run("a<b>c", run.output_dir)
    text = reporting.markdown([run], reporting.gather([run]))
    assert "Given \\<premise> and \\<script>x\\</script>" in text and "a generation \\<dataset>" in text
    assert text.count("<") == text.count("\\<")
