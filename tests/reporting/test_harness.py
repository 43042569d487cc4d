"""Logs that lm-evaluation-harness itself wrote, of small tasks over local files."""

import dataclasses
import json

import numpy as np
import pytest

from flan_jax import report as binary
from flan_jax import reporting
from flan_jax.errors import FlanError
from flan_jax.reporting import harness, matching

pytest.importorskip("lm_eval.evaluator")  # tests/lm_eval is a package of that name too

COUNT = 60
TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: {target}
metric_list:
{metrics}
metadata:
  version: 3.0
{more}
"""


def _records():
    animals = ("the old red fox", "a small grey goose", "our neighbour's black cat")
    return [
        {
            "sentence": f"{animals[i % 3]} number {i} was seen in the garden",
            "question": f"was it number {i}",
            "label": i % 2,
        }
        for i in range(COUNT)
    ]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two models' logs: {seed: folder}."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("harness")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _records()))
    metrics = "  - metric: {}\n".format
    for name, values in {
        "definite_pronoun_resolution": {
            "kind": "multiple_choice",
            "text": "{{sentence}}, {{question}}?",
            "target": "label",
            "metrics": metrics("acc") + metrics("acc_norm"),
            "more": "doc_to_choice: ['yes', 'no']",
        },
        "tiny_generation": {
            "kind": "generate_until",
            "text": "{{sentence}}: {{question}}?",
            "target": "'{{sentence}}'",
            "metrics": metrics("exact_match"),
            "more": "generation_kwargs: {until: ['x']}",
        },
        "tiny_translation": {
            "kind": "generate_until",
            "text": "{{sentence}}",
            "target": "'{{sentence}}'",
            "metrics": metrics("bleu"),
            "more": "generation_kwargs: {until: ['x']}",
        },
    }.items():
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, file=folder / "data.jsonl", **values))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = {}
    for seed in (1, 2):
        tracker = EvaluationTracker(output_path=str(folder / f"out{seed}"))
        results = simple_evaluate(
            model="dummy",
            tasks=["definite_pronoun_resolution", "tiny_generation", "tiny_translation"],
            task_manager=manager,
            evaluation_tracker=tracker,
            log_samples=True,
            bootstrap_iters=0,
            random_seed=seed,
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task in results["configs"]:
            tracker.save_results_samples(task_name=task, samples=samples[task])
        found[seed] = folder / f"out{seed}"
    return found


@pytest.fixture
def log(logs, tmp_path):
    """A copy of one log that a test may damage: (folder, results, samples of the ranked task)."""
    import shutil

    folder = tmp_path / "log"
    shutil.copytree(logs[1], folder)
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob("samples_definite*.jsonl")
    return folder, results, samples


def test_a_log_is_a_run(logs):
    run = reporting.load_run("theirs", logs[1])
    assert set(run.datasets) == {"definite_pronoun_resolution", "tiny_generation"}
    (skipped,) = run.results["skipped"]
    assert skipped["dataset"] == "tiny_translation" and "none of its metrics is a mean" in skipped["reason"]
    (path,) = logs[1].rglob("results_*.json")
    theirs = json.loads(path.read_text())["results"]["definite_pronoun_resolution"]
    figures = run.figures("definite_pronoun_resolution")
    assert figures["mean"] == pytest.approx(theirs["acc,none"]) and figures["metric"] == "accuracy"
    assert figures["label"] == "zero-shot, unknown" and figures["cluster"] == "coreference"
    assert figures["metrics"]["acc_norm"] == pytest.approx(100 * theirs["acc_norm,none"])
    assert figures["templates"][0]["input"] == "{{sentence}}, {{question}}?"
    generated = run.figures("tiny_generation")
    assert (generated["metric"], generated["cluster"]) == ("exact_match", harness.CLUSTER)
    found = reporting.gather([run])
    assert found.unusable == {"theirs": {}}
    value = found.values["theirs"]["definite_pronoun_resolution"]
    assert value.values_ExT.mean() == pytest.approx(theirs["acc,none"]) and value.calibration is not None
    text = reporting.markdown([run], found)
    assert "theirs · lm-evaluation-harness" in text and "task version 3.0" in text and "tiny_generation (extra" in text


def test_two_logs_stand_the_same_tests(logs, tmp_path, capsys):
    listed = [f"m{seed}={folder}" for seed, folder in logs.items()]
    binary.main(["--runs", *listed, f"--output={tmp_path / 'out'}", "--json"])
    printed = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    (comparison,) = printed["comparisons"]
    found = comparison["datasets"]["definite_pronoun_resolution"]
    assert found["examples"] == COUNT and found["p"] is not None
    right = []
    for folder in logs.values():
        (path,) = folder.rglob("samples_definite*.jsonl")
        right.append([json.loads(line)["acc"] for line in path.read_text().splitlines()])
    assert found["difference"] == pytest.approx(np.mean(right[1]) - np.mean(right[0]))
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "lm-evaluation-harness" in page and "zero-shot, unknown" in page


def test_a_log_beside_a_run_of_ours_pairs_by_text(logs, make_run, rewrite):
    ours = make_run("ours", {"definite_pronoun_resolution": 0.5}, count=COUNT)
    records = _records()[::-1]

    def asked(i, line):
        said = f"Read:\n\n{records[i]['sentence'].upper()}.\nAnd say: {records[i]['question']}\nOPTIONS:\n- yes"
        return line | {"prompt": said}

    for path in (ours.output_dir / "predictions" / "definite_pronoun_resolution").iterdir():
        rewrite(path, asked)
    theirs = reporting.load_run("theirs", logs[1])
    (comparison,) = reporting.gather([ours, theirs]).comparisons
    found = comparison.datasets["definite_pronoun_resolution"]
    assert found.examples == COUNT
    values = reporting.gather([ours, theirs]).values
    mine = values["ours"]["definite_pronoun_resolution"].values_ExT.mean(1)[::-1]
    their = values["theirs"]["definite_pronoun_resolution"].values_ExT[:, 0]
    assert found.interval.stderr == pytest.approx((their - mine).std(ddof=1) / np.sqrt(COUNT), rel=0.1)


def _ours_instead(results, checkpoint="runs/tuned", clusters=("sentiment",)):
    """Makes a log one of our own engine's."""
    whole = json.loads(results.read_text())
    tuning = {"status": "tuned", "datasets": [], "clusters": list(clusters), "text": []}
    about = {"checkpoint": checkpoint, "checkpoint_digest": checkpoint * 2, "tuning": tuning, "joint": "eos"}
    whole["config"] |= {"model": "flan_jax", "model_args": {"checkpoint": checkpoint}, "flan_jax": about}
    results.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("clusters", "status"),
    [
        (("sentiment",), "held out"),
        (("coreference",), "seen"),
        (("unknown", "nli"), "held out"),
        (("weather",), "held out"),
    ],
)
def test_our_own_engine_says_what_its_model_was_tuned_on(log, clusters, status):
    folder, results, _ = log
    _ours_instead(results, clusters=clusters)
    run = reporting.load_run("tuned", folder)
    found = {name: figures["label"] for name, figures in run.datasets.items()}
    expected = "zero-shot, unknown" if "unknown" in clusters else f"zero-shot, {status}"
    assert found == {"definite_pronoun_resolution": expected, "tiny_generation": "zero-shot, unknown"}
    text = reporting.markdown([run], reporting.gather([run]))
    assert f"runs/tuned, tuned; its tuning mixtures held {', '.join(clusters)}; prompt and option joined by eos" in text


