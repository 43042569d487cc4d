"""Logs of lm-evaluation-harness side by side, beside runs of ours, and in groups: what may be compared and averaged."""

import json

import pytest
from written_logs import of_ours, write_log

from flan_jax import reporting
from flan_jax.errors import FlanError
from flan_jax.reporting import gold
from flan_jax.reporting.notes import notes


@pytest.fixture
def log(tmp_path):
    """A log as a run: log(name, ...), see `write_log`."""
    return lambda name, *more, **how: reporting.load_run(name, write_log(tmp_path / name, *more, **how))


def _flipped(line):
    return line | {"target": str(1 - int(line["target"])), "acc": 1 - line["acc"]}


def _said(*runs):
    return "\n".join(notes(runs, reporting.gather(runs)))


def _skipped(group):
    return {one["dataset"]: one["reason"] for one in group.results["skipped"]}


# ------------------------------------------------------------------------------------------------- the right answers


def test_logs_that_call_other_answers_right_are_not_compared(log):
    """Every right answer was flipped in a later version of the task, and the difference was +6.7."""
    first, other = log("a"), log("b", seed=2, args="pretrained=y", version=2.0, change=_flipped)
    (comparison,) = reporting.gather([first, other]).comparisons
    why = "they have other right answers: on 60 of 60 records, such as yes and no"
    assert comparison.datasets == {} and comparison.apart == {"rte": why}
    assert f"b beside a: rte not compared: {why}." in _said(first, other)
    (group,) = reporting.grouped([first, other], {"g": ["a", "b"]})
    assert _skipped(group) == {"rte": f"its runs {why.removeprefix('they ')}"} and not group.datasets


def test_one_other_right_answer_is_enough(log):
    other = log("b", seed=2, args="pretrained=y", change=lambda line: line if line["doc_id"] != 7 else _flipped(line))
    assert "on 1 of 60 records" in reporting.gather([log("a"), other]).comparisons[0].apart["rte"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda line: line | {"target": ["yes", "no"][int(line["target"])]}, None),
        (lambda line: line | {"target": int(line["target"])}, None),
        (lambda line: line | {"target": ["no", "yes"][int(line["target"])]}, "on 60 of 60 records"),
        (lambda line: line | {"target": "label " + line["target"]}, None),  # which option that is nobody can say
        (lambda line: {key: value for key, value in line.items() if key != "target"}, None),
    ],
    ids=["text", "number", "other text", "other form", "none"],
)
def test_the_form_of_a_target_is_no_difference(log, change, why):
    """The place of an option, or its text. Of acc_norm the harness's own values are taken."""
    first = log("a", metric="acc_norm")
    other = log("b", seed=2, args="pretrained=y", metric="acc_norm", change=change)
    (comparison,) = reporting.gather([first, other]).comparisons
    assert (why in comparison.apart["rte"]) if why else list(comparison.datasets) == ["rte"]


def test_options_in_another_order_have_other_places(log):
    def turned(line):
        first, second = line["arguments"].values()
        line["arguments"] = {"gen_args_0": second, "gen_args_1": first}
        return line | {"target": str(1 - int(line["target"])), "filtered_resps": line["filtered_resps"][::-1]}

    first, other = log("a"), log("b", seed=2, args="pretrained=y", change=turned)
    (comparison,) = reporting.gather([first, other]).comparisons
    assert list(comparison.datasets) == ["rte"] and comparison.apart == {}


def test_other_references_of_generated_text_are_other_right_answers(log):
    def generated(target):
        def change(line):
            line["arguments"] = {"gen_args_0": {"arg_0": f"Say {line['doc_id']}", "arg_1": {"until": ["x"]}}}
            return line | {"filtered_resps": ["fox"], "target": target}

        return change

    first = log("a", metric="exact_match", change=generated("Fox."))
    same = log("b", metric="exact_match", args="y", seed=2, change=generated(" fox"))
    other = log("c", metric="exact_match", args="z", seed=3, change=generated("cat"))
    beside_same, beside_other = reporting.gather([first, same, other]).comparisons
    assert list(beside_same.datasets) == ["rte"]
    assert beside_other.apart["rte"].endswith("on 60 of 60 records, such as fox and cat")


@pytest.fixture
def ours(make_run, rewrite):
    """A run whose prompts show the documents of a log, and whose right answers are those of the log."""
    run = make_run("ours", {"rte": 0.8}, count=60, seed=4)
    for path in (run.output_dir / "predictions" / "rte").iterdir():
        asked = "Read: the old red fox number {} was seen in the garden of rte. True?".format
        rewrite(path, lambda i, line, asked=asked: line | {"prompt": asked(i)})
    return run


