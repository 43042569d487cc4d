"""Weights with one number that is not finite, through everything that scores or answers: no result comes of them."""

import dataclasses
import json
import re

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from flan_jax import catalog, configuration, infer, models, partitioning, reporting
from flan_jax import eval as eval_binary
from flan_jax.checkpoint.manifest import DECLARED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.decoding.beam import Beams
from flan_jax.decoding.generator import Generator
from flan_jax.decoding.sampling import Sampling
from flan_jax.errors import FlanError, NotFiniteError
from flan_jax.evaluation import evaluator, jobs
from flan_jax.json_lines import read_lines
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import Tree

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"),
    num_layers=1,
    embed_dim=32,
    head_dim=8,
    mlp_dim=32,
    remat="none",
    tied_embeddings=False,
)
NETWORK, BYTES = models.build(CONFIG), ByteTokenizer()
RARE = "§"  # of two bytes, the second of which no other text here has
MESH = partitioning.make_mesh(devices=jax.devices()[:1])
SETTINGS = evaluator.Settings(max_input_tokens=1024, max_new_tokens=4)


def _params(where, number=np.nan):
    """Random parameters with one number (a row of the embedding: one token) replaced."""
    params = jax.tree.map(np.array, jax.jit(NETWORK.init)(jax.random.key(0)))
    decoder = params["decoder"]
    if where == "norm":
        decoder["decoder_norm"]["scale"][3] = number
    elif where == "kernel":
        decoder["layers"]["mlp"]["wo"]["kernel"][0, 2, 5] = number
    elif where == "head":
        decoder["logits_dense"]["kernel"][1, 300] = number  # of a token that stands in no text
    elif where == "embedding":
        decoder["token_embedder"]["embedding"][RARE.encode()[1] + 3] = number
    return params


def _checkpoint(folder, params):
    """A checkpoint as an earlier version saved it: without a look at its numbers, and without digests."""
    with ocp.CheckpointManager((folder / "checkpoints").absolute(), item_names=("params",)) as manager:
        manager.save(0, args=ocp.args.Composite(params=ocp.args.StandardSave(params)))
        manager.wait_until_finished()
    Manifest.create(CONFIG, BYTES, DECLARED, []).save(folder)
    BYTES.save(folder / "vocabulary")
    return str(folder)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    words = [word for _, word in catalog.dataset("rte").labels]
    texts = ["fine", f"fine {RARE}", f"so {RARE}"]
    fields = {
        "rte": [{"premise": "grass is green", "hypothesis": "it is", "options": words, "answer": words[0]}] * 3,
        "sst2": [{"sentence": t, "options": ["negative", "positive"], "answer": "positive"} for t in texts],
        "yelp": [{"sentence": t, "options": ["negative", "positive"], "answer": "positive"} for t in ("a", "b", "c")],
        "natural_questions": [{"question": t, "answer": "Ann", "references": ["Ann"]} for t in texts],
    }
    fields["yelp_polarity_reviews"] = [{"review": r["sentence"], **r} for r in fields.pop("yelp")]
    for dataset, rows in fields.items():
        found = {split: [(f"{split}-{n}", row) for n, row in enumerate(rows)] for split in ("test", "dev")}
        example_files.write_folder(folder / "examples" / dataset, found)
    return folder


@pytest.fixture(scope="module")
def bad_token(tmp_path_factory):
    return _checkpoint(tmp_path_factory.mktemp("models") / "bad_token", _params("embedding"))