@pytest.mark.parametrize(
    "tuning",
    [
        {"status": "Unknown", "datasets": [], "clusters": []},
        {"status": "held out", "datasets": [], "clusters": ["sentiment"]},
        {"status": "tuned", "datasets": ["sst2"], "clusters": []},  # contradicts itself
        {"status": "tuned", "datasets": [], "clusters": [], "text": [{"dataset": "wsc273"}]},
        {"status": "declared untuned", "datasets": ["sst2"], "clusters": ["sentiment"]},
        {"status": "tuned", "datasets": [], "clusters": []},
        {"status": "tuned", "datasets": [], "clusters": [["nli"]]},
        {"status": "tuned", "datasets": [{}], "clusters": []},
        {"status": "tuned", "datasets": [], "clusters": [], "text": [5]},
    ],
)
def test_no_label_follows_from_an_account_that_cannot_be(log, tuning):
    folder, results, _ = log
    _ours_instead(results)
    whole = json.loads(results.read_text())
    whole["config"]["flan_jax"]["tuning"] = tuning
    results.write_text(json.dumps(whole))
    assert reporting.load_run("a", folder).datasets["definite_pronoun_resolution"]["status"] == "unknown"


def test_another_programs_model_is_not_ours(log):
    folder, results, _ = log
    _ours_instead(results)
    whole = json.loads(results.read_text())
    whole["config"]["model"] = "hf"
    results.write_text(json.dumps(whole))
    assert reporting.load_run("a", folder).datasets["definite_pronoun_resolution"]["status"] == "unknown"


