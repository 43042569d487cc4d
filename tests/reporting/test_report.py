import base64
import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from flan_jax import catalog, reporting
from flan_jax import report as binary
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator
from flan_jax.evaluation.figures import cluster_means, ranked, summarize
from flan_jax.json_lines import first_not_finite
from flan_jax.reporting import evidence, runs, statistics, tables

HOSTILE = '</pre><script>document.title="hacked"</script><img src=x onerror=alert(1)> & \ud800 | "quoted"'


def _predictions(rng, record, number, count, skill, prompt="Is it so?"):
    options = list(record.label_words) or ["a", "b", "c"]
    lines = []
    for i in range(count):
        answer = i % len(options)
        scores = rng.normal(size=len(options)) - 5
        scores[answer] += skill
        lines.append(
            {
                "id": f"test-{i}",
                "dataset": record.name,
                "split": "test",
                "template": number,
                "prompt": f"{prompt} {i}",
                "cut_tokens": 0,
                "options": options,
                "answer": answer,
                "loglikelihood": scores.tolist(),
                "tokens": [1] * len(options),
                "bytes": [len(o) for o in options],
            }
        )
    return lines


def _write_predictions(folder, name, number, lines):
    place = folder / "predictions" / name
    place.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(line) for line in ({"key": "k"}, *lines))
    (place / f"test_t{number}.jsonl").write_text(text + "\n")


def _run(folder, name, skills, *, style="instructions", status=evaluator.HELD_OUT, count=40, prompt="Is it so?"):
    """An evaluation on disk: its figures follow from its predictions."""
    rng = np.random.default_rng(len(name))
    output = folder / name
    datasets = {}
    for dataset, skill in skills.items():
        record = catalog.dataset(dataset)
        test = {n: _predictions(rng, record, n, count, skill, prompt) for n in record.forward_templates}
        for number, lines in test.items():
            _write_predictions(output, dataset, number, lines)
        figures = summarize(record, test, {n: lines[:7] for n, lines in test.items()})
        more = {"cluster": record.cluster, "paper_dataset": record.paper_dataset, "status": status}
        datasets[dataset] = more | figures
    results = {
        "checkpoint": "gemma step 0",
        "tuning": {"status": "tuned", "datasets": ["sst2"], "clusters": ["sentiment"]},
        "settings": {"style": style},
        "joint": "eos",
        "datasets": datasets,
        "clusters": cluster_means(datasets),
        "skipped": [{"dataset": "squad_v1", "reason": "a generation <dataset>"}],
    }
    (output / "results.json").write_text(json.dumps(results))
    return reporting.load_run(name, output)


def _add_generation(run, name, metric, scores_TxE=None):
    """Adds a generation dataset by the contract of `figures.summarize`."""
    record = catalog.dataset(name)
    listed = []
    for t, number in enumerate(record.forward_templates[:2]):
        lines = [
            {"id": str(i), "template": number, "prompt": f"Say {i}", "prediction": HOSTILE, "references": ["yes"]}
            | ({} if scores_TxE is None else {"score": float(scores_TxE[t][i])})
            for i in range(5)
        ]
        _write_predictions(run.output_dir, name, number, lines)
        value = 0.25 if scores_TxE is None else float(np.mean(scores_TxE[t]))
        listed.append({"template": number, "value": value, "dev": None, "cut_prompts": 0})
    run.results["datasets"][name] = {
        "cluster": record.cluster,
        "paper_dataset": record.paper_dataset,
        "status": evaluator.HELD_OUT,
        "metric": metric,
        "examples": 5,
        "mean": float(np.mean([t["value"] for t in listed])),
        "std": 0.0,
        "best_dev": None,
        "best_dev_template": None,
        "random": None,
        "majority": None,
        "templates": listed,
    }
    run.results["clusters"].update(cluster_means(run.results["datasets"]))


@pytest.fixture
def pair(tmp_path):
    return [
        _run(tmp_path, "untuned", {"snli": 0.2, "rte": 0.3}),
        _run(tmp_path, "tuned", {"snli": 1.0, "rte": 1.5, "qnli": 2.0}),
    ]


# ------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("count", [1, 7, 1500])
def test_bootstrap_is_the_naive_loop(count):
    values = np.random.default_rng(1).normal(size=count)
    rng = np.random.default_rng(2)
    naive = [np.mean([values[rng.integers(0, count)] for _ in range(count)]) for _ in range(30)]
    found = statistics.bootstrap_means(values, np.random.default_rng(2), 30)
    np.testing.assert_allclose(found, naive)
    at_once = statistics.bootstrap_means(values, np.random.default_rng(2), 2000)  # in several blocks, for the largest
    np.testing.assert_allclose(at_once[:30], naive)