def test_a_log_beside_ours_has_the_same_right_answers(log, ours):
    """Our options are those of the log: flipped answers were compared, with the verdict "higher"."""
    assert reporting.gather([log("a"), ours]).comparisons[0].datasets["rte"].examples == 60
    (comparison,) = reporting.gather([log("b", seed=2, change=_flipped), ours]).comparisons
    assert "they have other right answers: on 60 of 60 records" in comparison.apart["rte"]


def test_options_in_other_words_are_not_compared(log, ours):
    def reworded(line):
        for one, word in zip(line["arguments"].values(), ("True", "False"), strict=True):
            one["arg_1"] = f" {word}"
        return _flipped(line)

    (comparison,) = reporting.gather([log("a", change=reworded), ours]).comparisons
    assert list(comparison.datasets) == ["rte"]


def test_marks_and_cases_are_no_other_answers():
    yes, same, mark = (
        gold.of_line({"options": options, "answer": 0, "loglikelihood": [0, 1]})
        for options in (["yes", "no"], ["Yes.", " NO "], ["?", "!"])
    )
    assert yes == same and mark.right == {"?"}


@pytest.mark.parametrize(
    ("a", "b"),
    [("-1", "1"), ("C", "C++"), ("50", "50%"), ("$5", "5"), ("a.", "a;"), ("us", "US"), ("#1", "1"), (".5", "5")],
)
def test_signs_and_marks_make_other_answers(log, a, b):
    """All punctuation was taken away, so flipped answers were compared and averaged."""

    def worded(line):
        for one, word in zip(line["arguments"].values(), (a, b), strict=True):
            one["arg_1"] = f" {word}"
        return line

    first = log("a", change=worded)
    other = log("b", seed=2, args="y", change=lambda line: _flipped(worded(line)))
    same = log("c", seed=3, args="z", change=worded)
    flipped, alike = reporting.gather([first, other, same]).comparisons
    assert "other right answers: on 60 of 60 records" in flipped.apart["rte"] and list(alike.datasets) == ["rte"]


def _target(target):
    return gold.of_line({"prediction": "x", "target": target})


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("-5", "5", "-5 and 5"),
        ("5%", "5", "5% and 5"),
        ("Fox.", ' "fox"', ""),
        ("'Yes.'", "yes", ""),
        ('["Sinclair Lewis", "Harry"]', '["harry", "Sinclair Lewis"]', ""),
        ("['a', 'b']", "['b', 'a']", ""),
        ('["a", "b"]', '["a", "b", "c"]', "a, b and a, b, c"),
        ('["a"]', "a", ""),
        ('"a" or "b"', '"c"', '"a" or "b" and c'),
        ("[unclosed", "[not, a list]", "[unclosed and [not, a list]"),
    ],
)
def test_right_answers_of_generated_text(one, other, said):
    found = gold.apart([(_target(one), _target(other))])
    assert found == (f"other right answers: on 1 of 1 records, such as {said}" if said else "")


def test_several_right_options_are_all_compared():
    """A log with a list of places: one in common was enough."""
    both, one, same = (
        gold.of_line({"scored": [" yes", " no"], "target": target}) for target in ("[0, 1]", "[1]", "[1, 0]")
    )
    assert gold.apart([(both, one)]).endswith("such as no, yes and no") and not gold.apart([(both, same)])


def _edit(folder, change):
    path = next(folder.glob("results_*"))
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


# ----------------------------------------------------------------------------------------------- counts in the results


def _with_shots(folder, said, of_task, metadata, of_command_line):
    """The label of a log whose results say so many exemplars."""
    write_log(folder)

    def change(whole):
        whole["n-shot"]["rte"] = said
        whole["configs"]["rte"] |= {"num_fewshot": of_task, "metadata": metadata}
        whole["config"]["num_fewshot"] = of_command_line

    _edit(folder, change)
    return reporting.load_run("a", folder).figures("rte")["label"].partition(",")[0]