def _second(results, samples, change=lambda whole: None):
    """A later log of the same folder, with the same samples."""
    later = results.with_name(results.name.replace("results_2", "results_3"))
    whole = json.loads(results.read_text())
    change(whole)
    later.write_text(json.dumps(whole))
    for path in samples.parent.glob("samples_*_2*.jsonl"):
        path.with_name(path.name.replace("_2", "_3", 1)).write_text(path.read_text())
    return later


@pytest.mark.parametrize(
    "change",
    [lambda w: w["config"].update(model_sha="b"), lambda w: w.update(model_name="another")],
    ids=["sha", "name"],
)
def test_logs_of_other_weights_in_one_folder_are_refused(log, change):
    folder, results, samples = log
    _second(results, samples, change)
    with pytest.raises(FlanError, match="holds logs of different runs"):
        reporting.load_run("a", folder)


def test_an_older_log_does_not_stand_for_the_newest(log):
    folder, results, samples = log
    later = _second(results, samples)
    later.with_name(samples.name.replace("_2", "_3", 1)).unlink()
    run = reporting.load_run("a", folder)
    assert set(run.datasets) == {"tiny_generation"}
    assert "no samples in the harness's newest log" in str(run.results["skipped"])


def test_two_tasks_with_one_name_of_ours_stay_two(log):
    folder, results, samples = log
    whole = json.loads(results.read_text())
    for key in ("results", "configs", "versions", "n-shot", "n-samples"):
        whole[key]["definitepronoun_resolution"] = whole[key]["definite_pronoun_resolution"]
    results.write_text(json.dumps(whole))
    name = samples.name.replace("definite_pronoun", "definitepronoun")
    samples.with_name(name).write_text(samples.read_text())
    found = reporting.load_run("a", folder).datasets
    assert {"definite_pronoun_resolution", "definitepronoun_resolution"} < set(found)


def test_scores_without_context_are_no_options(log):
    """acc_mutual_info subtracts the likelihoods of the options alone, which stand behind the others."""
    folder, _, samples = log
    expected = reporting.load_run("a", folder).figures("definite_pronoun_resolution")["random"]

    def alone(lines):
        for line in lines:
            for i in (0, 1):
                option = line["arguments"][f"gen_args_{i}"]["arg_1"]
                line["arguments"][f"gen_args_{i + 2}"] = {"arg_0": "", "arg_1": option}
                line["filtered_resps"].append(["-60.0", "False"])
        return lines

    _rewrite(samples, alone)
    assert reporting.load_run("a", folder).figures("definite_pronoun_resolution")["random"] == expected == 0.5