def test_the_interval_is_that_of_paired_resamples():
    rng = np.random.default_rng(3)
    first, other = rng.integers(0, 2, (50, 3)).astype(float), rng.integers(0, 2, (50, 4)).astype(float)
    found = statistics.paired_difference(first, other, np.random.default_rng(4), 500)
    again = np.random.default_rng(4)
    naive = []
    for _ in range(500):
        chosen = again.integers(0, 50, 50)
        naive.append(other[chosen].mean(1).mean() - first[chosen].mean(1).mean())
    np.testing.assert_allclose(found.difference, other.mean() - first.mean())
    np.testing.assert_allclose(found.bounds, np.percentile(naive, [2.5, 97.5]))
    np.testing.assert_allclose(found.stderr, np.std(naive, ddof=1))


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        first = (rng.random((100, 1)) < 0.5).astype(float)
        other = (rng.random((100, 1)) < 0.6).astype(float)
        low, high = statistics.paired_difference(first, other, rng, 300).bounds
        covered += low <= 0.1 <= high
    assert 0.89 < covered / 300 < 0.985


def test_calibration_error_is_the_naive_one():
    rng = np.random.default_rng(6)
    confidences = np.concatenate([rng.random(500), [0.1, 0.2, 1.0, 0.30000000000000004]])
    right = rng.random(504) < confidences**2
    naive = 0.0
    for b in range(10):
        here = [i for i, c in enumerate(confidences) if b / 10 < c <= (b + 1) / 10 or (b == 0 and c == 0)]
        if here:
            gap = np.mean([right[i] for i in here]) - np.mean([confidences[i] for i in here])
            naive += len(here) / 504 * abs(gap)
    whole = statistics.Calibration.of(confidences, right)
    np.testing.assert_allclose(whole.error, naive, atol=0.002)  # a border may round to either side
    halves = (statistics.Calibration.of(confidences[i::2], right[i::2]) for i in (0, 1))
    np.testing.assert_allclose(sum(halves, statistics.Calibration.of(confidences[:0], right[:0])).error, whole.error)
    assert sum(b["count"] for b in whole.to_list()) == 504


def test_option_probabilities_are_a_softmax():
    found = statistics.option_probabilities(np.array([-1000.0, -1000.0 + np.log(3)]))
    np.testing.assert_allclose(found, [0.25, 0.75])


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


def test_differences_pair_examples_by_id(pair, tmp_path):
    for path in (tmp_path / "tuned" / "predictions" / "rte").glob("*.jsonl"):  # another order, and one other example
        header, *lines = path.read_text().strip().split("\n")
        lines[0] = lines[0].replace('"test-0"', '"test-new"')
        path.write_text("\n".join([header, *lines[::-1]]) + "\n")
    (comparison,) = reporting.gather(pair).comparisons
    assert set(comparison.datasets) == {"snli", "rte"} and comparison.clusters == {}
    assert comparison.examples == {"snli": 40, "rte": 39}
    shares = []
    for run in pair:
        lines = [p for rows in runs.predictions(run, "rte").values() for p in rows]
        shares.append(np.mean([np.argmax(p["loglikelihood"]) == p["answer"] for p in lines if p["id"] in COMMON]))
    np.testing.assert_allclose(comparison.datasets["rte"].difference, shares[1] - shares[0])


COMMON = {f"test-{i}" for i in range(1, 40)}


def test_the_difference_of_a_cluster_counts_variants_once(tmp_path):
    skills = {"anli_r1": 0.1, "anli_r2": 0.5, "rte": 1.0}
    both = [_run(tmp_path, "a", skills), _run(tmp_path, "bc", {n: s + 1 for n, s in skills.items()})]
    (comparison,) = reporting.gather(both).comparisons
    first, second, rte = (comparison.datasets[n] for n in skills)
    expected = ((first.difference + second.difference) / 2 + rte.difference) / 2
    np.testing.assert_allclose(comparison.clusters["nli"].difference, expected)
    a, b = (run.results["clusters"]["nli"]["mean"] for run in both)
    np.testing.assert_allclose(comparison.clusters["nli"].difference, b - a)