@pytest.mark.parametrize(
    ("said", "of_task", "metadata", "of_command_line", "label"),
    [
        (0, 0, {"version": 1.0}, None, "zero-shot"),
        (0, 0, {"num_fewshot": 2}, None, "few-shot (2)"),  # written into the prompt by the task's author
        (0, 0, {"num_fewshot": "2"}, 0, "few-shot (2)"),
        (2, 0, {"num_fewshot": 2}, None, "few-shot (2)"),  # as harnesses of 2024 write it
        (0, 0, {"num_fewshot": 0}, 5, "zero-shot"),  # a task's fixed 0 wins over the command line
        (0, 0, {"num_fewshot": "some"}, None, "exemplars unknown"),
        (5, 5, {"num_fewshot": 0}, 5, "few-shot (5)"),
        (3, 3, {"num_fewshot": 5}, 3, "few-shot (3)"),  # the command line wins over the author's usual number
        (5.0, None, None, None, "few-shot (5)"),
        ("5", 5, None, None, "few-shot (5)"),
        (None, None, None, 5, "few-shot (5)"),
        (None, None, None, 0, "zero-shot"),
        (None, None, {"num_fewshot": 3}, 0, "few-shot (3)"),
        (None, None, None, None, "exemplars unknown"),
        (None, None, {"num_fewshot": 0}, None, "exemplars unknown"),
    ],
)
def test_exemplars_are_counted_wherever_they_are_said(tmp_path, said, of_task, metadata, of_command_line, label):
    """Two exemplars in every prompt were labelled zero-shot."""
    assert _with_shots(tmp_path / "a", said, of_task, metadata, of_command_line) == label


@pytest.mark.parametrize(
    ("said", "of_task", "metadata", "why"),
    [
        (0, 5, None, "say two numbers of exemplars of rte, n-shot 0 and configs 5"),
        (5.0, 0, {"num_fewshot": 2}, "say two numbers of exemplars of rte, n-shot 5.0 and configs 0"),
        (5, 3, None, "say two numbers of exemplars of rte, n-shot 5 and configs 3"),
        ("some", 0, None, 'say n-shot "some" of rte, no number'),
        (-1, 0, None, "say n-shot -1 of rte, no number"),
        (True, 0, None, "say n-shot true of rte, no number"),
        (0, [5], None, r"say configs \[5\] of rte, no number"),
    ],
)
def test_two_numbers_of_exemplars_are_refused(tmp_path, said, of_task, metadata, why):
    with pytest.raises(FlanError, match=f"the results beside .* {why}: run it again"):
        _with_shots(tmp_path / "a", said, of_task, metadata, None)


@pytest.mark.parametrize(
    ("effective", "is_whole"),
    [(60, True), (60.0, True), ("60", True), (120, False), (120.0, False), ("120", False), ("all", False)],
)
def test_samples_that_are_cut_off_are_refused(tmp_path, effective, is_whole):
    """A number that was no integer was passed over."""
    folder = write_log(tmp_path / "a")
    _edit(folder, lambda whole: whole.update({"n-samples": {"rte": {"original": 120, "effective": effective}}}))
    if is_whole:
        assert reporting.load_run("a", folder).figures("rte")["examples"] == 60
    else:
        with pytest.raises(FlanError, match=f"has 60 of the .*{effective}.* samples of rte: copy it anew"):
            reporting.load_run("a", folder)


# ----------------------------------------------------------------------------------------------------- how it was asked


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), ("1", 1.0), ("1.0", 1), ("Yaml", "Yaml")])
def test_one_task_version_is_written_in_several_ways(log, a, b):
    assert "task version" not in _said(log("a", version=a), log("b", seed=2, args="pretrained=y", version=b))


def test_task_versions_are_said(log):
    """With the same prompts and the same right answers they compare."""
    first, other = log("a"), log("b", seed=2, args="pretrained=y", version=2.0)
    assert list(reporting.gather([first, other]).comparisons[0].datasets) == ["rte"]
    said = "asked by the task versions 1.0 and 2.0"
    assert f"b beside a: rte {said}. There the difference is of model and the task's version together." in _said(
        first, other
    )
    (group,) = reporting.grouped([first, other], {"g": ["a", "b"]})
    assert f"g: its runs were {said} on rte." in _said(group) and group.datasets
    assert "task version" not in _said(first, log("c", seed=3, args="pretrained=z"))


def test_a_log_says_nothing_of_our_limits(log, ours):
    """It was said to be asked with the 1,024 tokens of our protocol."""
    ours.results["settings"]["max_input_tokens"] = 64
    assert "max_input_tokens" not in _said(log("a"), ours)