@pytest.mark.parametrize(
    "change",
    [
        lambda line, i: line["arguments"][f"gen_args_{i}"].update(arg_1=" AB"[i + 1]),  # other options
        lambda line, i: line["arguments"][f"gen_args_{i}"].update(
            arg_0=line["arguments"][f"gen_args_{i}"]["arg_0"] + " "
        ),
    ],
    ids=["options", "white space"],
)
def test_other_options_and_white_space_are_other_words(log, logs, change):
    folder, _, samples = log

    def changed(lines):
        for line in lines:
            for i in (0, 1):
                change(line, i)
        return lines

    _rewrite(samples, changed)
    first, other = reporting.load_run("first", logs[2]), reporting.load_run("other", folder)
    assert reporting.gather([first, other]).comparisons[0].reworded == ["definite_pronoun_resolution"]
    same = reporting.load_run("same", logs[1])
    group = reporting.grouped([first, same, other], {"both": ["same", "other"]})
    left = {"dataset": "definite_pronoun_resolution", "reason": "its runs were asked in other words"}
    assert left in group[1].results["skipped"]


def test_one_record_many_times_is_one(log, logs):
    """Whatever its numbers: 60 copies give no verdict, and neither do records on six texts."""
    folder, _, samples = log
    _rewrite(samples, lambda lines: [line | {"doc_hash": "0" * 64} for line in lines])
    both = [reporting.load_run("a", folder), reporting.load_run("b", folder)]
    assert reporting.gather(both).comparisons[0].datasets["definite_pronoun_resolution"].groups == 1
    texts = [" ".join(f"w{i}{j}" for j in range(20)) for i in range(6)]
    _rewrite(
        samples,
        lambda lines: [
            line | {"doc_hash": f"{i:064x}", "doc": line["doc"] | {"text": texts[i % 6]}}
            for i, line in enumerate(lines)
        ],
    )
    both = [reporting.load_run("a", folder), reporting.load_run("b", folder)]
    found = reporting.gather(both).comparisons[0].datasets["definite_pronoun_resolution"]
    assert (found.groups, found.verdict) == (6, "n < 50")


def test_other_filters_are_not_compared(log, logs):
    folder, results, samples = log
    _rewrite(samples, lambda lines: [line | {"filter": "strict"} for line in lines])
    whole = json.loads(results.read_text())
    own = whole["results"]["definite_pronoun_resolution"]
    whole["results"]["definite_pronoun_resolution"] = {k.replace(",none", ",strict"): v for k, v in own.items()}
    results.write_text(json.dumps(whole))
    both = [reporting.load_run("a", logs[1]), reporting.load_run("b", folder)]
    apart = reporting.gather(both).comparisons[0].apart
    assert apart["definite_pronoun_resolution"] == "its answers are filtered by none in a and strict in b"


def test_one_log_twice_is_no_group(logs):
    (inner,) = (path.parent for path in logs[2].rglob("results_*.json"))
    runs = [reporting.load_run(name, folder) for name, folder in (("a", logs[1]), ("b", logs[2]), ("c", inner))]
    with pytest.raises(FlanError, match="twice: a spread over runs needs runs of their own"):
        reporting.grouped(runs, {"g": ["b", "c"]})


def test_copies_of_a_log_and_logs_in_other_words_are_no_group(log, logs):
    """58.3 ± 7.1 of two descriptions, and ± 0.0 of one log in two folders, and no word."""
    folder, _, samples = log
    runs = [reporting.load_run("a", logs[1]), reporting.load_run("b", folder)]
    with pytest.raises(FlanError, match="a and b, which are the same model, asked the same"):
        reporting.grouped(runs, {"g": ["a", "b"]})

    def told(lines):
        for line in lines:
            for one in line["arguments"].values():
                one["arg_0"] = "Answer as a pirate would. " + one["arg_0"]
        return lines

    _rewrite(samples, told)
    runs[1] = reporting.load_run("b", folder)
    (group,) = reporting.grouped(runs, {"g": ["a", "b"]})
    left = {"dataset": "definite_pronoun_resolution", "reason": "its runs were asked in other words"}
    assert list(group.datasets) == ["tiny_generation"] and left in group.results["skipped"]


