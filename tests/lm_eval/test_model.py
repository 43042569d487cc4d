"""The harness runs its own tasks on our engine and on its Hugging Face backend, with the same weights."""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("lm_eval.evaluator")
pytest.importorskip("torch")
pytest.importorskip("accelerate")

from lm_eval.api.instance import Instance

from flan_jax.checkpoint import arrays, saving
from flan_jax.errors import FlanError
from flan_jax.lm_eval import __main__ as cli
from flan_jax.lm_eval.model import FlanJaxLM

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import same_weights

pytestmark = pytest.mark.slow
MAX_LENGTH = 60
WORDS = [
    "the",
    "ferry",
    "left",
    "harbour",
    "at",
    "half",
    "past",
    "six",
    "and",
    "nobody",
    "on",
    "pier",
    "waved",
    "to",
    "its",
    "captain",
    "in",
    "red",
    "coat",
]


def _sentence(rng, low, high):
    return " ".join(rng.choice(WORDS, rng.integers(low, high)))


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    return [
        {
            "question": _sentence(rng, 3, 12 if i % 5 else 40),  # some are longer than the model reads
            "choices": [_sentence(rng, 1, 5) for _ in range(rng.integers(2, 5))],
            "label": int(rng.integers(0, 2)),
            "text": _sentence(rng, 5, 90),
        }
        for i in range(12)
    ]