def test_a_dtype_that_both_say_is_said(log):
    runs = [
        log(name, seed=seed, args=name, config={"model_dtype": f"torch.{dtype}"})
        for seed, (name, dtype) in enumerate((("a", "bfloat16"), ("b", "float32"), ("c", "float32")))
    ]
    assert "b beside a: rte computed in bfloat16 and float32" in _said(*runs[:2])
    assert "computed in" not in _said(*runs[1:]) and "computed in" not in _said(runs[0], log("d", args="d"))


def test_each_task_has_the_dtype_of_its_own_log(tmp_path):
    """That of the newest log in the folder was said of all tasks."""

    def of_two(name, seed, *dtypes):
        for task, dtype in zip(("rte", "boolq"), dtypes, strict=True):
            log = write_log(tmp_path / name / task, (task,), args=name, seed=seed, config={"model_dtype": dtype})
            for path in log.iterdir():
                path.rename(tmp_path / name / path.name.replace("01T00", "02T00" if task == "boolq" else "01T00"))
        return reporting.load_run(name, tmp_path / name)

    runs = of_two("a", 1, "torch.bfloat16", "torch.float32"), of_two("b", 2, "torch.float32", "torch.float32")
    assert "b beside a: rte computed in bfloat16 and float32" in _said(*runs)


# -------------------------------------------------------------------------------------------------------------- groups


def _few_shot(log, name, exemplar, **more):
    return log(name, shots=5, before=f"{exemplar}\n\n", **{"args": "pretrained=x", **more})


def test_a_group_is_of_seeds_of_exemplars(log):
    """Contexts were compared with their exemplars, and nothing was left."""
    runs = [_few_shot(log, name, f"Exemplar {name}", seed=n) for n, name in enumerate("ab")]
    (group,) = reporting.grouped(runs, {"g": ["a", "b"]})
    each = [run.figures("rte")["mean"] for run in runs]
    assert group.figures("rte")["runs"] == each and _skipped(group) == {}
    assert reporting.gather([group]).unusable == {"g": {}}
    together = "rte asked with other exemplars. There the difference is of model and exemplars together."
    third = _few_shot(log, "c", "Exemplar a", seed=7, args="pretrained=y")
    assert f"b beside a: {together}" in _said(*runs) and f"c beside g: {together}" in _said(group, third)
    assert "together" not in _said(runs[0], third)
    zero = log("d", seed=8, args="pretrained=z")
    assert "d beside a: rte asked in other words" in _said(runs[0], zero)


@pytest.mark.parametrize(
    "more",
    [
        {"of_tasks": {"description": "Answer as a pirate would."}},
        {"of_tasks": {"fewshot_delimiter": "\n"}},
        {"before": "Exemplar b\n\nAnd now: "},
        {
            "change": lambda line: (
                line | {"arguments": {k: one | {"arg_1": "?"} for k, one in line["arguments"].items()}}
            )
        },
    ],
    ids=["description", "delimiter", "prompt", "options"],
)
def test_documents_in_other_words_are_no_seeds_of_exemplars(log, more):
    first = _few_shot(log, "a", "Exemplar a")
    other = log("b", seed=2, shots=5, **{"before": "Exemplar b\n\n", **more})
    group = reporting.groups.as_one("g", [first, other])
    assert _skipped(group) == {"rte": "its runs were asked in other words"}


def test_the_same_exemplars_are_no_other_seed(log):
    runs = [_few_shot(log, name, "Exemplar", noise=n / 100) for n, name in enumerate("ab")]
    with pytest.raises(FlanError, match="a and b, which are the same model, asked the same"):
        reporting.grouped(runs, {"g": ["a", "b"]})


@pytest.mark.parametrize(
    ("tasks", "noise"), [(("rte", "piqa"), 0), (("rte",), 0), (("rte", "cola"), 1e-7), (("rte", "cola"), 1e-6)]
)
@pytest.mark.parametrize("args", ["pretrained=x", "pretrained=./x", ""])
def test_copies_of_a_log_are_no_group(log, tasks, noise, args):
    """Of one task more or less, or of other rounding, there was a mean with ± 0.0."""
    runs = [log("a", ("rte", "cola"), args=args), log("b", tasks, args=args.replace("./", ""), noise=noise)]
    with pytest.raises(FlanError, match="a and b, which are the same model, asked the same"):
        reporting.grouped(runs, {"g": ["a", "b"]})