def test_a_group_says_what_its_runs_do_not_share(log, logs):
    folder, results, _ = log
    _ours_instead(results)
    runs = [reporting.load_run("base", logs[1]), reporting.load_run("x", folder), reporting.load_run("y", logs[2])]
    with pytest.raises(FlanError, match="runs of models whose tuning is tuned and nobody says what it was tuned on"):
        reporting.grouped(runs, {"g": ["x", "y"]})
    tuned = {"status": "tuned", "datasets": ["trec"], "clusters": ["miscellaneous"]}
    runs[2] = dataclasses.replace(runs[2], results={**runs[2].results, "tuning": tuned})
    for run in runs[1:]:
        next(iter(run.results["datasets"].values()))["label"] = "zero-shot, unknown"
    group = reporting.grouped(runs, {"g": ["x", "y"]})
    text = reporting.markdown(group, reporting.gather(group))
    assert "x: tuned; its tuning mixtures held sentiment; y: tuned; its tuning mixtures held miscellaneous" in text
    assert "joined by eos or what is not known" in text


def test_a_ranked_run_beside_a_generated_one_is_shown(log, logs, tmp_path):
    folder, results, samples = log

    def generated(lines):
        for line in lines:
            value = line.pop("acc")
            line.pop("acc_norm")
            line |= {"metrics": ["exact_match"], "exact_match": value, "filtered_resps": ["yes"]}
            line["arguments"] = {"gen_args_0": {"arg_0": "Is it so?", "arg_1": {"until": ["x"]}}}
        return [dict(line) for line in lines]

    _rewrite(samples, generated)
    whole = json.loads(results.read_text())
    own = whole["results"]["definite_pronoun_resolution"]
    own["exact_match,none"] = own.pop("acc,none")
    results.write_text(json.dumps(whole))
    both = [reporting.load_run("a", folder), reporting.load_run("b", logs[2])]
    paths = reporting.write(both, tmp_path / "out")
    assert "measured by exact_match" in paths["md"].read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line | {"target": "5" * 5000},
        lambda line: line | {"filtered_resps": [[10**400, False], [1, False]]},
        lambda line: line | {"metrics": [["acc"]]},
        lambda line: {k: v for k, v in line.items() if k != "acc"},
    ],
)
def test_strange_samples_end_in_one_line(log, change):
    folder, _, samples = log
    _rewrite(samples, lambda lines: [change(line) for line in lines])
    try:
        found = reporting.load_run("a", folder).datasets
    except FlanError as error:
        assert "\n" not in str(error)
    else:  # another metric of it, or none
        assert found.get("definite_pronoun_resolution", {}).get("metric") != "accuracy"


@pytest.mark.parametrize("about", [None, [], {}, {"tuning": "much"}, {"tuning": {"status": "tuned", "datasets": 3}}])
def test_what_is_no_account_of_a_model_says_nothing(log, about):
    folder, results, _ = log
    whole = json.loads(results.read_text())
    whole["config"]["flan_jax"] = about
    results.write_text(json.dumps(whole))
    assert reporting.load_run("a", folder).datasets["definite_pronoun_resolution"]["status"] == "unknown"


def test_logs_of_two_checkpoints_in_one_folder_are_refused(log):
    """The harness names folders by the model, and has one name for all of our checkpoints."""
    folder, results, samples = log
    later = _second(results, samples)
    assert reporting.load_run("a", folder).datasets  # the same model once more
    _ours_instead(later)
    with pytest.raises(FlanError, match="holds logs of different runs, results_2.* and results_3.*runs/tuned"):
        reporting.load_run("a", folder)