def test_the_bootstrap_is_seeded(pair):
    once, again, other = reporting.gather(pair), reporting.gather(pair), reporting.gather(pair, seed=1)
    bounds = [g.comparisons[0].datasets["snli"].bounds for g in (once, again, other)]
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
    clean = [f"test-{i}" for i in range(40) if i % 4]
    dirty = [{"id": f"test-{i}"} for i in range(0, 40, 4)]
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"datasets": {"rte": {"test": {"clean": clean, "dirty": dirty}}}}))
    found = reporting.gather(pair, path)
    for run in pair:
        (name,) = found.clean[run.name]
        shares = [
            np.mean([np.argmax(p["loglikelihood"]) == p["answer"] for p in lines if p["id"] in clean])
            for lines in runs.predictions(run, name).values()
        ]
        figures = found.clean[run.name]["rte"]
        np.testing.assert_allclose([figures["mean"], figures["std"]], [np.mean(shares), np.std(shares, ddof=1)])
        assert (figures["examples"], figures["clean"]) == (40, 30)
    shown = tables.clean_table(pair, found)
    assert shown.rows[0][:3] == ("rte", "30 of 40", "25.0")
    path.write_text(json.dumps({"datasets": {"rte": {"test": {"clean": clean, "dirty": []}}}}))
    with pytest.raises(FlanError, match="10 examples of rte in run 'untuned' are not in"):
        reporting.gather(pair, path)
    path.write_text("{}")
    with pytest.raises(FlanError, match="no contamination results in"):
        reporting.gather(pair, path)


def test_without_predictions_only_the_results_are_shown(pair, tmp_path):
    shutil.rmtree(tmp_path / "untuned" / "predictions")
    (tmp_path / "tuned" / "predictions" / "snli" / "test_t0.jsonl").write_text('{"key": "k"}\n')  # of another job
    found = reporting.gather(pair)
    assert found.values["untuned"] == {} and set(found.values["tuned"]) == {"rte", "qnli"}
    assert found.comparisons[0].datasets == {}
    text = reporting.markdown(pair, found)
    assert "untuned has no predictions of single examples for snli, rte" in text
    assert "Calibration" in reporting.page(pair, found)


# ----------------------------------------------------------------------------------------------------------- tables


def test_table_has_datasets_and_cluster_mean(pair):
    shown = tables.results_table(pair)
    assert all(len(row) == len(shown.head) == sum(n for _, n in shown.groups) for row in shown.rows)
    by_name = {row[0]: row for row in shown.rows}
    figures = pair[1].results["datasets"]["snli"]
    assert by_name["snli"][8] == f"{100 * figures['mean']:.1f} ± {100 * figures['std']:.1f}"
    assert by_name["snli"][9].endswith(f"(t{figures['best_dev_template']})")
    assert by_name["qnli"][5:8] == ("–", "–", "–")
    assert shown.rows[min(shown.means)][0] == "Natural language inference, mean"
    means = [pair[1].results["datasets"][n]["mean"] for n in ("snli", "rte", "qnli")]
    assert by_name["Natural language inference, mean"][8] == f"{100 * np.mean(means):.1f}"


def test_what_was_skipped_for_one_reason_stands_in_one_line(pair):
    reason = "no examples of '{0}' in here: run prepare --datasets={0}; which"
    skipped = [{"dataset": n, "reason": reason.format(n)} for n in ("wic", "copa")]
    skipped.append({"dataset": "drop", "reason": "too long"})
    run = dataclasses.replace(pair[0], results=pair[0].results | {"skipped": skipped})
    lines = [line for line in tables.notes([run], reporting.gather([run])) if "skipped" in line]
    expected = "untuned skipped wic, copa: no examples of 'wic,copa' in here: run prepare --datasets=wic,copa; which"
    assert lines == [expected, "untuned skipped drop: too long"]


def test_markdown_is_a_table_with_all_that_a_reader_needs(pair):
    text = reporting.markdown(pair, reporting.gather(pair))
    lines = text.split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("| dataset"))
    assert lines[first + 1] == "|" + "---|" * (lines[first].count("|") - 1)
    assert "| snli | accuracy | 40 | 33.3 |" in text
    assert "| **Natural language inference, mean** |" in text
    assert "zero-shot, held out" in text and "untuned skipped squad_v1" in text
    assert "## tuned beside untuned" in text and "95 % interval" in text
    assert tables.Table((("", 1),), ("a",), [("x | y\nz",)]).markdown().endswith("| x \\| y z |")


def test_shots_and_styles_are_named(tmp_path):
    shots = _run(tmp_path, "few", {"snli": 1.0}, style="5_shots")
    gpt3 = _run(tmp_path, "before", {"snli": 1.0}, style="gpt3")
    shared = _run(tmp_path, "same", {"snli": 1.0}, style="5_shared_shots")
    assert (shots.title, gpt3.title, shared.title) == ("few (5 shots)", "before (zero-shot, gpt3)", "same (5 shots)")
    dataset, cluster = tables.results_table([gpt3, shots]).rows
    assert (dataset[7], dataset[10]) == (cluster[7], cluster[10]) == ("zero-shot, held out", "held out")