@pytest.fixture(scope="module")
def checkpoint(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm_eval") / "tiny"
    same_weights.write_tiny([record["text"] for record in records], folder)
    return folder


@pytest.fixture(scope="module")
def ours(checkpoint):
    return FlanJaxLM(checkpoint=str(checkpoint), max_length=MAX_LENGTH)


@pytest.fixture(scope="module")
def theirs(checkpoint):
    from lm_eval.models.huggingface import HFLM

    llama, tokenizer = same_weights.load_as_transformers(checkpoint)
    return HFLM(pretrained=llama, tokenizer=tokenizer, max_length=MAX_LENGTH, batch_size=4)


@pytest.fixture(scope="module")
def tasks(records, tmp_path_factory):
    """A folder with a multiple-choice task and a perplexity task on local data."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    common = (
        f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder / 'data.jsonl'}\ntest_split: test\n"
    )
    (folder / "choices.yaml").write_text(
        f"task: flan_jax_choices\noutput_type: multiple_choice\n{common}"
        "doc_to_text: 'Q: {{question}}\\nA:'\ndoc_to_choice: '{{choices}}'\ndoc_to_target: label\n"
        "metric_list:\n  - metric: acc\n  - metric: acc_norm\n"
    )
    (folder / "rolling.yaml").write_text(
        f"task: flan_jax_rolling\noutput_type: loglikelihood_rolling\n{common}"
        "doc_to_text: ''\ndoc_to_target: '{{text}}'\nmetric_list:\n  - metric: word_perplexity\n"
    )
    return folder


def test_tasks_of_the_harness_give_what_its_own_backend_gives(ours, theirs, tasks, tmp_path, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    names = ["flan_jax_choices", "flan_jax_rolling"]

    def run(model):
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        return lm_eval.simple_evaluate(model, tasks=names, task_manager=manager, bootstrap_iters=0)

    found, expected = run(ours), run(theirs)
    results = [run["results"]["flan_jax_choices"] for run in (found, expected)]
    for metric in ("acc,none", "acc_norm,none"):
        assert results[0][metric] == results[1][metric]
    perplexities = [run["results"]["flan_jax_rolling"]["word_perplexity,none"] for run in (found, expected)]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=1e-4)
    answers = 0
    for a, b in zip(found["samples"]["flan_jax_choices"], expected["samples"]["flan_jax_choices"], strict=True):
        for (x, x_greedy), (y, y_greedy) in zip(a["filtered_resps"], b["filtered_resps"], strict=True):
            assert x == pytest.approx(y, abs=1e-3) and x_greedy == y_greedy
            answers += 1
    assert answers > 24
    assert found["config"]["flan_jax"]["tuning"]["status"] == "unknown"


def _instances(kind, arguments):
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def test_the_corners_of_log_likelihoods(ours, theirs):
    long = " ".join(WORDS * 8)
    pairs = [
        ("", "the ferry"),  # nothing before it
        ("", same_weights.END + "the ferry"),  # the prefix is there already
        ("the ferry ", "left"),  # the space goes with the continuation
        ("the ferry\n\n", " left"),
        ("the fer", "ry left harbour at half past six"),  # a token may span both
        ("the ferry", " left"),
        ("the ferry", " left"),  # twice
        ("the ferry", " left the harbour"),
        (long, " left"),
        (long, " left the harbour at half past six"),  # cut elsewhere
        ("a", " e"),
    ]
    requests = _instances("loglikelihood", pairs)
    found, expected = ours.loglikelihood(requests, True), theirs.loglikelihood(requests, True)
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in expected], atol=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert found[5] == found[6]


def test_rolling_windows(ours, theirs):
    texts = [(" ".join(WORDS * n),) for n in (1, 3, 7)] + [("the",), ("",)]
    requests = _instances("loglikelihood_rolling", texts)
    found, expected = ours.loglikelihood_rolling(requests, True), theirs.loglikelihood_rolling(requests, True)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found[-1] == 0


def test_what_cannot_be_scored_is_refused(ours, checkpoint):
    with pytest.raises(FlanError, match="empty continuation"):
        ours.loglikelihood(_instances("loglikelihood", [("the", "")]))
    with pytest.raises(FlanError, match="max_length=60"):
        ours.loglikelihood(_instances("loglikelihood", [("the", " ".join(WORDS * 10))]))
    with pytest.raises(FlanError, match="no 'max_len'"):
        FlanJaxLM(checkpoint=str(checkpoint), max_len=3)
    with pytest.raises(FlanError, match="checkpoint=FOLDER"):
        FlanJaxLM()


def test_generation_is_the_harness_own(ours, theirs):
    asked = [
        ("the ferry left", {"until": ["\n"], "max_gen_toks": 8}),
        ("nobody on the pier", {"until": [" w"], "max_gen_toks": 5}),
        (" ".join(WORDS * 8), {"until": [], "max_gen_toks": 8}),
    ]
    requests = _instances("generate_until", asked)
    assert ours.generate_until(requests, True) == theirs.generate_until(requests, True)
    with pytest.raises(FlanError, match="greedily"):
        ours.generate_until(_instances("generate_until", [("the", {"do_sample": True, "temperature": 1.0})]))


@pytest.fixture(scope="module")
def tuned(checkpoint, tmp_path_factory):
    """The same weights, tuned here as their manifest says."""
    from flan_jax.checkpoint.manifest import Manifest

    folder = tmp_path_factory.mktemp("tuned") / "tiny"
    shutil.copytree(checkpoint, folder)
    Manifest.load(folder).inherit(["sst2"], ["sentiment"], "eos", {}).save(folder)
    return folder


def test_a_model_that_was_tuned_with_eos_is_asked_with_it(tuned, ours, capsys):
    """E9: its options were glued to the prompt, without EOS, and nothing was said of it."""
    from flan_jax.scoring.trees import Tree

    model = FlanJaxLM(checkpoint=str(tuned), max_length=MAX_LENGTH)
    assert capsys.readouterr().err.splitlines()[-1].startswith("joint eos: prompt and answer each end with EOS")
    tokenizer = model._tokenizer
    pairs = [("the ferry", " left"), ("the ferry ", "left the harbour"), ("", "the"), ("nobody on", " pier")]
    trees = []
    for context, continuation in pairs:
        start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        head, tail = tokenizer.encode([context.strip(), continuation.strip()])
        trees.append(Tree((*start, *head, tokenizer.eos_id), ((*tail, tokenizer.eos_id),), (0,), (0,)))
    expected = [scores.loglikelihood[0] for scores in model._scorer.score(trees)]
    requests = _instances("loglikelihood", pairs)
    np.testing.assert_allclose([x for x, _ in model.loglikelihood(requests, True)], expected, atol=1e-4)
    assert model.get_model_info()["flan_jax"]["joint"] == "eos"
    said = model.generate_until(_instances("generate_until", [("the ferry", {"until": [], "max_gen_toks": 5})]), True)
    (ids,) = model._prompts(["the ferry "])
    assert ids[-1] == tokenizer.eos_id and isinstance(said[0], str)
    # It can be overridden, and is then as for a model that was never tuned.
    joined = FlanJaxLM(checkpoint=str(tuned), max_length=MAX_LENGTH, joint="joined")
    assert joined.loglikelihood(requests, True) == ours.loglikelihood(requests, True)
    spaced = FlanJaxLM(checkpoint=str(tuned), max_length=MAX_LENGTH, joint="space")
    assert spaced.loglikelihood(requests[:1], True) == ours.loglikelihood(requests[:1], True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"joint": "tab"}, "joint is 'tab'; it can be 'auto'"),
        ({"max_length": "long"}, "max_length in --model_args is 'long': it has to be a whole number"),
        ({"max_length": 1.5}, "max_length in --model_args is 1.5"),
        ({"max_length": True}, "max_length in --model_args is True"),
        ({"max_gen_toks": 0}, "max_gen_toks in --model_args is 0"),
        ({"step": "last"}, "step in --model_args is 'last'"),
        ({"prefix_token_id": -1}, "prefix_token_id in --model_args is -1"),
        ({"prefix_token_id": "<s>"}, "prefix_token_id in --model_args is '<s>'"),
    ],
)
def test_numbers_in_model_args_have_kinds(checkpoint, arguments, message):
    with pytest.raises(FlanError, match=message) as caught:
        FlanJaxLM(checkpoint=str(checkpoint), **arguments)
    assert "\n" not in str(caught.value)


TEMPLATE = (
    "{{ eos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def talking(checkpoint, theirs, tmp_path_factory):
    """The same model with chat templates: ours, and the harness's own backend."""
    from lm_eval.models.huggingface import HFLM

    from flan_jax.checkpoint.manifest import Manifest
    from flan_jax.data import vocabularies
    from flan_jax.data.chat import Chat

    folder = tmp_path_factory.mktemp("talking") / "tiny"
    shutil.copytree(checkpoint, folder)
    plain = vocabularies.load(folder / "vocabulary")
    chat = Chat({"default": TEMPLATE, "short": "{{ messages[-1].content }}"}, {"eos_token": same_weights.END})
    talks = vocabularies.HuggingFaceTokenizer(plain.content, plain.eos_id, chat=chat)
    talks.save(folder / "vocabulary")
    Manifest.load(folder).recorded({"given": "chat templates"}, talks).save(folder)
    tokenizer = same_weights.load_as_transformers(checkpoint)[1]
    tokenizer.chat_template = TEMPLATE
    ours = FlanJaxLM(checkpoint=str(folder), max_length=MAX_LENGTH)
    return ours, HFLM(pretrained=theirs.model, tokenizer=tokenizer, max_length=MAX_LENGTH, batch_size=4)


def test_chats_are_those_of_the_harness(talking, ours):
    mine, theirs = talking
    histories = [
        [{"role": "user", "content": " the ferry "}],
        [{"role": "system", "content": "be kind"}, {"role": "user", "content": "left"}],
        [{"role": "user", "content": "the"}, {"role": "assistant", "content": "ferry"}],
    ]
    assert mine.chat_template(True) == theirs.chat_template(True) == TEMPLATE
    names = {mine.tokenizer_name, ours.tokenizer_name}
    for history in histories:
        for answer in (True, False):
            found = mine.apply_chat_template(history, add_generation_prompt=answer)
            assert found == theirs.apply_chat_template(history, add_generation_prompt=answer)
    assert mine.chat_template("short") == "{{ messages[-1].content }}"
    assert mine.apply_chat_template(histories[0]) == " the ferry "
    assert len(names | {mine.tokenizer_name}) == 3  # requests of each are cached apart
    assert mine.chat_template(False) is None
    mine.chat_template(True)
    with pytest.raises(FlanError, match="unknown chat template 'shorter': did you mean 'short'"):
        mine.chat_template("shorter")
    for refused in (lambda: ours.chat_template(True), lambda: ours.apply_chat_template(histories[0])):
        with pytest.raises(FlanError, match="has no chat template: leave --apply_chat_template out"):
            refused()


def test_tasks_with_a_chat_template(talking, tasks, tmp_path, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))

    def run(model):
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        settings = {"apply_chat_template": True, "bootstrap_iters": 0, "log_samples": True}
        return lm_eval.simple_evaluate(model, tasks=["flan_jax_choices"], task_manager=manager, **settings)

    found, expected = run(talking[0]), run(talking[1])
    for one, other in zip(*(r["samples"]["flan_jax_choices"] for r in (found, expected)), strict=True):
        assert one["arguments"] == other["arguments"] and "[assistant] " in str(one["arguments"])
        np.testing.assert_allclose(*([x[0] for x in r["filtered_resps"]] for r in (one, other)), atol=1e-3)


