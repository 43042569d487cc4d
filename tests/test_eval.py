import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import gin
import jax
import numpy as np
import pytest

from flan_jax import catalog, configuration, content, models, reporting
from flan_jax import eval as eval_binary
from flan_jax.checkpoint import saving
from flan_jax.checkpoint.manifest import DECLARED, UNKNOWN, UNTUNED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data import token_store
from flan_jax.data.identity import Identities
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, labels, ranking
from flan_jax.json_lines import read_lines
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import Tree, build_tree

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
)
BYTES = ByteTokenizer()
TEST, DEV = 4, 2
SETTINGS = evaluator.Settings(max_examples=None, max_dev_examples=200, max_input_tokens=1024)


@pytest.fixture(autouse=True)
def fresh_gin():
    gin.clear_config()
    yield
    gin.clear_config()


def _fields(dataset, number):
    rng = np.random.default_rng([number, len(dataset)])
    first, second = (" ".join(rng.choice(["grass", "is", "green", "and", "wet"], 4)) for _ in range(2))
    names = ("question", "sentence") if dataset == "qnli" else ("premise", "hypothesis")
    words = [word for _, word in catalog.dataset(dataset).labels]
    fields = dict(zip(names, (first, second), strict=True))
    return fields | {"relation": "fits", "options": words, "answer": words[number % len(words)]}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Dev and test examples of two NLI datasets; one text has a line separator that is not a line break in JSON."""
    folder = tmp_path_factory.mktemp("prepared")
    for dataset in ("rte", "qnli"):
        found = {}
        for split, count in (("test", TEST), ("dev", DEV)):
            found[split] = [(f"{split}-{n}", _fields(dataset, n)) for n in range(count)]
            if dataset == "rte":
                found[split][0][1]["premise"] += " a\u2028b\u0085c"
        example_files.write_folder(folder / "examples" / dataset, found)
    return folder


def _without_cost(results):
    """The datasets' figures, which are the same every time, without what they cost and the job's keys."""
    found = {name: {k: v for k, v in of.items() if k != "cost"} for name, of in results["datasets"].items()}
    for of in found.values():
        of["templates"] = [{k: v for k, v in t.items() if k != "key"} for t in of["templates"]]
    return found


def _manifest(status=UNTUNED, clusters=()):
    return Manifest.create(CONFIG, BYTES, status, clusters)


UNTUNED = _manifest()  # one for all: its date is part of what predictions depend on


@pytest.fixture(scope="module")
def network():
    model = models.build(CONFIG)
    return model, jax.jit(model.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    with saving.Saver(folder) as saver:
        saver.save(3, network[1])
    UNTUNED.save(folder)
    BYTES.save(folder / "vocabulary")
    return folder


class CountingScorer(Scorer):
    """A scorer that notes how many trees it scored, and can be interrupted like a job."""

    scored = 0
    stop_after = None

    def score(self, trees, *arguments):
        trees = list(trees)
        if self.stop_after is not None and self.scored + len(trees) > self.stop_after:
            raise KeyboardInterrupt
        self.scored += len(trees)
        return super().score(trees, *arguments)


@pytest.fixture(scope="module")
def one_scorer(network):
    return CountingScorer(*network, row_lengths=(1024,))


@pytest.fixture
def scorer(one_scorer):
    one_scorer.scored, one_scorer.stop_after = 0, None
    return one_scorer


def _evaluate(scorer, prepared, output, names=("rte", "qnli"), manifest=None, **more):
    return evaluator.evaluate(
        scorer,
        BYTES,
        UNTUNED if manifest is None else manifest,
        "small step 3",
        evaluator.select(names),
        prepared,
        output,
        more.pop("settings", SETTINGS),
        **more,
    )


def _trees(*names):
    return sum(len(catalog.dataset(name).forward_templates) * (TEST + DEV) for name in names)


# ------------------------------------------------------------------------------------------------------- the results


def test_what_was_tuned_on_under_another_name_stands_beside_held_out(scorer, prepared, tmp_path):
    folder = tmp_path / "prepared"
    shutil.copytree(prepared, folder)
    premise = "The monks who lived in the castle above the town had no books but those that they wrote themselves."
    rows = {"test": [(f"test-{n}", _fields("rte", n) | {"premise": f"{premise} {n}"}) for n in range(TEST)]}
    example_files.write_folder(folder / "examples" / "rte", rows)
    records = [("0", {"source": premise, "target": "Die Mönche hatten keine Bücher."})]
    place = token_store.folder_of(folder, BYTES.fingerprint) / "wmt16_translate_deen"
    examples = [token_store.TokenizedExample(*BYTES.encode(list(records[0][1].values())), 0, 0)]
    info = {"num_records": 1, "renderings": 1, "vocab_size": BYTES.vocab_size}
    info = token_store.write_dataset(place, info, examples, records=Identities.of(records))
    text = [{"dataset": "wmt16_translate_deen"} | {key: info[key] for key in ("digest", "records_digest")}]
    manifest = UNTUNED.inherit(["wmt16_translate_deen"], ["translation"], "eos", {}, text)
    results = _evaluate(scorer, folder, tmp_path / "out", ("rte",), manifest)
    figures = results["datasets"]["rte"]
    assert (figures["status"], figures["label"]) == ("held out", "zero-shot, held out")
    overlap = figures["overlap"]
    assert (overlap["checked"], overlap["ngram"], overlap["seen"], overlap["of"]) == (True, TEST, TEST, TEST)
    assert overlap["with"] == {"wmt16_translate_deen": TEST} and overlap["identical"] == 0
    shutil.rmtree(folder / "tokens")
    again = _evaluate(scorer, folder, tmp_path / "out", ("rte",), manifest)["datasets"]["rte"]
    assert not again["overlap"]["checked"] and again["overlap"]["seen"] is None
    assert again["overlap"]["reason"].startswith("not checked: ") and again["cost"]["reused"] == len(again["templates"])


def test_results_say_where_they_come_from(finished, prepared):
    output, results = finished
    found = results["provenance"]
    assert found["versions"]["jax"] == jax.__version__ and found["code"] and found["seed"] == 0
    assert found["device"]["count"] == len(jax.devices())
    for name, figures in results["datasets"].items():
        record = catalog.dataset(name)
        rows = example_files.read(prepared, name, "test")
        assert figures["data"]["test"] == {"records": TEST, "digest": content.digest(row["hash"] for row in rows)}
        assert figures["data"]["dev"]["records"] == DEV
        assert [t["input"] for t in figures["templates"]] == [
            record.templates[t["template"]].input for t in figures["templates"]
        ]
        assert figures["cost"]["seconds"] > 0 and figures["cost"]["units"] == 2 * len(figures["templates"])
        lines = [line for path in (output / "predictions" / name).iterdir() for line in read_lines(path)[1:]]
        assert {line["hash"] for line in lines} >= {row["hash"] for row in rows}
        tokens = sum(len(BYTES.encode([line["prompt"]])[0]) + sum(line["tokens"]) for line in lines)
        assert tokens <= figures["cost"]["tokens"] <= tokens + 3 * len(lines)
        assert figures["overlap"]["checked"] is False and "never tuned" in figures["overlap"]["reason"]


@pytest.fixture(scope="module")
def finished(one_scorer, prepared, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluations") / "finished"
    return output, _evaluate(one_scorer, prepared, output)


def test_predictions_keep_what_made_them(finished, prepared, network):
    output, _ = finished
    for dataset in ("rte", "qnli"):
        record = catalog.dataset(dataset)
        files = {path.name for path in (output / "predictions" / dataset).iterdir()}
        assert files == {f"{split}_t{n}.jsonl" for split in ("test", "dev") for n in record.forward_templates}
        for number in record.forward_templates:
            path = output / "predictions" / dataset / f"test_t{number}.jsonl"
            header, *rows = (json.loads(line) for line in path.read_text("utf-8").split("\n") if line)
            assert header["examples"] == len(rows) == TEST
            for n, row in enumerate(rows):
                assert (row["id"], row["dataset"], row["split"]) == (f"test-{n}", dataset, "test")
                assert row["template"] == number and row["cut_tokens"] == 0
                assert row["options"] == list(record.label_words)
                assert row["options"][row["answer"]] == _fields(dataset, n)["answer"]
                assert len(row["loglikelihood"]) == len(row["options"]) and max(row["loglikelihood"]) < 0
                assert row["bytes"] == [len(option) for option in row["options"]]
                assert row["tokens"] == row["bytes"]  # a line break stands before the option and is not scored
                for value in _fields(dataset, n)["options"]:
                    assert f"- {value}" in row["prompt"]


def test_likelihoods_are_those_of_each_option_alone(finished, network):
    output, _ = finished
    lone = Scorer(*network, row_lengths=(1024,), tokens_per_batch=1024)
    number = catalog.dataset("rte").forward_templates[1]
    _, *rows = read_lines(output / "predictions" / "rte" / f"test_t{number}.jsonl")
    assert "\u2028" in rows[0]["prompt"]
    for row in rows[:2]:
        for option, expected in zip(row["options"], row["loglikelihood"], strict=True):
            (score,) = lone.score([build_tree(BYTES, row["prompt"], [option], joint="newline")])
            np.testing.assert_allclose(score.loglikelihood[0], expected, atol=1e-4)


def test_results_follow_from_the_predictions(finished):
    output, results = finished
    assert json.loads((output / "results.json").read_text()) == results
    assert set(results["datasets"]) == {"rte", "qnli"} and results["skipped"] == []
    for name, figures in results["datasets"].items():
        shares = []
        for number in catalog.dataset(name).forward_templates:
            _, *rows = read_lines(output / "predictions" / name / f"test_t{number}.jsonl")
            shares.append(np.mean([int(np.argmax(row["loglikelihood"])) == row["answer"] for row in rows]))
        np.testing.assert_allclose(figures["mean"], np.mean(shares))
        np.testing.assert_allclose(figures["std"], np.std(shares, ddof=1))
        assert (figures["examples"], figures["dev_examples"]) == (TEST, DEV)
        assert figures["status"] == labels.HELD_OUT


# ----------------------------------------------------------------------------------------------------------- styles


@pytest.fixture(scope="module")
def with_exemplars(prepared, tmp_path_factory):
    """The same examples, with records to take exemplars from."""
    folder = tmp_path_factory.mktemp("with_exemplars") / "prepared"
    shutil.copytree(prepared, folder)
    for dataset in ("rte", "qnli"):
        found = {
            split: [(row["id"], row["fields"]) for row in example_files.read(folder, dataset, split)]
            for split in ("test", "dev")
        }
        found["exemplars"] = [(f"train-{n}", _fields(dataset, 100 + n)) for n in range(20)]
        example_files.write_folder(folder / "examples" / dataset, found)
    return folder


def _styled(scorer, prepared, output, style, **more):
    settings = dataclasses.replace(SETTINGS, style=style, max_input_tokens=more.pop("max_input_tokens", 1024))
    results = _evaluate(scorer, prepared, output, names=("rte",), settings=settings, **more)
    files = sorted((output / "predictions" / "rte").glob("test_*.jsonl"))
    return results, {path.stem: read_lines(path)[1:] for path in files}


def test_gpt3_prompts_have_one_wording_and_words_of_their_own(scorer, prepared, tmp_path):
    record = catalog.dataset("rte")
    results, predictions = _styled(scorer, prepared, tmp_path, "gpt3")
    assert results["joint"] == "space" and results["settings"]["style"] == "gpt3"
    assert list(predictions) == ["test_t0"]
    for n, row in enumerate(predictions["test_t0"]):
        fields = _fields("rte", n)
        words = list(record.gpt3_prompt.words) or fields["options"]
        assert row["options"] == words
        assert row["answer"] == fields["options"].index(fields["answer"])
        assert fields["hypothesis"] in row["prompt"] and "OPTIONS:" not in row["prompt"]
        assert row["bytes"] == [len(word) for word in words]


def test_exemplars_come_from_train(scorer, with_exemplars, tmp_path):
    results, predictions = _styled(scorer, with_exemplars, tmp_path, "without_options_2_shots")
    record = catalog.dataset("rte")
    assert len(predictions) == len(record.forward_templates)
    train = [_fields("rte", 100 + n)["hypothesis"] for n in range(20)]
    for rows in predictions.values():
        for n, row in enumerate(rows):
            shown = [text for text in train if text in row["prompt"]]
            assert row["shots"] == 2 and len(shown) >= 1  # two records may share a hypothesis
            assert row["prompt"].count(_fields("rte", n)["hypothesis"]) == 1
            assert "OPTIONS:" not in row["prompt"]
    # E10: results.json called a score with exemplars zero-shot.
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == results
    for figures in (written["datasets"]["rte"], written["clusters"]["nli"]):
        assert (figures["status"], figures["label"]) == (labels.HELD_OUT, "few-shot (2), held out")


def test_shared_exemplars_are_scored_as_if_each_prompt_had_them(scorer, with_exemplars, tmp_path, monkeypatch):
    shared = _styled(scorer, with_exemplars, tmp_path / "shared", "1_templates_2_shared_shots")[1]["test_t0"]
    monkeypatch.setattr(ranking, "share_prefix", list)
    apart = _styled(scorer, with_exemplars, tmp_path / "apart", "1_templates_2_shared_shots")[1]["test_t0"]
    assert [row["prompt"] for row in shared] == [row["prompt"] for row in apart]
    assert len({row["prompt"].split("\n\n")[0] for row in shared}) == 1 and {row["shots"] for row in shared} == {2}
    for one, other in zip(shared, apart, strict=True):
        np.testing.assert_allclose(one["loglikelihood"], other["loglikelihood"], atol=1e-4)


def test_shots_without_exemplars_skip_the_dataset_and_say_what_to_do(scorer, prepared, tmp_path):
    with pytest.raises(FlanError, match="nothing to evaluate: rte: no exemplars.*flan_jax.prepare --datasets=rte"):
        _styled(scorer, prepared, tmp_path, "2_shots")


def test_another_style_never_answers_for_this_one(scorer, with_exemplars, tmp_path):
    _styled(scorer, with_exemplars, tmp_path, "instructions")
    before = scorer.scored
    for style in ("shuffled_options", "1_shots", "2_shots"):
        _styled(scorer, with_exemplars, tmp_path, style)
        assert scorer.scored == before + _trees("rte")
        before = scorer.scored
        _styled(scorer, with_exemplars, tmp_path, style)
        assert scorer.scored == before  # all of it is kept


def test_an_unknown_style(scorer, prepared, tmp_path):
    with pytest.raises(FlanError, match="unknown style 'gpt4'"):
        _styled(scorer, prepared, tmp_path, "gpt4")


# ---------------------------------------------------------------------------------------------------- interruptions


_TOLD = """
import os, signal, sys, time
from flan_jax import eval as binary
from flan_jax.evaluation import evaluator, jobs

