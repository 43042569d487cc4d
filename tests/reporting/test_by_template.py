import json

import numpy as np
import pytest

from flan_jax import browse, catalog
from flan_jax.reporting import by_template, runs


def _judge(run):
    return by_template.judge(run, lambda texts: [len(text.split()) for text in texts])


def _scored(run, dataset, right_TxE, rewrite, likelihood=-1.0):
    """Writes predictions of which these are right, with the wrong option next to the right one, and their figures."""
    record = catalog.dataset(dataset)
    listed = run.results["datasets"][dataset]["templates"]
    for t, right_E in zip(listed, right_TxE, strict=True):
        path = run.output_dir / "predictions" / dataset / f"test_t{t['template']}.jsonl"

        def change(i, line, right_E=right_E):
            scores = [likelihood - 2] * len(line["options"])
            scores[line["answer"]] = likelihood
            if not right_E[i]:
                scores[(line["answer"] + 1) % len(scores)] = likelihood + 1
            return line | {"loglikelihood": scores}

        rewrite(path, change)
        mean = float(np.mean(right_E))
        t |= {"value": mean, "sum": mean, "metrics": {"accuracy": 100 * mean}, "stderr": None}
    none_on_dev = {"best_dev": None, "best_dev_template": None, "stderr": None}
    means_T = np.mean(right_TxE, 1)
    spread = float(means_T.std(ddof=1)) if len(means_T) > 1 else 0.0
    run.results["datasets"][dataset] |= {"metrics": {}, "mean": float(means_T.mean()), "std": spread} | none_on_dev
    (run.output_dir / "results.json").write_text(json.dumps(run.results))
    return runs.load_run(run.name, run.output_dir), record


def test_each_template_beside_its_siblings(make_run, rewrite):
    run = make_run("tuned", {"snli": 1.0}, count=60, templates=(0, 2, 3))
    rng = np.random.default_rng(3)
    easy_E = rng.random(60)
    right_TxE = np.stack([easy_E < 0.9, easy_E < 0.8, easy_E < 0.3])
    run, _ = _scored(run, "snli", right_TxE, rewrite)
    judged, unusable = _judge(run)
    assert [(one.dataset, one.template) for one in judged] == [("snli", 0), ("snli", 2), ("snli", 3)] and not unusable
    values_TxE = right_TxE.astype(float)
    for t, one in enumerate(judged):
        others = [s for s in range(3) if s != t]
        apart_E = values_TxE[t] - values_TxE[others].mean(0)
        # The conftest's lines have no passage, so that examples are independent: the error of a mean of differences.
        assert one.value == pytest.approx(values_TxE[t].mean()) and one.metric == "accuracy"
        assert one.difference == pytest.approx(apart_E.mean())
        assert one.standard_error == pytest.approx(apart_E.std(ddof=1) / 60**0.5)
        assert one.agreement == pytest.approx((values_TxE[others] == values_TxE[t]).mean())
        assert one.loglikelihood == pytest.approx(-1.0) and one.tokens == 4  # "Is it so? 7"
        assert one.wording == f"Wording {one.template} of snli: {{premise}}"
    assert [one.is_outlier for one in judged] == [False, False, True]
    said = judged[2].said_of_outlier()
    assert said.startswith("snli 3: ") and said.endswith("standard errors)")


def test_a_template_that_is_always_worse_is_an_outlier_too(make_run, rewrite):
    """Its difference is the same in every example, so that it has no spread."""
    run, _ = _scored(
        make_run("tuned", {"snli": 1.0}, count=6, templates=(0, 1)), "snli", np.array([[1] * 6, [0] * 6]), rewrite
    )
    (first, second), _ = _judge(run)
    assert (first.difference, second.difference) == (1.0, -1.0)
    assert (first.is_outlier, second.is_outlier) == (False, True) and second.standard_error == 0
    assert "all standard errors" in second.said_of_outlier()