def test_generation_stops_at_special_tokens(talking):
    mine, theirs = talking
    asked = [("the ferry left", {"until": [same_weights.END, "\n"], "max_gen_toks": 8})]
    requests = _instances("generate_until", asked)
    assert mine.generate_until(requests, True) == theirs.generate_until(requests, True)


def test_the_command_line(checkpoint, tasks, tmp_path, monkeypatch):
    """In this process; that `python -m flan_jax.lm_eval` starts is in tests/test_start.py."""
    monkeypatch.setattr(sys, "argv", [])  # which is how the harness gets its arguments
    assert cli.with_model(["--tasks", "a"]) == ["run", "--model", "flan_jax", "--tasks", "a"]
    for others in (["ls", "tasks"], ["--help"], ["run", "--model", "hf", "--tasks", "a"], ["--config=x.yaml"], []):
        assert cli.with_model(others) == others
    arguments = ["--model_args", f"checkpoint={checkpoint},max_length={MAX_LENGTH}", "--tasks", "flan_jax_choices"]
    paths = ["--include_path", str(tasks), "--output_path", str(tmp_path / "out")]
    cli.main([*arguments, *paths, "--limit", "3"])
    (path,) = (tmp_path / "out").rglob("results*.json")
    assert "acc,none" in json.loads(path.read_text())["results"]["flan_jax_choices"]