evaluate, signals = jobs.evaluate, int(sys.argv.pop(1))
evaluator._TREES_AT_ONCE = 1

def told(*arguments, progress, **more):
    def show(unit, done, total):
        progress(unit, done, total)
        for _ in range(signals if done == 2 else 0):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.2)
    return evaluate(*arguments, progress=show, **more)

jobs.evaluate = told
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
binary.main()
"""


def _told(signals, *arguments):
    command = [sys.executable, "-c", _TOLD, str(signals), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_ctrl_c_ends_after_the_unit_and_the_next_start_goes_on(checkpoint, prepared, tmp_path):
    arguments = _arguments(checkpoint, prepared, tmp_path / "out")
    once = _told(1, *arguments)
    said = [line for line in once.stderr.splitlines() if line.startswith("flan_jax: ")]
    assert once.returncode == 130 and len(said) == 2, once.stderr
    assert said[0].startswith("flan_jax: Ctrl-C: the evaluation ends after this unit; once more ends at once")
    assert "broken off after 3 of " in said[1] and said[1].endswith("goes on after what is done.")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jsonl")}
    assert len(kept) == 3 and not (tmp_path / "out" / "results.json").exists() and "Traceback" not in once.stderr

    twice = _told(2, *arguments)
    assert twice.returncode == 130 and "Ctrl-C once more: stopped at once; the same command" in twice.stderr
    done = _told(0, *arguments)
    assert done.returncode == 0 and (tmp_path / "out" / "results.json").exists(), done.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_an_interrupted_job_goes_on(finished, scorer, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "_TREES_AT_ONCE", 10)
    scorer.stop_after = 30
    with pytest.raises(KeyboardInterrupt):
        _evaluate(scorer, prepared, tmp_path)
    done = scorer.scored
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    assert 0 < done <= 30 and kept and not (tmp_path / "results.json").exists()
    assert sum(len(read_lines(path)) - 1 for path in kept) == done

    scorer.scored, scorer.stop_after = 0, None
    results = _evaluate(scorer, prepared, tmp_path)
    assert scorer.scored == _trees("rte", "qnli") - done
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert _without_cost(results) == _without_cost(finished[1])

    scorer.scored = 0
    _evaluate(scorer, prepared, tmp_path)
    assert scorer.scored == 0


@pytest.mark.parametrize("damage", ["", "{", '{"key": "other", "examples": 4}\n', "shorter", "no UTF-8"])
def test_a_damaged_file_is_scored_again(scorer, prepared, tmp_path, damage):
    _evaluate(scorer, prepared, tmp_path, ["rte"])
    path = tmp_path / "predictions" / "rte" / "test_t0.jsonl"
    whole = path.read_text("utf-8")
    if damage == "no UTF-8":
        path.write_bytes(b"\xff" + whole.encode())
    else:
        path.write_text("\n".join(whole.split("\n")[:-2]) + "\n" if damage == "shorter" else damage)
    scorer.scored = 0
    _evaluate(scorer, prepared, tmp_path, ["rte"])
    assert scorer.scored == TEST
    assert [row["id"] for row in read_lines(path)[1:]] == [f"test-{n}" for n in range(TEST)]


def test_a_stale_file_never_answers(scorer, prepared, tmp_path):
    _evaluate(scorer, prepared, tmp_path, ["rte"])
    changes = (
        {"manifest": _manifest(DECLARED, ["sentiment"])},
        {"settings": dataclasses.replace(SETTINGS, joint="eos")},
        {"settings": dataclasses.replace(SETTINGS, max_input_tokens=900)},
        {"settings": dataclasses.replace(SETTINGS, computation={"dtype": "bfloat16"})},
    )
    for change in changes:
        scorer.scored = 0
        _evaluate(scorer, prepared, tmp_path, ["rte"], **change)
        assert scorer.scored == _trees("rte")
    scorer.scored = 0
    _evaluate(scorer, prepared, tmp_path, ["rte"], **changes[-1])
    assert scorer.scored == 0


# --------------------------------------------------------------------------------------------------- held out or seen


@pytest.mark.parametrize(
    ("manifest", "label"),
    [
        (_manifest(DECLARED, ["nli"]), labels.SEEN),
        (_manifest(DECLARED, ["paraphrase"]), labels.SEEN),
        (_manifest(UNKNOWN), labels.UNKNOWN),
        (_manifest().inherit(["snli"], ["nli"], "eos", {}).inherit(["sst2"], ["sentiment"], "eos", {}), labels.SEEN),
        (_manifest(DECLARED, ["sentiment", "commonsense"]), labels.HELD_OUT),
    ],
    ids=["declared nli", "declared paraphrase", "unknown", "tuned", "declared others"],
)
def test_labels_come_from_the_manifest(scorer, prepared, tmp_path, manifest, label):
    settings = dataclasses.replace(SETTINGS, max_examples=1, max_dev_examples=0)
    if label != labels.HELD_OUT:
        with pytest.raises(FlanError, match=f"rte is {label} for small step 3, not held out; add --allow_seen"):
            _evaluate(scorer, prepared, tmp_path, ["rte"], manifest, settings=settings, allow_seen=False)
        assert scorer.scored == 0
    allow_seen = label != labels.HELD_OUT
    results = _evaluate(scorer, prepared, tmp_path, ["rte"], manifest, settings=settings, allow_seen=allow_seen)
    assert results["datasets"]["rte"]["status"] == results["clusters"]["nli"]["status"] == label
    assert results["tuning"] == manifest.tuning


def test_what_cannot_be_scored_is_named(scorer, prepared, tmp_path):
    settings = dataclasses.replace(SETTINGS, max_examples=1, max_dev_examples=0)
    results = _evaluate(scorer, prepared, tmp_path, ["rte", "snli", "squad_v1"], settings=settings)
    reasons = {entry["dataset"]: entry["reason"] for entry in results["skipped"]}
    assert "generation" in reasons["squad_v1"]
    assert "run python -m flan_jax.prepare --datasets=snli" in reasons["snli"]
    with pytest.raises(FlanError, match=r"nothing to evaluate: squad_v1: a generation dataset") as caught:
        _evaluate(scorer, prepared, tmp_path, ["squad_v1"])
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- the binary


def _arguments(checkpoint, prepared, output, *more):
    return [
        "--gin_file=runs/eval.gin",
        f"--gin.CHECKPOINT_PATH={str(checkpoint)!r}",
        f"--gin.EVAL_OUTPUT_DIR={str(output)!r}",
        f"--gin.PREPARED_DIR={str(prepared)!r}",
        "--gin.DATASETS=('rte',)",
        *more,
    ]


def test_what_is_to_be_prepared_for_a_skipped_dataset_names_the_vocabulary(checkpoint, prepared, tmp_path, capsys):
    more = ["--gin.MAX_EXAMPLES=1", "--gin.MAX_DEV_EXAMPLES=0", "--gin.DATASETS=('rte', 'cb')"]
    eval_binary.main(_arguments(checkpoint, prepared, tmp_path, *more))
    said = next(line for line in capsys.readouterr().out.splitlines() if "skipped cb" in line)
    assert f"prepare --datasets=cb --vocabulary={checkpoint}/vocabulary --to={prepared}" in said


def test_the_binary_writes_results_and_report(checkpoint, prepared, tmp_path, capsys):
    arguments = _arguments(checkpoint, prepared, tmp_path, "--gin.MAX_EXAMPLES=2", "--gin.MAX_DEV_EXAMPLES=1", "--json")
    eval_binary.main(arguments)
    shown = capsys.readouterr().out
    results = json.loads(shown.strip().split("\n")[-1])
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["checkpoint"] == "small step 3"
    assert (results["datasets"]["rte"]["examples"], results["datasets"]["rte"]["dev_examples"]) == (2, 1)
    assert (tmp_path / "report.html").stat().st_size > 1000 and list(tmp_path.glob("*.md"))
    assert "zero-shot, held out" in (tmp_path / "report.html").read_text("utf-8")
    # A second evaluation shows the first beside it and scores nothing.
    gin.clear_config()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    eval_binary.main([*arguments, f"--gin.BASELINE_DIR={str(tmp_path)!r}", "--gin.BASELINE_NAME='first'"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")} == before
    assert "first" in (tmp_path / "report.html").read_text("utf-8")
    comparison = json.loads((tmp_path / "report.json").read_text())["comparisons"][0]
    assert comparison["datasets"]["rte"] | {"examples": 2, "difference": 0.0} == comparison["datasets"]["rte"]


def test_a_browser_opens_the_report_of_a_real_run(finished, open_page, tmp_path):
    output, results = finished
    run = reporting.load_run("small", output)
    page = open_page(reporting.write([run], tmp_path / "out")["html"])
    assert page.count("<article>") == sum(d["examples"] for d in results["datasets"].values())
    for name, figures in results["datasets"].items():
        assert f"{100 * figures['mean']:.1f} ± {100 * figures['std']:.1f}" in page and name in page


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gin.DATASETS=('rt',)"], "unknown dataset or cluster 'rt': did you mean 'rte'"),
        (["--gin.DATASETS=('nlii',)"], "did you mean 'nli'"),
        (["--gin.DATASET=('rte',)"], "unknown macro 'DATASET': did you mean 'DATASETS'"),
        (["--gin.evaluate.stepp=3"], "stepp"),
        (["--gin_file=runs/evall.gin"], "no gin file 'runs/evall.gin'"),
        (["--gin.CHECKPOINT_PATH='no/such'"], "no checkpoint at no/such"),
        (["--gin.evaluate.step=4"], "no step 4"),
        (["--gin.PREPARED_DIR='no/such'"], "no folder no/such: PREPARED_DIR is what python -m flan_jax.prepare wrote"),
        (["--gin.BASELINE_DIR='no/such'"], "no readable results.json in no/such"),
        (["--gin.evaluate.joint='tab'"], "joint is 'tab'"),
        (["--gin.MESH={'data': 3}"], "does not fit 8 devices"),
        (["--items=items.jsonl"], "--items needs --checkpoint=FOLDER and --output=FILE.jsonl"),
    ],
)
def test_bad_input_is_one_line(checkpoint, prepared, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as caught:
        eval_binary.main(_arguments(checkpoint, prepared, tmp_path / "out", *more))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith("flan_jax: ") and message in lines[0]
    assert not (tmp_path / "out").exists()


def test_plain_items(checkpoint, network, tmp_path, capsys):
    items = [
        {"id": "a", "prompt": "The sky is", "options": [" blue", " a naïve cat"]},
        {"id": 7, "prompt": "One, two,", "options": [" three"]},
    ]
    path, output = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
    path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    eval_binary.main([f"--items={path}", f"--checkpoint={checkpoint}", f"--output={output}", "--json"])
    assert json.loads(capsys.readouterr().out.strip().split("\n")[-1]) == {
        "items": 2,
        "errors": 0,
        "joint": "joined",
        "output": str(output),
    }
    rows = [json.loads(line) for line in output.read_text("utf-8").split("\n") if line]
    scorer = Scorer(*network)
    for row, item in zip(rows, items, strict=True):
        assert row["id"] == item["id"]
        assert row["tokens"] == row["bytes"] == [len(option.encode()) for option in item["options"]]
        tree = Tree(
            tuple(BYTES.encode([item["prompt"]])[0]),
            tuple(tuple(ids) for ids in BYTES.encode(item["options"])),
            (0,) * len(item["options"]),
            tuple(row["bytes"]),
        )
        np.testing.assert_allclose(row["loglikelihood"], scorer.score([tree])[0].loglikelihood, atol=1e-4)


def test_items_are_not_overwritten_by_their_scores(checkpoint, tmp_path, capsys):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"id": 1, "prompt": "Is it so?", "options": ["yes", "no"]}))
    before = path.read_bytes()
    with pytest.raises(SystemExit) as stop:
        eval_binary.main([f"--items={path}", f"--checkpoint={checkpoint}", f"--output={path}"])
    assert stop.value.code == 2 and "would be lost" in capsys.readouterr().err and path.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "joint"), [([], "eos"), (["--joint=joined"], "joined"), (["--joint=newline"], "newline")]
)
def test_items_take_the_checkpoints_joint(checkpoint, network, tmp_path, capsys, more, joint):
    """E9: a model that was tuned with EOS got options glued to the prompt."""
    shutil.copytree(checkpoint, tmp_path / "tuned")
    UNTUNED.inherit(["sst2"], ["sentiment"], "eos", {}).save(tmp_path / "tuned")
    items, output = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
    items.write_text(json.dumps({"id": 1, "prompt": "Is it so?", "options": ["yes", "no"]}))
    eval_binary.main([f"--items={items}", f"--checkpoint={tmp_path / 'tuned'}", f"--output={output}", *more])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"joint {joint}: ") and said[0].endswith(
        "(as asked for)" if more else "(by the checkpoint)"
    )
    (expected,) = Scorer(*network).score([build_tree(BYTES, "Is it so?", ["yes", "no"], joint=joint)])
    np.testing.assert_allclose(json.loads(output.read_text())["loglikelihood"], expected.loglikelihood, atol=1e-4)


def test_the_exit_status_tells_of_items_with_errors(checkpoint, tmp_path, capsys):
    items, output = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
    rows = [{"id": 1, "prompt": "Is", "options": [" it"]}, {"id": 2, "prompt": "Is", "options": [""]}]
    items.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(SystemExit) as caught:
        eval_binary.main([f"--items={items}", f"--checkpoint={checkpoint}", f"--output={output}", "--json"])
    shown = capsys.readouterr()
    assert caught.value.code == 2 and "1 of 2 items cannot be scored" in shown.err
    assert json.loads(shown.out.strip().split("\n")[-1])["errors"] == 1
    good, bad = map(json.loads, output.read_text().splitlines())
    assert good["loglikelihood"] and set(bad) == {"id", "error"}


@pytest.mark.slow
def test_no_tensorflow_while_evaluating(checkpoint, prepared, tmp_path):
    code = (
        "import sys; from flan_jax import eval as binary; binary.main(sys.argv[1:]); "
        "sys.exit(3 if 'tensorflow' in sys.modules else 0)"
    )
    limits = ("--gin.MAX_EXAMPLES=1", "--gin.MAX_DEV_EXAMPLES=0")
    arguments = _arguments(checkpoint, prepared, tmp_path, *limits)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()


# ------------------------------------------------------------------------------------------------------------ a pod


@pytest.mark.slow
def test_two_processes_evaluate_like_one(finished, prepared, checkpoint, tmp_path):
    """As a user runs it; every example is scored once and one process writes."""
    launcher = Path(__file__).parents[1] / "launch" / "local_pod.py"
    items = tmp_path / "items.jsonl"
    lines = [{"id": n, "prompt": "grass is " * n, "options": [" green", " wet", " blue and red"]} for n in range(1, 8)]
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def evaluate(*arguments):
        pod = [sys.executable, str(launcher), "--processes=2", "--devices=2", "--"]
        command = [*pod, "python", "-m", "flan_jax.eval", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        own, others = [], []
        for line in done.stdout.splitlines():
            (others if line.startswith("[process") else own).append(line)
        assert not any("test" in line or "items" in line for line in others)  # gloo does say that it is connected
        return json.loads(next(line for line in reversed(own) if line.startswith("{")))

    scores = {}
    for processes in (1, 2):
        output = tmp_path / f"scores{processes}.jsonl"
        arguments = [f"--items={items}", f"--checkpoint={checkpoint}", f"--output={output}"]
        if processes == 1:
            eval_binary.main(arguments)
        else:
            evaluate(*arguments)
        scores[processes] = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["id"] for line in scores[2]] == [line["id"] for line in lines]
    for one, two in zip(scores[1], scores[2], strict=True):
        np.testing.assert_allclose(two["loglikelihood"], one["loglikelihood"], rtol=1e-4)

    output, results = tmp_path / "evaluation", finished[1]
    gin_arguments = [
        "--gin_file=runs/eval.gin",
        f"--gin.CHECKPOINT_PATH={str(checkpoint)!r}",
        f"--gin.EVAL_OUTPUT_DIR={str(output)!r}",
        f"--gin.PREPARED_DIR={str(prepared)!r}",
        "--gin.DATASETS=('rte', 'qnli')",
        "--gin.MESH={'data': 2, 'fsdp': 1, 'tensor': 2}",
    ]
    found = evaluate(*gin_arguments)
    assert found["datasets"].keys() == results["datasets"].keys()
    for path in sorted(finished[0].glob("predictions/*/*.jsonl")):
        expected, again = (read_lines(p)[1:] for p in (path, output / path.relative_to(finished[0])))
        assert [line["id"] for line in again] == [line["id"] for line in expected]
        for one, two in zip(expected, again, strict=True):
            np.testing.assert_allclose(two["loglikelihood"], one["loglikelihood"], rtol=1e-4)
    # A job that goes on scores nothing twice: all processes find the units that are there.
    times = {path: path.stat().st_mtime_ns for path in output.glob("predictions/*/*.jsonl")}
    assert _without_cost(evaluate(*gin_arguments)) == _without_cost(found)
    assert times == {path: path.stat().st_mtime_ns for path in output.glob("predictions/*/*.jsonl")}


@pytest.mark.parametrize(("statuses", "name"), [(("u",), "untuned"), (("u", "d"), "tuned"), (("d", "?"), "model")])
def test_a_run_without_a_name_is_called_what_its_manifests_say(tmp_path, statuses, name):
    for status in statuses:
        _manifest({"u": "declared untuned", "d": DECLARED, "?": UNKNOWN}[status]).save(tmp_path / status)
    paths = [str(tmp_path / status) for status in statuses]
    assert eval_binary._name(paths) == eval_binary._name(dict(enumerate(paths))) == name
    assert len(paths) > 1 or eval_binary._name(paths[0]) == name
