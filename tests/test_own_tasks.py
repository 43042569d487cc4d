"""Datasets of a user's own module, outside the package: everything that holds for the catalog's holds for them."""

import dataclasses
import json
import pickle
import re
import sys
from pathlib import Path

import gin
import own_module
import pytest

from flan_jax import browse, catalog, configuration, own_data, own_tasks, parts, prepare, train
from flan_jax import eval as eval_binary
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import sources
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.inspection import examples


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The file of a module, which is not used yet."""
    monkeypatch.setenv(own_tasks.VARIABLE, "")
    examples._open.cache_clear()  # modules of one name are another one in every test
    return own_module.write(tmp_path)


@pytest.fixture
def used(module):
    """The same, used."""
    own_tasks.use(str(module))
    return module


def test_they_join_the_catalog_and_no_mixture(module):
    papers, flan = catalog.datasets(), catalog.mixture("flan")
    own_tasks.use(str(module))
    assert [d.name for d in catalog.datasets()] == [*(d.name for d in papers), "my_spam", "my_titles"]
    assert catalog.mixture("flan") == flan and catalog.datasets("summarization")[-1].name == "my_titles"
    assert catalog.cluster("spam").title == "Spam" and catalog.named("spam") == (catalog.dataset("my_spam"),)
    assert catalog.mixture("my_spam_5_shots".removesuffix("_5_shots")) == (catalog.dataset("my_spam"),)
    assert pickle.loads(pickle.dumps(catalog.dataset("my_spam"))) is catalog.dataset("my_spam")
    with pytest.raises(FlanError, match="did you mean 'my_spam'"):
        catalog.dataset("my_spma")
    mixed = parts.of({"parts": [{"of": "flan_without_nli"}, {"of": "spam", "style": "5_shots", "rate": 900}]})
    assert [part.name for part in mixed.parts if part.cluster == "spam"] == ["my_spam"]


def test_the_hold_out_rule(module):
    before = {c.name: catalog.held_out_together(c.name) for c in catalog.clusters()}
    own_tasks.use(str(module))
    spam, rte = catalog.dataset("my_spam"), catalog.dataset("rte")
    assert not catalog.is_held_out(spam, {"nli"}) and not catalog.is_held_out(rte, {"spam"})  # it names nli, not nli it
    assert catalog.is_held_out(spam, {"paraphrase"}) and catalog.is_held_out(catalog.dataset("sst2"), {"spam"})
    assert not catalog.is_held_out(catalog.dataset("my_titles"), {"summarization"})
    changed = {name for name, found in before.items() if catalog.held_out_together(name) != found}
    assert changed == {"nli"} and catalog.held_out_together("nli") == before["nli"] | {"spam"}


def test_a_cluster_that_is_not_known_here(module, monkeypatch):
    with pytest.raises(FlanError, match="cluster 'spam', which is not known here; give --tasks=MODULE"):
        catalog.is_held_out(catalog.dataset("rte"), {"sentiment", "spam"})


def test_linter_and_browser(used, capsys):
    assert examples.lint(["my_spam", "my_titles"]) == []
    browse.main(["--dataset=my_spam", "--style=without_options", "--count=1", "--template=0", "--split=test", "--json"])
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])["examples"][0]
    assert (
        shown["inputs"].startswith("Is this spam?")
        and shown["inputs"].endswith("validation")
        and shown["targets"] in "yesno"
    )
    flawed = dataclasses.replace(catalog.dataset("my_spam"), templates=catalog.dataset("my_spam").templates[-1:])
    from flan_jax import template_lint

    fields = {"text": "see you", "options": ["yes", "no"], "answer": "no"}
    assert "my_spam: has 0 forward templates, fewer than 1" in template_lint.lint(flawed, [fields])


def test_from_prepare_through_train_to_evaluation(module, tmp_path, capsys, monkeypatch):
    """By file in one command, by the macro in the other; the second begins where no dataset is known."""
    recipe = {"name": "mine", "parts": [{"of": "my_spam"}, {"of": "my_titles", "style": "1_shots"}, {"of": "sst2"}]}
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    to = tmp_path / "prepared"
    prepare.main(
        [f"--tasks={module}", f"--mixture={tmp_path}/mine.json", "--datasets=rte", f"--to={to}", "--workers=1"]
    )
    assert "my_titles" in capsys.readouterr().out
    monkeypatch.setenv(own_tasks.VARIABLE, "")
    given = {"MODEL_DIR": f"{tmp_path}/run", "PREPARED_DIR": str(to), "MIXTURE_OR_TASK_NAME": f"{tmp_path}/mine.json"}
    given |= {"TRAIN_STEPS": 1, "EVAL_PERIOD": 1, "DATASETS": ("my_spam", "rte"), "GENERATE": False}
    given |= {"MAX_DEV_EXAMPLES": 4, "TASKS": str(module), "TASK_FEATURE_LENGTHS": {"inputs": 512, "targets": 96}}
    gin.clear_config()
    train.main(["--gin_file=runs/tune.gin", *(f"--gin.{name}={value!r}" for name, value in given.items())])
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert {"my_spam", "my_titles", "sst2"} >= set(line["dataset_loss"]) >= {"my_spam"}
    assert set(line["dev_score"]) == {"seen/my_spam", "seen/rte"}
    assert set(line["dev_score_cluster"]) == {"seen/spam", "seen/nli"}
    monkeypatch.setenv(own_tasks.VARIABLE, "")
    more = {"CHECKPOINT_PATH": f"{tmp_path}/run", "EVAL_OUTPUT_DIR": f"{tmp_path}/out", "MAX_DEV_EXAMPLES": 0}
    more |= {"MAX_EXAMPLES": 4} | {name: given[name] for name in ("PREPARED_DIR", "TASKS", "GENERATE")}
    given_to_eval = [f"--gin.{name}={value!r}" for name, value in more.items()]
    eval_binary.main(["--gin_file=runs/eval.gin", *given_to_eval, "--gin.DATASETS=('my_spam',)", "--allow_seen"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["datasets"]["my_spam"]["label"] == "zero-shot, seen"
    assert (tmp_path / "out" / "report.html").is_file()
    tuning = Manifest.load(tmp_path / "run").tuning
    assert tuning["clusters"] == ["sentiment", "spam", "summarization"]
    said = {name: labels.status(catalog.dataset(name), tuning) for name in ("my_spam", "rte", "bool_q", "xsum")}
    assert said == {"my_spam": "seen", "rte": "seen", "bool_q": "held out", "xsum": "seen"}
    monkeypatch.setenv(own_tasks.VARIABLE, "")
    with pytest.raises(FlanError, match="give --tasks=MODULE"):
        labels.status(catalog.dataset("bool_q"), tuning)
    with pytest.raises(SystemExit):
        train.main(["--gin_file=runs/tune.gin", *(f"--gin.{k}={v!r}" for k, v in given.items() if k != "TASKS")])
    assert "unknown dataset or cluster 'my_spam'" in capsys.readouterr().err


WRONG = {
    "no DATASETS": ("DATASETS =", "OTHERS =", "it needs DATASETS"),
    "a name that there is": ('"my_spam",', '"rte",', "'rte': there is one of that name already"),
    "a name of a cluster": ('"my_spam",', '"nli",', "there is one of that name already"),
    "a name of a mixture": ('"my_spam",', '"flan_mine",', "begins like the name of a mixture"),
    "no name": ('"my_spam",', '"My-spam",', "a name has small letters"),
    "the same twice": ('"my_titles",', '"my_spam",', "there is one of that name already"),
    "a cluster that there is": ('"spam", "Spam"', '"nli", "Spam"', "there is another cluster 'nli'"),
    "an unknown cluster": ('cluster="summarization"', 'cluster="sumarization"', "did you mean 'summarization'"),
    "held out with nothing": ('("nli",)', '("nly",)', "unknown cluster 'nly': did you mean 'nli'.*cluster spam"),
    "a name of all": ('"my_spam",', '"all",', "there is one of that name already"),
    "a name of several datasets": ('"my_spam",', '"anli",', "there is one of that name already"),
    "a name of its cluster": ('"my_spam",', '"spam",', "'spam' is a dataset and a cluster"),
    "a cluster with a dataset's name": ('"spam", "Spam"', '"rte", "Spam"', "'rte' means something else already"),
    "an unknown cluster of one's own": (
        '"spam", "Spam"',
        '"unknown", "Spam"',
        "'unknown' means something else already",
    ),
    "a cluster with the other's name": ('"spam", "Spam"', '"my_titles", "T"', "'my_titles' is a dataset and a cluster"),
    "held out with a text": ('("nli",)', '"nli"', "held_out_with is a text; write it as a tuple, as \\('nli',\\)"),
    "metrics that are a text": ('("accuracy",)', '"accuracy"', "metrics is 'accuracy'; write it as a tuple"),
    "no template": ("templates=(Template", "templates=() and (Template", "dataset 'my_titles' has no template"),
    "an inverted template that is not called so": (
        '"{text}", INVERTED)',
        '"{text}")',
        "'my_spam': template 2 is forward, so {answer} belongs in its target .*, 'inverted'\\)",
    ),
    "an answer in the question": ("Is this spam?", "Is this spam, {answer}?", "template 0 is forward, so {answer}"),
    "a target without the answer": (
        ':\\n\\n{text}", "{answer}")',
        ':\\n\\n{text}", "{title}")',
        "'my_titles': template 0 is",
    ),
    "no direction": (
        '"{text}", INVERTED)',
        '"{text}", "inverse")',
        "template 2 has the direction 'inverse'; write 'forw",
    ),
    "an unknown metric": ('("accuracy",)', '("acuracy",)', "'my_spam': unknown metric 'acuracy': did you mean"),
    "no metric": ('("accuracy",)', "()", "it has a metric"),
    "another kind": ("kind=GENERATION", 'kind="generate"', "its kind is 'classification' or 'generation'"),
    "it fails": ("WORDS =", "1 / 0\nWORDS =", "importing it fails \\(ZeroDivisionError: division by zero\\)"),
    "no Python": ("DATASETS =", "DATASETS = = ", "importing it fails \\(SyntaxError"),
    "it needs what is not there": ("import tensorflow as tf", "import tensorflo as tf", "needs a module 'tensorflo'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_module_is_named(module, name, capsys):
    old, new, line = WRONG[name]
    text = module.read_text()
    assert old in text
    module.write_text(text.replace(old, new))
    with pytest.raises(SystemExit) as caught:
        browse.main([f"--tasks={module}", "--dataset=my_titles"])
    said = capsys.readouterr().err.strip()
    assert caught.value.code == 2 and re.search(line, said) and "\n" not in said, said


def test_a_field_that_is_not_there_is_the_modules(module):
    module.write_text(module.read_text().replace("Is this spam?\\n\\n{text}", "Is this spam?\\n\\n{txt}"))
    own_tasks.use(str(module))
    (found,) = examples.lint(["my_spam"])
    assert "'txt'" in found and "mend the module that it is in" in found


def test_lists_are_tuples_and_a_module_beside_is_found(module, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (module.parent / "beside_my_tasks.py").write_text("LIST = list\n")
    text = module.read_text().replace('metrics=("rouge",)', 'metrics=LIST(("rouge",))')
    module.write_text("from beside_my_tasks import LIST\n" + text.replace("templates=(Template", "templates=(Template"))
    module.write_text(module.read_text() + "DATASETS = LIST(DATASETS)\nimport dataclasses\n")
    module.write_text(
        module.read_text() + "DATASETS[1] = dataclasses.replace(DATASETS[1], templates=[*DATASETS[1].templates])\n"
    )
    own_tasks.use(str(module))
    assert catalog.dataset("my_titles").metrics == ("rouge",) and len({*catalog.datasets("summarization")}) > 1


def test_a_prepared_dataset_of_the_same_name_is_refused(used, tmp_path, monkeypatch):
    monkeypatch.setenv(own_data.VARIABLE, "")
    for name, cluster, line in (
        ("my_spam", "unknown", "'my_spam' is prepared here from jsonl:a.jsonl, and tasks .* have another"),
        ("mine", "scam", "is of cluster 'scam', which is not known here: give --tasks"),
    ):
        folder = tmp_path / name
        own_data.write(folder, own_data.Definition(name, cluster, "generation", ("rouge",), "jsonl:a.jsonl"))
        own_data.use(folder)
        with pytest.raises(FlanError, match=line):
            catalog.dataset(name)


def test_a_module_without_samples(module):
    (module.parent / "samples").rename(module.parent / "elsewhere")
    own_tasks.use(str(module))
    (line,) = examples.lint(["my_spam"])
    assert line.startswith("dataset my_spam: there is no folder of samples") and "--data=FOLDER" in line
    opened = dict(sources.open_all([catalog.dataset("my_spam"), catalog.dataset("rte")], "samples"))
    assert [isinstance(found, sources.Skipped) for found in opened.values()] == [True, False]
    elsewhere = sources.open_source(catalog.dataset("my_spam"), module.parent / "elsewhere")
    assert elsewhere.splits["train"].size == 9


def test_data_of_ones_own_are_not_in_tfds(used):
    with pytest.raises(FlanError, match="it is data of your own, which TFDS has not; give --data=FOLDER"):
        sources.open_source(catalog.dataset("my_spam"), "tfds")


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ((), ""),
        (("train.csv",), r" \(it has train\.csv, not \.jsonl\)"),
        (("all.jsonl",), " .*whose name is no split.*"),
    ],
)
def test_data_of_ones_own_in_another_form_are_named(used, files, has):
    """The advice was to install another version of tensorflow-datasets."""
    folder = used.parent / "given"
    (folder / "my_spam").mkdir(parents=True)
    for name in files:
        (folder / "my_spam" / name).write_text("text,label\nbuy this,spam\n")
    said = f"no folder my_spam/ of JSONL{has} and no prepared my_spam.*; add my_spam/train.jsonl .* of its schema"
    with pytest.raises(sources.SourceError, match=said):
        sources.open_source(catalog.dataset("my_spam"), folder)


def test_a_field_of_no_kind(module, capsys):
    module.write_text(module.read_text().replace('"title": "text"', '"title": "txt"'))
    own_tasks.use(str(module))
    with pytest.raises(FlanError, match="field 'title' of its schema: did you mean 'text'"):
        sources.open_source(catalog.dataset("my_titles"), "samples")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere_tasks", "there is no such module; start in the folder .* as nowhere_tasks.py"),
        ("lab.nowhere", "there is no such module"),
        ("/tmp/nowhere.py", "there is no such file"),
        ("json", "it needs DATASETS"),
    ],
)
def test_a_module_that_is_not_there(monkeypatch, name, line):
    monkeypatch.setenv(own_tasks.VARIABLE, "")
    with pytest.raises(FlanError, match=line):
        own_tasks.use(name)
        catalog.datasets()


def test_a_run_file_names_its_modules(module, capsys):
    gin.clear_config()
    from flan_jax.training import configurables  # noqa: F401 - what a run file configures

    more = ["MODEL_DIR = 'm'", "PREPARED_DIR = 'p'", "WEIGHTS = {'my_spam': 2}"]
    own = "MIXTURE_OR_TASK_NAME = {'parts': [{'of': 'spam'}, {'of': 'flan'}]}"
    with pytest.raises(FlanError, match="WEIGHTS is {'my_spam': 2}.*unknown"):
        configuration.parse(["runs/tune.gin"], more)
    gin.clear_config()
    configuration.parse(["runs/tune.gin"], [*more, own, f"TASKS = '{module}'"])
    assert configuration.arguments("train")["mixture"].parts[-1].name == "my_spam"
    with pytest.raises(FlanError, match="TASKS is 3"):
        configuration.parse(["runs/tune.gin"], [*more, "TASKS = 3"])


def test_the_module_of_the_page(tmp_path, monkeypatch):
    monkeypatch.setenv(own_tasks.VARIABLE, "")
    own_module.write(tmp_path)  # for its samples
    page = (Path(__file__).parents[1] / "docs" / "your_data.md").read_text("utf-8")
    (tmp_path / "of_the_page.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    own_tasks.use(str(tmp_path / "of_the_page.py"))
    examples._open.cache_clear()
    assert examples.lint(["my_spam"]) == [] and catalog.dataset("my_spam").cluster == "spam"


def test_the_mixtures_of_the_page():
    page = (Path(__file__).parents[1] / "docs" / "mixtures.md").read_text("utf-8")
    shown = [parts.of(text) for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    assert [found.title for found in shown] == ["flan_without_nli with STYLES, WEIGHTS, RATES", "mine"]