def test_a_log_says_step_and_weights(checkpoint, ours, tmp_path):
    """All steps of a run have one manifest, so that its digest does not say of which one a log is."""
    about = ours.get_model_info()["flan_jax"]
    folder = shutil.copytree(checkpoint, tmp_path / "run")
    with saving.Saver(folder, keep=2) as saver:
        saver.save(5, jax.tree.map(lambda x: x + 1, arrays.load_model(checkpoint)[1]))
    models = [FlanJaxLM(checkpoint=str(folder), step=step, max_length=MAX_LENGTH) for step in (0, None)]
    first, last = (model.get_model_info()["flan_jax"] for model in models)
    assert first["step"] == 0 and first["weights"] == about["weights"]
    assert last["step"] == 5 and last["weights"] not in (None, first["weights"])
    assert last["checkpoint_digest"] == first["checkpoint_digest"] == about["checkpoint_digest"]


def test_a_checkpoint_that_is_not_there_ends_the_command_line(tasks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [])  # which is how the harness gets its arguments
    bad = ["--model_args", "checkpoint=nowhere", "--tasks", "flan_jax_choices"]
    with pytest.raises(SystemExit) as caught:
        cli.main([*bad, "--include_path", str(tasks), "--output_path", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("flan_jax: no checkpoint at nowhere")


def test_a_task_that_is_not_there_ends_the_command_line(checkpoint, tasks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [])
    bad = ["--model_args", f"checkpoint={checkpoint}", "--tasks", "flan_jax_choises"]
    with pytest.raises(SystemExit) as caught:
        cli.main([*bad, "--include_path", str(tasks), "--output_path", str(tmp_path / "out")])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("flan_jax: Tasks not found: flan_jax_choises; python -m flan_jax.lm_eval ls tasks lists")


def test_a_task_whose_data_are_out_of_reach_ends_the_command_line(checkpoint, tmp_path, monkeypatch, capsys):
    """`datasets` is offline in tests, as on many machines."""
    (tmp_path / "far.yaml").write_text(
        "task: far\ndataset_path: nyu-mll/glue\ndataset_name: rte\ntest_split: validation\n"
        "output_type: multiple_choice\ndoc_to_text: '{{sentence1}}'\ndoc_to_target: label\ndoc_to_choice: ['a', 'b']\n"
    )
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit) as caught:
        cli.main(["--model_args", f"checkpoint={checkpoint}", "--tasks", "far", "--include_path", str(tmp_path)])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("flan_jax: the data of a task cannot be had: ") and "--include_path" in said