def test_two_logs_whose_prompts_differ_say_so(log, logs):
    folder, _, samples = log
    first = reporting.load_run("first", logs[1])
    assert reporting.gather([first, reporting.load_run("again", logs[2])]).comparisons[0].reworded == []
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    for line in lines:
        for argument in line["arguments"].values():
            argument["arg_0"] = f"Read this. {argument['arg_0']}"
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    both = [first, reporting.load_run("again", folder)]
    assert reporting.gather(both).comparisons[0].reworded == ["definite_pronoun_resolution"]
    said = "again beside first: definite_pronoun_resolution asked in other words, or with other templates."
    assert said in reporting.markdown(both, reporting.gather(both))


def test_no_common_text_no_comparison(logs, make_run):
    ours = make_run("ours", {"definite_pronoun_resolution": 0.5}, count=COUNT)
    theirs = reporting.load_run("theirs", logs[1])
    (comparison,) = reporting.gather([ours, theirs]).comparisons
    assert comparison.datasets == {}
    assert "no record of the one's log" in comparison.apart["definite_pronoun_resolution"]


def test_line_ends_of_windows(log):
    folder, results, samples = log
    expected = reporting.load_run("a", folder).figures("definite_pronoun_resolution")
    for path in (results, samples):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert reporting.load_run("a", folder).figures("definite_pronoun_resolution") == expected


def _acc_of_the_first(samples, value):
    """The samples with another accuracy of the first that has not this one."""
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    next(line for line in lines if line["acc"] != value)["acc"] = float(value)
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r, s: s.write_text(s.read_text()[:-200]), "line 60, is no sample: not JSON"),
        (lambda r, s: s.write_text("\n".join(s.read_text().split("\n")[:-9])), "has 52 of the 60 samples"),
        (lambda r, s: s.write_text(_acc_of_the_first(s, 0)), "they do not belong"),
        (lambda r, s: s.write_text(s.read_text().replace('"doc_hash"', '"hash_of_doc"')), "line 1, is no sample"),
        (lambda r, s: r.write_text("{"), "is no results of lm-evaluation-harness"),
        (lambda r, s: r.write_text("[]"), "it has no tasks"),
        (lambda r, s: [p.unlink() for p in s.parent.glob("samples_*")], "run it with --log_samples"),
    ],
)
def test_what_is_broken_is_refused(log, damage, message):
    folder, results, samples = log
    damage(results, samples)
    with pytest.raises(FlanError, match=message):
        reporting.load_run("a", folder)


@pytest.mark.parametrize("number", ["nan", "-inf"])
def test_scores_that_are_not_finite_are_refused(log, number):
    folder, _, samples = log
    first, *rest = samples.read_text().split("\n")
    line = json.loads(first)
    line["filtered_resps"][0][0] = number
    samples.write_text("\n".join([json.dumps(line), *rest]))
    with pytest.raises(FlanError, match="the scores of document 0 are not finite"):
        reporting.load_run("a", folder)


def test_logs_of_two_models_in_one_folder_are_refused(log):
    folder, results, _ = log
    other = folder / "other_model"
    other.mkdir()
    (other / results.name).write_text(results.read_text())
    with pytest.raises(FlanError, match="holds logs of 2 models: name one folder each"):
        reporting.load_run("a", folder)


@pytest.mark.parametrize(
    ("task", "dataset"), [("boolq", "bool_q"), ("arc_easy", "arc_easy"), ("rte", "rte"), ("mmlu_law", "mmlu_law")]
)
def test_tasks_go_by_the_names_of_our_datasets(task, dataset):
    assert harness.dataset_of(task) == dataset


# --------------------------------------------------------------------------------------------------------- matching