def test_seen_is_shown_as_seen(tmp_path):
    run = _run(tmp_path, "tuned", {"snli": 0.5}, status=evaluator.SEEN)
    text = reporting.markdown([run], reporting.gather([run]))
    assert "| seen |" in text and "held out |" not in text


def test_results_of_before_the_headline_metric_are_read(pair):
    for figures in pair[0].results["datasets"].values():
        del figures["metric"]
    assert tables.results_table(pair).rows[0][1] == "accuracy"


def test_generation_datasets_stand_in_every_table_that_fits(tmp_path):
    both = [_run(tmp_path, "a", {"rte": 0.5}), _run(tmp_path, "bc", {"rte": 0.5})]
    scores = np.random.default_rng(0).random((2, 2, 5))
    for run, scores_TxE in zip(both, scores, strict=True):
        _add_generation(run, "squad_v1", "f1", scores_TxE)
        _add_generation(run, "wmt14_enfr", "bleu")
    found = reporting.gather(both)
    rows = {row[0]: row for row in tables.results_table(both).rows}
    assert rows["squad_v1"][1:5] == ("f1", "5", "–", "–") and rows["wmt14_enfr"][5] == "25.0 ± 0.0"
    assert set(found.comparisons[0].datasets) == {"rte", "squad_v1"}
    difference = scores[1].mean() - scores[0].mean()
    np.testing.assert_allclose(found.comparisons[0].datasets["squad_v1"].difference, difference)
    assert [row[0] for row in tables.rankings_table(both, found).rows] == ["rte"]
    text = reporting.page(both, found)
    assert "wmt14_enfr" in reporting.markdown(both, found) and "&lt;script&gt;" in text and "<script" not in text


# ------------------------------------------------------------------------------------------------------------- page


def test_page_is_self_contained_and_escaped(tmp_path):
    run = _run(tmp_path, "x<b>y", {"snli": -1.0}, prompt=HOSTILE)
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
    assert found["runs"][1]["datasets"] == pair[1].results["datasets"]
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
        (["a={tuned}", "a={tuned}"], "a report needs runs with names of their own, not a, a"),
        (["a={odd}"], "results.json holds no results of an evaluation"),
    ],
)
def test_errors_are_one_line(pair, tmp_path, capsys, names, message):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "results.json").write_text("[]")
    names = [name.format(tuned=tmp_path / "tuned", odd=tmp_path / "odd") for name in names]
    with pytest.raises(SystemExit) as caught:
        binary.main(["--runs", *names, f"--output={tmp_path / 'out'}"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert message in line and not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------- browser


@pytest.mark.parametrize("width", [1400, 420])
def test_a_browser_renders_the_page_without_errors(open_page, tmp_path, width):
    names = ["snli", "rte", "anli_r1", "copa", "record", "definite_pronoun_resolution"]
    listed = [
        _run(tmp_path, "untuned", dict.fromkeys(names, 0.1), style="gpt3"),
        _run(tmp_path, "a_run_with_a_rather_long_name", dict.fromkeys(names, 1.0), prompt=HOSTILE),
        _run(tmp_path, "few", dict.fromkeys(names, 1.5), style="5_shots", prompt=HOSTILE + "x" * 3000),
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
def test_results_that_are_not_finite_are_refused_by_name(tmp_path, number, where):
    _run(tmp_path, "old", {"rte": 1.0})
    path = tmp_path / "old" / "results.json"
    values = json.loads(path.read_text())
    values["datasets"]["rte"][where] = "HERE"
    path.write_text(json.dumps(values).replace('"HERE"', number))
    with pytest.raises(FlanError, match=r"old/results\.json is no result \(.* is no number of a result\): run python"):
        reporting.load_run("old", tmp_path / "old")


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_predictions_that_are_not_finite_are_refused_by_name(tmp_path, capsys, number):
    run = _run(tmp_path, "old", {"rte": 1.0})
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


def test_what_is_undefined_is_said(tmp_path):
    run = _run(tmp_path, "tuned", {"cola": 50.0})
    for figures in run.results["datasets"]["cola"]["templates"][:2]:
        figures["undefined"] = ["matthews"]
    count = len(run.results["datasets"]["cola"]["templates"])
    said = f"tuned: matthews of cola is undefined with 2 of {count} templates, where all answers are the same"
    assert any(note.startswith(said) for note in tables.notes([run], evidence.gather([run])))
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