@pytest.fixture(scope="module")
def bad_norm(tmp_path_factory):
    return _checkpoint(tmp_path_factory.mktemp("models") / "bad_norm", _params("norm"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return _checkpoint(tmp_path_factory.mktemp("models") / "sound", _params("nowhere"))


ALL = ("rte", "sst2", "yelp_polarity_reviews", "natural_questions")


def _evaluate(checkpoint, prepared, output, datasets=ALL):
    (run,) = jobs.plan(checkpoint, None, datasets, output, "tuned", SETTINGS, ("instructions",))
    return jobs.evaluate(run, prepared, MESH)


# ------------------------------------------------------------------------------------------------------- evaluation


def test_an_old_result_does_not_stay_beside_an_evaluation_without_one(sound, bad_norm, prepared, tmp_path):
    _evaluate(sound, prepared, tmp_path, ("rte",))
    assert (tmp_path / "results.json").is_file()
    with pytest.raises(FlanError, match="no result is valid"):
        _evaluate(bad_norm, prepared, tmp_path, ("rte",))
    assert not (tmp_path / "results.json").exists()


def test_prompts_are_in_the_file_and_not_in_memory(sound, prepared, tmp_path, monkeypatch):
    seen = []
    real = evaluator.summarize

    def kept(record, test, dev, given):
        seen.append((test, dev))
        return real(record, test, dev, given)

    monkeypatch.setattr(evaluator, "summarize", kept)
    for _ in range(2):  # the second time they are read from the file
        _evaluate(sound, prepared, tmp_path)
    assert len(seen) == 2 * len(ALL)
    assert not any(
        "prompt" in line for splits in seen for split in splits for lines in split.values() for line in lines
    )
    files = sorted((tmp_path / "predictions").rglob("*.jsonl"))
    assert files and all("prompt" in line for path in files for line in read_lines(path)[1:])


def test_the_dataset_is_invalid_and_the_others_go_on(bad_token, sound, prepared, tmp_path):
    results = _evaluate(bad_token, prepared, tmp_path / "out")
    assert set(results["datasets"]) == {"rte", "yelp_polarity_reviews"}
    invalid = {one["dataset"]: one for one in results["invalid"]}
    assert set(invalid) == {"sst2", "natural_questions"}
    assert invalid["sst2"] | {"reason": ""} == {
        "dataset": "sst2",
        "split": "test",
        "template": catalog.dataset("sst2").forward_templates[0],
        "example": "test-1",
        "reason": "",
    }
    assert "invalid: scores of test example 'test-1' with template" in invalid["sst2"]["reason"]
    assert "invalid: logits of test example 'test-1' with template" in invalid["natural_questions"]["reason"]
    assert {one["dataset"] for one in results["skipped"]} == set(invalid)
    assert results["clusters"]["sentiment"]["left_out"] == ["sst2"] and "left_out" not in results["clusters"]["nli"]
    assert "closed_book_qa" not in results["clusters"]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    assert {p.parent.name for p in (tmp_path / "out").rglob("*.jsonl")} == {"rte", "yelp_polarity_reviews"}
    # What is not finite in one prompt has changed nothing in those of its row.
    wanted = _evaluate(sound, prepared, tmp_path / "sound")
    for name, figures in results["datasets"].items():
        assert figures["mean"] == wanted["datasets"][name]["mean"]
    for path in sorted((tmp_path / "out").rglob("*.jsonl")):
        other = tmp_path / "sound" / path.relative_to(tmp_path / "out")
        for a, b in zip(read_lines(path)[1:], read_lines(other)[1:], strict=True):
            np.testing.assert_allclose(a["loglikelihood"], b["loglikelihood"], atol=1e-4)

    run = reporting.load_run("tuned", tmp_path / "out")
    reporting.write([run], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "(without sst2)" in text and "tuned skipped sst2: invalid: scores of test example" in text
    assert "nan" not in text.lower().split()


@pytest.mark.parametrize(("where", "number"), [("norm", np.inf), ("kernel", np.nan), ("head", np.nan)])
def test_nothing_left_is_one_line(where, number, prepared, tmp_path):
    checkpoint = _checkpoint(tmp_path / "bad", _params(where, number))
    with pytest.raises(FlanError, match=r"no result is valid for bad step 0: (rte|sst2): invalid: scores of") as caught:
        _evaluate(checkpoint, prepared, tmp_path / "out", ("rte", "sst2"))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_cluster_with_a_checkpoint_of_its_own_is_left_out(bad_norm, sound, prepared, tmp_path):
    results = _evaluate({"nli": bad_norm, "sentiment": sound}, prepared, tmp_path / "out", ("rte", "sst2"))
    assert set(results["datasets"]) == {"sst2"} and [one["dataset"] for one in results["invalid"]] == ["rte"]
    assert set(results["clusters"]) == {"sentiment"}
    with pytest.raises(FlanError, match="no result is valid for bad_norm step 0"):
        _evaluate({"nli": bad_norm, "sentiment": bad_norm}, prepared, tmp_path / "none", ("rte", "sst2"))


def test_the_binary_says_what_is_invalid(bad_norm, bad_token, sound, prepared, tmp_path, capsys):
    common = {"prepared_dir": str(prepared), "datasets": ["rte", "sst2"], "max_input_tokens": 1024, "generate": False}
    eval_binary.evaluate(checkpoint_path=[sound, bad_norm, bad_token], output_dir=str(tmp_path / "out"), **common)
    printed = capsys.readouterr().out
    assert "no result is valid for bad_norm step 0" in printed
    assert "tuned bad_token: sst2 has no result: invalid: scores of test example 'test-1'" in printed
    assert (tmp_path / "out" / "report.html").exists() and not re.search(
        r"\bnan\b(?! or infinite)", printed, re.IGNORECASE
    )
    with pytest.raises(FlanError, match="no result is valid for bad_norm step 0"):
        eval_binary.evaluate(checkpoint_path=bad_norm, output_dir=str(tmp_path / "none"), **common)
    assert not (tmp_path / "none").exists()


def test_predictions_of_an_earlier_version_are_not_used_again(sound, prepared, tmp_path):
    first = _evaluate(sound, prepared, tmp_path, ("rte",))
    path = next((tmp_path / "predictions" / "rte").glob("test_t*.jsonl"))
    good = path.read_text()
    value = json.loads(good.splitlines()[1])["loglikelihood"][0]
    for number in ("NaN", "-Infinity", "1e999"):
        path.write_text(good.replace(repr(value), number, 1))
        assert number in path.read_text()
        again = _evaluate(sound, prepared, tmp_path, ("rte",))["datasets"]["rte"]
        assert again | {"cost": None} == first["datasets"]["rte"] | {"cost": None}
        # One template alone is packed into other rows than all of them: on some processors its sums round otherwise.
        for line, other in zip(path.read_text().splitlines()[1:], good.splitlines()[1:], strict=True):
            found, wanted = json.loads(line), json.loads(other)
            np.testing.assert_allclose(found.pop("loglikelihood"), wanted.pop("loglikelihood"), atol=1e-4)
            assert found == wanted


# ------------------------------------------------------------------------------------------------------ the scorer


def _trees(seed, count):
    rng = np.random.default_rng(seed)
    return [Tree(tuple(rng.integers(3, 150, 9).tolist()), ((5, 6), (7,)), (0, 0), (2, 1)) for _ in range(count)]


BAD_TOKEN = RARE.encode()[1] + 3


def test_only_the_prompts_that_are_bad_have_no_scores():
    trees, bad = _trees(0, 30), {4, 17, 18}
    trees = [dataclasses.replace(t, trunk=(*t.trunk[:-1], BAD_TOKEN)) if i in bad else t for i, t in enumerate(trees)]
    scorer = Scorer(NETWORK, _params("embedding"), row_lengths=(64,), tokens_per_batch=256)
    with pytest.raises(NotFiniteError, match="the model gives prompt 4 scores that are not finite") as caught:
        scorer.score(trees)
    found = caught.value.found
    assert caught.value.number == 4 and {i for i, scores in enumerate(found) if scores is None} == bad
    wanted = Scorer(NETWORK, _params("nowhere"), row_lengths=(64,), tokens_per_batch=256).score(trees)
    for scores, other in zip(found, wanted, strict=True):
        if scores is not None:
            np.testing.assert_allclose(scores.loglikelihood, other.loglikelihood, atol=1e-4)


def test_a_model_that_gives_nothing_is_not_asked_long():
    scorer = Scorer(NETWORK, _params("norm"), row_lengths=(64,), tokens_per_batch=256)
    with pytest.raises(NotFiniteError) as caught:
        scorer.score(_trees(0, 100))
    assert caught.value.found == [None] * 100
    assert scorer.work.batches < 100 / 4 + 10


def test_minus_infinity_is_no_score():
    """A token that cannot be: its logit is minus infinity, and those of all others are finite."""
    params = _params("nowhere")
    scorer = Scorer(NETWORK, params, row_lengths=(64,), tokens_per_batch=256)
    (scores,) = scorer.score(_trees(0, 1))
    for number in (-np.inf, np.inf, np.nan):
        assert not dataclasses.replace(scores, loglikelihood=(number, -1.0)).is_finite


# ------------------------------------------------------------------------------------------------- items and answers


def _items(path, *prompts):
    rows = [{"id": f"item {p}", "prompt": p, "options": [" a", " b"]} for p in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_items_end_in_a_line_that_names_the_item(bad_token, sound, tmp_path, capsys):
    path, output = _items(tmp_path / "in.jsonl", "good", f"bad {RARE}", "good too"), tmp_path / "out.jsonl"
    arguments = [f"--items={path}", f"--output={output}"]
    output.write_text("as it was\n")
    with pytest.raises(SystemExit) as caught:
        eval_binary.main([*arguments, f"--checkpoint={bad_token}"])
    line = capsys.readouterr().err.strip().split("\n")[-1]
    assert caught.value.code == 2 and line.startswith(f"flan_jax: item 'item bad {RARE}' of {path}: the model gives")
    assert output.read_text() == "as it was\n" and {p.name for p in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}
    eval_binary.main([*arguments, f"--checkpoint={sound}"])
    assert output.read_text().count("loglikelihood") == 3


@pytest.mark.parametrize("more", [[], ["--beams=2"], ["--temperature=1", "--top_k=3"]])
def test_answers_end_in_a_line_that_names_the_prompt(bad_token, tmp_path, capsys, more):
    output = tmp_path / "out.jsonl"
    prompts = ["--prompt=good", f"--prompt=bad {RARE}"]
    with pytest.raises(SystemExit):
        infer.main([f"--checkpoint={bad_token}", *prompts, f"--output={output}", "--max_new_tokens=4", *more])
    captured = capsys.readouterr()
    line = captured.err.strip().split("\n")[-1]
    assert line.startswith(f"flan_jax: prompt 1 ('bad {RARE}'): the model gives") and not captured.out
    assert not output.exists()


DRAWN, LIKELIEST = Sampling(1.0, seed=3), Sampling(1.0, top_p=0.9)


@pytest.mark.parametrize(
    ("where", "choose"),
    [*(("norm", choose) for choose in (Sampling(), DRAWN, LIKELIEST, Beams(3))), ("head", DRAWN), ("kernel", Beams(3))],
)
def test_no_text_comes_of_logits_that_are_not_finite(where, choose):
    generator = Generator(NETWORK, _params(where), 1, prompt_lengths=(16,), new_tokens=(8,), rows=(4,))
    with pytest.raises(NotFiniteError, match="the model gives prompt 0 logits that are not finite") as caught:
        generator.generate([[5, 6], [7]], 4, choose=choose)
    assert caught.value.number == 0


@pytest.mark.parametrize("choose", [Sampling(), Beams(2)])
def test_a_token_that_comes_later_is_noticed_too(choose):
    """The prompt is sound; the token that is generated first has no embedding."""
    params = _params("nowhere")
    sound = Generator(NETWORK, params, 1, prompt_lengths=(16,), new_tokens=(8,), rows=(4,))
    first = sound.generate([[5, 6, 9]], 4, choose=choose)[0].tokens[0]
    params["decoder"]["token_embedder"]["embedding"][first] = np.nan
    broken = Generator(NETWORK, params, 1, prompt_lengths=(16,), new_tokens=(8,), rows=(4,))
    assert broken.generate([[5, 6, 9]], 1, choose=choose)[0].tokens == (first,)  # no look at what comes after
    with pytest.raises(NotFiniteError):
        broken.generate([[5, 6, 9]], 4, choose=choose)


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), 1e-40, 1e-9, 1e30])
def test_temperatures_that_leave_no_number(temperature):
    with pytest.raises(FlanError, match="temperature"):
        Sampling(temperature)


@pytest.mark.slow
def test_the_harness_ends_in_a_line_that_names_the_context(bad_token):
    pytest.importorskip("lm_eval.evaluator")
    from lm_eval.api.instance import Instance

    from flan_jax.lm_eval.model import FlanJaxLM

    model = FlanJaxLM(bad_token, max_length=60)

    def requests(kind, *arguments):
        return [Instance(kind, {}, (text, *arguments), 0) for text in ("good", f"bad {RARE}")]

    with pytest.raises(FlanError, match=f"context 'bad {RARE}.*': the model gives prompt"):
        model.loglikelihood(requests("loglikelihood", " so"), disable_tqdm=True)
    document = Instance("loglikelihood_rolling", {}, (f"a {RARE} in its middle",), 0)
    with pytest.raises(FlanError, match=r"context .*: the model gives prompt"):
        model.loglikelihood_rolling([document], disable_tqdm=True)
    with pytest.raises(FlanError, match=f"context 'bad {RARE}': the model gives prompt"):
        model.generate_until(requests("generate_until", {"until": ["x"], "max_gen_toks": 4}), disable_tqdm=True)