def test_the_document_with_the_most_text_is_taken():
    documents = [
        {"premise": "the dog sleeps in the sun", "hypothesis": "an animal is asleep", "label": 0},
        {"premise": "the dog sleeps in the sun", "hypothesis": "the dog is running away", "label": 1},
        {"premise": "nobody was at home that day", "hypothesis": "an animal is asleep", "label": 2},
    ]
    prompts = [
        "The dog sleeps in the sun! Does it follow that the dog is running away?",
        "nobody was at home that day. Is it so that an animal is asleep?",
        "the dog sleeps in the sun",  # of two documents
        "something else altogether, with many words",
        "Is it so that \N{LEFT DOUBLE QUOTATION MARK}an animal is asleep…: the dog sleeps in the sun",
    ]
    theirs = [f"{document['premise']}\nQuestion: {document['hypothesis']}?" for document in documents]
    assert matching.by_text(prompts, documents, theirs) == [(0, 1), (1, 2), (4, 0)]


def test_other_records_on_the_same_text_are_not_paired():
    """Each prompt has a document's premise, and a hypothesis of its own: these are other records."""
    documents = [
        {"premise": f"a grey cat number {k} watches a bird", "hypothesis": f"dog {k} sleeps"} for k in range(9)
    ]
    theirs = [f"{one['premise']}\nQuestion: {one['hypothesis']}. True or false?" for one in documents]
    ours = [f"{one['premise']}. Does it follow that somebody sees a bird?" for one in documents]
    assert matching.by_text(ours, documents, theirs) == []
    same = [f"{one['premise']}. Does it follow that {one['hypothesis']}?" for one in documents]
    assert matching.by_text(same, documents, theirs) == [(k, k) for k in range(9)]
    signs = [{"question": f"which of these is larger, {k} or -{k}"} for k in (59, 63)]
    negative = [f"which of these is larger, -{k} or {k}" for k in (59, 63)]
    assert matching.by_text(negative, signs, [one["question"] for one in signs]) == []


def test_documents_of_one_passage_are_together():
    passages = [" ".join(f"w{i}{j}" for j in range(12)) for i in range(3)]
    documents = [
        {"paragraph": passages[k % 3], "question": f"what is {k}", "told": "answer by yes or no"} for k in range(9)
    ]
    found = matching.passages(documents)
    assert [found[k] for k in range(9)] == [f"p{k % 3}" for k in range(9)]
    wording = [{"instruction": "say in one word what the answer to this question is", "text": str(k)} for k in range(9)]
    assert len(set(matching.passages(wording))) == 9


def test_a_document_that_two_prompts_have_stays_alone():
    documents = [{"text": "one two three four five"}]
    theirs = ["one two three four five"]
    assert matching.by_text(["one two three four five", "one two three four five six"], documents, theirs) == []
    # Too few words to be sure.
    assert matching.by_text(["one two three four"], [{"text": "one two three four"}], ["one two three four"]) == []
    assert matching.by_text([], documents, theirs) == matching.by_text(["a b c d e"], [], []) == []


def _rewrite(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines * 2, "has document 0 2 times"),
        (lambda lines: lines + lines[3:4], "has document 3 2 times"),
        (lambda lines: [s | {"doc_hash": None} for s in lines], "line 1, is no sample: it has no doc_hash"),
        (lambda lines: [s | {"metrics": None} for s in lines], "its metrics are no list of names"),
        (lambda lines: [s | {"metrics": "acc"} for s in lines], "its metrics are no list of names"),
        (lambda lines: [s | {"doc": None} for s in lines], "its doc is no object"),
        (lambda lines: [s | {"filtered_resps": None} for s in lines], "its filtered_resps are no list"),
        (lambda lines: [s | {"arguments": {"gen_args_0": None}} for s in lines], "its arguments are neither"),
        (lambda lines: [s | {"arguments": 5} for s in lines], "its arguments are neither"),
        (lambda lines: [lines[0] | {"acc": "x"}, *lines[1:]], 'document 0 has acc "x", which is no share'),
        (lambda lines: [*lines[:-1], lines[-1] | {"acc": None}], "document 59 has acc null, which is no share"),
        (lambda lines: [lines[0] | {"acc_norm": 50}, *lines[1:]], "document 0 has acc_norm 50, which is no share"),
    ],
)
def test_samples_that_do_not_hold_are_one_line(log, change, says):
    folder, _, samples = log
    _rewrite(samples, change)
    with pytest.raises(FlanError) as caught:
        reporting.load_run("theirs", folder)
    assert says in str(caught.value) and samples.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [[0], "yes", 7, None])