def test_a_constant_answer_and_a_lone_template(make_run, rewrite):
    run = make_run("tuned", {"rte": 1.0, "snli": 1.0}, count=20, templates=(0,))
    constant = [1.0 if i % 2 == 0 else 0.0 for i in range(20)]  # rte's answers alternate: always "yes"
    run, record = _scored(run, "rte", np.array([constant]), rewrite)
    judged = {one.dataset: one for one in _judge(run)[0]}
    lone = judged["rte"]
    assert (lone.share, lone.most) == (1.0, record.label_words[0]) and lone.value == 0.5
    constant_too = make_run("untuned", {"rte": 1.0}, count=7, templates=(0, 1, 2))
    constant_too, _ = _scored(constant_too, "rte", np.array([constant[:7]] * 3), rewrite)
    assert [(one.difference, one.standard_error) for one in _judge(constant_too)[0]] == [(0.0, 0.0)] * 3
    assert (lone.difference, lone.standard_error, lone.agreement, lone.is_outlier) == (None, None, None, False)


def test_generated_answers(make_run, add_generation):
    run = make_run("tuned", {"rte": 1.0}, count=8)
    add_generation(run, "natural_questions", "trivia_qa_f1", [[1, 1, 0, 1, 0], [0, 0.5, 0, 0, 0]])
    first, second = (one for one in _judge(run)[0] if one.dataset == "natural_questions")
    assert (first.value, second.value) == (0.6, 0.1) and first.loglikelihood is None
    assert first.agreement == 1.0 and first.share == 1.0  # the same text everywhere
    assert second.difference == pytest.approx(-0.5) and not second.is_outlier


def test_what_cannot_be_judged_is_named(make_run):
    run = make_run("tuned", {"rte": 1.0, "snli": 1.0}, count=8)
    (run.output_dir / "predictions" / "snli" / "test_t1.jsonl").unlink()
    judged, unusable = _judge(run)
    assert {one.dataset for one in judged} == {"rte"} and unusable == {"snli": "test_t1.jsonl is missing"}


def test_the_command(make_run, rewrite, capsys):
    run = make_run("tuned", {"snli": 1.0}, count=40, templates=(0, 2, 3))
    right_TxE = np.ones((3, 40))
    right_TxE[1, ::2] = 0
    run, _ = _scored(run, "snli", right_TxE, rewrite)
    browse.main([f"--template_report={run.output_dir}", "--json"])
    *printed, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found["outliers"] == [["snli", 2]] and len(found["templates"]) == 3 and found["unusable"] == {}
    assert found["templates"][1] | {"standard_error": None} == {
        "dataset": "snli",
        "template": 2,
        "wording": "Wording 2 of snli: {premise}",
        "metric": "accuracy",
        "value": 0.5,
        "difference": -0.5,
        "standard_error": None,
        "share": found["templates"][1]["share"],
        "most": found["templates"][1]["most"],
        "agreement": 0.5,
        "loglikelihood": -1.0,
        "tokens": found["templates"][1]["tokens"],
        "outlier": True,
    }
    assert any(line.startswith("outlier: snli 2: 50.0, 50.0 points below its siblings") for line in printed)
    assert any("1 outlier among 3 templates of gemma step 0" in line for line in printed)


def test_the_command_refuses_in_one_line(make_run, tmp_path, capsys):
    run = make_run("tuned", {"snli": 1.0}, count=8)
    for path in (run.output_dir / "predictions" / "snli").iterdir():
        path.unlink()
    cases = {
        f"--template_report={tmp_path / 'nowhere'}": "no readable results.json",
        f"--template_report={tmp_path}": "give one of",
        f"--template_report={run.output_dir}": "no template of tuned can be judged (snli: it has no predictions)",
    }
    for argument, message in cases.items():
        with pytest.raises(SystemExit):
            browse.main([argument])
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    with pytest.raises(SystemExit):
        browse.main([f"--template_report={run.output_dir}", f"--html={tmp_path / 'a.html'}"])
    assert "leave --template_report out" in capsys.readouterr().err