def test_one_checkpoint_of_ours_twice_is_no_group(log):
    """Its weights say so, wherever the folder lies and whatever its scores are."""
    made = {
        "a": of_ours("runs/x", "d1", step=4, weights="w4"),
        "b": ("checkpoint=copies/x,step=4", of_ours("copies/x", "d1", step=4, weights="w4")[1]),
        "c": of_ours("runs/x", "d1", step=2, weights="w2"),
        "d": ("checkpoint=runs/x,max_length=99", of_ours("runs/x", "d1", step=4, weights="w4")[1]),
    }
    runs = [log(name, seed=n, args=args, config=config) for n, (name, (args, config)) in enumerate(made.items())]
    with pytest.raises(FlanError, match="a and b, which are the same model, asked the same"):
        reporting.grouped(runs, {"g": ["a", "b"]})
    for other in "cd":
        assert reporting.groups.as_one("g", [runs[0], runs["abcd".index(other)]]).datasets


def test_two_steps_in_earlier_logs_are_a_group(log):
    """All steps of a run have one manifest; without weights only the answers say whether two logs are one model."""
    args, config = of_ours("runs/x", "d1")
    first, other, copy = (log(f"{n}", seed=seed, args=args, config=config) for n, seed in enumerate((1, 2, 1)))
    assert reporting.grouped([first, other], {"g": ["0", "1"]})[0].datasets
    with pytest.raises(FlanError, match="0 and 2, which are the same model"):
        reporting.grouped([first, copy], {"g": ["0", "2"]})


@pytest.mark.parametrize(
    ("later", "why"),
    [
        ({"step": 4, "weights": "w4"}, "of step 2 and results_2026-01-02.* of step 4: give each"),
        ({"step": 2, "weights": "w9"}, "of weights w2 and results_2026-01-02.* of weights w9: give each"),
        ({"step": 2, "weights": "w2"}, None),
        ({}, None),  # an earlier version
    ],
)
def test_steps_of_a_run_in_one_folder_are_different_runs(tmp_path, later, why):
    """Of one task by step 2 and another by step 4, a report had one run."""
    args, first = of_ours("runs/x", "d1", step=2, weights="w2")
    folder = write_log(tmp_path / "a", args=args, config=first)
    more = write_log(tmp_path / "b", ("boolq",), args=args, config=of_ours("runs/x", "d1", **later)[1])
    _edit(more, lambda whole: whole.update(lm_eval_version="0.4.10"))
    for path in more.iterdir():
        path.rename(folder / path.name.replace("01T00", "02T00"))
    if why:
        with pytest.raises(FlanError, match=f"holds logs of different runs, .*{why}"):
            reporting.load_run("a", folder)
    else:
        run = reporting.load_run("a", folder)
        assert set(run.datasets) == {"rte", "bool_q"} and run.title == "a · lm-evaluation-harness 0.4.9 and 0.4.10"


def test_harnesses_of_two_versions_are_one_program(tmp_path):
    """The mean of one task in 0.4.8 and 0.4.9 was neither compared nor averaged."""

    def generated(name):
        settings = {"until": ["x"], "do_sample": False}
        settings = settings if name == "a" else dict(reversed(settings.items()))

        def change(line):
            line["arguments"] = {"gen_args_0": {"arg_0": f"Say {line['doc_id']}", "arg_1": settings}}
            return line | {"filtered_resps": [f"{name} {line['doc_id']}"]}

        return change

    for seed, (name, version) in enumerate((("a", 1.0), ("b", 1))):
        how = {"seed": seed, "args": name, "metric": "exact_match", "version": version}
        write_log(tmp_path / name, change=generated(name), **how)
    _edit(tmp_path / "b", lambda whole: whole.update(lm_eval_version="0.4.8"))
    runs = [reporting.load_run(name, tmp_path / name) for name in "ab"]
    assert runs[1].title == "b · lm-evaluation-harness 0.4.8"
    assert list(reporting.gather(runs).comparisons[0].datasets) == ["rte"] and "in other words" not in _said(*runs)
    (group,) = reporting.grouped(runs, {"g": ["a", "b"]})
    assert group.datasets and group.title == "g · lm-evaluation-harness 0.4.9 and 0.4.8"