def test_options_that_cannot_be_read_are_said(log, target):
    """A target that is no number of an option: the log-likelihoods were shown as the answer."""
    folder, _, samples = log
    _rewrite(samples, lambda lines: [s | {"target": target} for s in lines])
    run = reporting.load_run("theirs", folder)
    assert run.figures("definite_pronoun_resolution")["metric"] == "acc"
    said = {line["prediction"] for line in run.lines["definite_pronoun_resolution"][0]}
    assert said <= {"option 1", "option 2"}
    text = reporting.markdown([run], reporting.gather([run]))
    assert "theirs: which option is right cannot be read from the log of definite_pronoun_resolution" in text


def test_a_lone_surrogate_in_the_results_does_not_stop_a_report(log, tmp_path):
    folder, results, _ = log
    whole = json.loads(results.read_text())
    whole["model_name"] = whole["lm_eval_version"] = "a \ud800"
    whole["configs"]["definite_pronoun_resolution"]["doc_to_text"] = "\udfff"
    results.write_text(json.dumps(whole))
    binary.main(["--runs", f"theirs={folder}", f"--output={tmp_path / 'out'}"])
    assert "a \ufffd" in (tmp_path / "out" / "report.md").read_text()


def test_a_metric_of_which_less_is_better_is_said(log):
    folder, results, _ = log
    whole = json.loads(results.read_text())
    assert whole["higher_is_better"]["tiny_generation"]["exact_match"] is True
    whole["higher_is_better"]["tiny_generation"]["exact_match"] = False
    results.write_text(json.dumps(whole))
    run = reporting.load_run("theirs", folder)
    assert "theirs: lower is better for tiny_generation (exact_match)." in reporting.markdown(
        [run], reporting.gather([run])
    )


def test_the_filter_stands_in_the_table(log):
    folder, results, samples = log
    _rewrite(samples, lambda lines: [s | {"filter": "strict-match"} for s in lines])
    results.write_text(results.read_text().replace(",none", ",strict-match"))
    run = reporting.load_run("theirs", folder)
    assert "| accuracy (strict-match) |" in reporting.markdown([run], reporting.gather([run]))


def test_logs_of_earlier_harnesses_are_read(log):
    """Before 0.4.8 samples name neither metrics nor filter, and list their arguments; some results have nulls."""
    folder, results, samples = log
    expected = reporting.load_run("theirs", folder).lines["definite_pronoun_resolution"]

    def age(lines):
        for sample in lines:
            del sample["metrics"], sample["filter"]
            sample["arguments"] = [list(one.values()) for one in sample["arguments"].values()]
        return lines

    _rewrite(samples, age)
    whole = json.loads(results.read_text())
    results.write_text(json.dumps(whole | {"configs": None, "versions": None, "n-shot": None}))
    run = reporting.load_run("theirs", folder)
    assert run.lines["definite_pronoun_resolution"] == expected
    assert run.figures("definite_pronoun_resolution")["label"] == "exemplars unknown, unknown"  # and never zero-shot
    results.write_text(json.dumps(whole | {"n-shot": None, "config": {"num_fewshot": 5}, "configs": None}))
    assert (
        reporting.load_run("theirs", folder).figures("definite_pronoun_resolution")["label"].startswith("few-shot (5)")
    )
    results.write_text(json.dumps(whole | {"results": {"definite_pronoun_resolution": 5}}))
    with pytest.raises(FlanError, match="definite_pronoun_resolution has no figures"):
        reporting.load_run("theirs", folder)