def test_models_of_their_own_may_have_the_same_figures(log):
    """The same answers to everything, by other scores: two seeds that say yes."""

    def all_yes(line):
        scores = [[str(2.0 + float(line["filtered_resps"][0][0]) / 100), "True"], ["-9.0", "False"]]
        return line | {"filtered_resps": scores, "acc": float(line["target"] == "0")}

    runs = [log(name, seed=n, args="", change=all_yes) for n, name in enumerate("ab")]
    (group,) = reporting.grouped(runs, {"g": ["a", "b"]})
    assert group.figures("rte")["runs"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("texts", "right", "is_copy"), [(1, False, False), (19, False, False), (20, False, True), (60, True, False)]
)
def test_many_wrong_texts_that_are_alike_are_a_copy(log, texts, right, is_copy):
    """Two models that knew every answer were called one."""

    def generated(line):
        line["arguments"] = {"gen_args_0": {"arg_0": f"Say {line['doc_id']}", "arg_1": {"until": ["x"]}}}
        said = f"text {line['doc_id'] % texts}"
        return line | {"filtered_resps": [said], "target": said if right else "x", "exact_match": float(right)}

    runs = [log(name, args="", seed=n, metric="exact_match", change=generated) for n, name in enumerate("ab")]
    if is_copy:
        with pytest.raises(FlanError, match="which are the same model"):
            reporting.grouped(runs, {"g": ["a", "b"]})
    else:
        assert reporting.grouped(runs, {"g": ["a", "b"]})[0].datasets


def test_a_task_that_stands_twice_in_the_results_is_refused(tmp_path):
    folder = write_log(tmp_path / "a")
    path = next(folder.glob("results_*"))
    path.write_text(path.read_text().replace('"results": {', '"results": {"rte": {}, ', 1))
    with pytest.raises(FlanError, match=r"is no results of lm-evaluation-harness \(the key 'rte' stands twice\)"):
        reporting.load_run("a", folder)


def _generated(line):
    line["arguments"] = {"gen_args_0": {"arg_0": f"Say {line['doc_id']}", "arg_1": {"until": ["x"]}}}
    return line | {"filtered_resps": [f"text {line['doc_id']}"], "exact_match": float(line["doc_id"] % 2)}


@pytest.mark.parametrize(
    ("how", "is_copy"),
    [
        ([{"seed": 1}, {"seed": 2}], False),  # trained anew in the same folder
        ([{"seed": 1}, {"seed": 1, "noise": 0.02}], True),  # computed in another dtype
    ],
    ids=["other weights", "other dtype"],
)
def test_log_likelihoods_can_contradict_a_name(log, how, is_copy):
    runs = [log(name, args="pretrained=./out", **of) for name, of in zip("ab", how, strict=True)]
    if not is_copy:
        assert reporting.groups.as_one("g", runs).datasets
        return
    with pytest.raises(FlanError, match="which are the same model"):
        reporting.groups.as_one("g", runs)


@pytest.mark.parametrize(("step", "is_copy"), [(1, False), (20, True)])
def test_texts_can_contradict_a_name(log, step, is_copy):
    """Where all texts are others it is another model; a few others are of another dtype."""

    def other(line):
        return _generated(line) | ({} if line["doc_id"] % step else {"filtered_resps": ["another"]})

    runs = [log(name, metric="exact_match", change=of) for name, of in (("a", _generated), ("b", other))]
    if not is_copy:
        assert reporting.groups.as_one("g", runs).datasets
        return
    with pytest.raises(FlanError, match="which are the same model"):
        reporting.groups.as_one("g", runs)


def test_other_versions_of_the_harness_are_of_one_program(log):
    """Two versions were two programs, and no group."""
    runs = [log("a"), log("b", seed=2, args="pretrained=y")]
    runs[1].results["harness_version"] = "0.4.8"
    both = "asked by lm-evaluation-harness 0.4.9 and lm-evaluation-harness 0.4.8"
    assert f"b beside a: rte {both}. There the difference is of model and the program's version together" in _said(
        *runs
    )
    (group,) = reporting.grouped(runs, {"g": ["a", "b"]})
    assert f"g: its runs were {both} on rte." in _said(group)
    assert group.title == "g · lm-evaluation-harness 0.4.9 and 0.4.8"


def test_a_task_without_exemplars_is_left_out_of_their_seeds(log):
    """The group was refused, since one of its tasks is asked the same whatever the seed."""
    runs = []
    for name in "ab":
        few = _few_shot(log, name, f"Exemplar {name}", seed=ord(name))
        none = log(f"{name}0", ("boolq",), seed=1)
        few.results["datasets"].update(none.results["datasets"])
        runs.append(reporting.Run(name, few.results, few.output_dir, lines={**few.lines, **none.lines}))
    group = reporting.groups.as_one("g", runs)
    assert list(group.datasets) == ["rte"]
    assert _skipped(group) == {"bool_q": "its runs a and b are the same model there, asked the same"}
