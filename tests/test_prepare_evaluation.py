"""`prepare --evaluate`: only what an evaluation needs, and an evaluation that then finds its prompts."""

import contextlib
import dataclasses
import io
import json

import jax
import pytest

from flan_jax import configuration, models, prepare
from flan_jax.checkpoint.manifest import DECLARED, UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.evaluation import evaluator, ranking
from flan_jax.scoring.scorer import Scorer

pytestmark = pytest.mark.slow

BYTES = ByteTokenizer()
CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
)
T5 = dataclasses.replace(
    configuration.model_config("tiny_t5"), num_layers=1, num_encoder_layers=1, embed_dim=32, head_dim=8, mlp_dim=32
)
UNTRAINED = Manifest.create(CONFIG, BYTES, UNTUNED)
TUNED = Manifest.create(CONFIG, BYTES, DECLARED).inherit(["sst2"], ["sentiment"], "eos", {})
ENCODER = Manifest.create(T5, BYTES, UNTUNED)


def checkpoint(folder, manifest):
    """What is read of it: no weights."""
    manifest.save(folder)
    BYTES.save(folder / "vocabulary")
    return folder


def run(*arguments):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        prepare.main([*map(str, arguments), "--json"])
    return json.loads(printed.getvalue().splitlines()[-1]), printed.getvalue()


@pytest.mark.parametrize(
    ("manifest", "style", "joint"),
    [
        (UNTRAINED, "instructions", "newline"),
        (UNTRAINED, "gpt3", "space"),
        (TUNED, "instructions", "eos"),
        (ENCODER, "2_shared_shots", "eos"),
    ],
)
def test_an_evaluation_finds_its_prompts(tmp_path, manifest, style, joint, monkeypatch):
    source, to = checkpoint(tmp_path / "model", manifest), tmp_path / "prepared"
    chosen = ("--datasets=copa,rte,natural_questions", f"--style={style}", f"--to={to}", "--max_dev_examples=2")
    chosen += ("--max_examples=4",)
    result, printed = run("--evaluate", f"--checkpoint={source}", *chosen)
    assert {path.name for path in to.iterdir()} == {"examples", "trees"}  # no training tokens
    assert [one["dataset"] for one in result["prompts"]] == ["copa", "rte"]  # the other's answers are generated
    assert f"rte: {result['prompts'][1]['prompts']} prompts, joint {joint}" in printed
    again, _ = run("--evaluate", f"--checkpoint={source}", *chosen)
    assert all(one["kept"] == one["units"] for one in again["prompts"])
    config = T5 if manifest is ENCODER else CONFIG
    network = models.build(config)
    scorer = Scorer(network, jax.jit(network.init)(jax.random.key(0)))
    monkeypatch.setattr(ranking, "render", None)
    settings = evaluator.Settings(style=style, max_dev_examples=2, max_examples=4)
    names = evaluator.select(["copa", "rte"])
    results = evaluator.evaluate(scorer, BYTES, manifest, "model", names, to, tmp_path / "out", settings)
    assert set(results["datasets"]) == {"copa", "rte"} and results["joint"] == joint


def test_a_vocabulary_without_a_checkpoint(tmp_path):
    arguments = ("--evaluate", "--datasets=copa", f"--to={tmp_path}", "--vocabulary=bytes", "--max_examples=3")
    result, printed = run(*arguments, "--joint=eos", "--max_dev_examples=0")
    forward = len(evaluator.Settings().protocol_of(evaluator.select(["copa"])[0]).forward)
    assert result["prompts"][0]["prompts"] == 3 * forward and "joint eos" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluate"], "--evaluate needs --checkpoint=FOLDER, or --vocabulary and --joint, and not both"),
        (["--evaluate", "--checkpoint={model}", "--vocabulary=bytes"], "and not both"),
        (["--evaluate", "--vocabulary=bytes"], "without a checkpoint, --evaluate needs --joint"),
        (
            ["--evaluate", "--checkpoint={model}", "--joint=newline"],
            "joint is 'newline', and this model has an encoder",
        ),
        (["--evaluate", "--checkpoint=nowhere"], "no checkpoint at nowhere"),
        (["--evaluate", "--checkpoint={model}", "--shards=x"], "leave --shards and --beam_pipeline_options out"),
        (["--checkpoint={model}"], "--checkpoint is for prompts of an evaluation: add --evaluate"),
        (["--joint=eos"], "--joint is for prompts of an evaluation"),
        (["--max_dev_examples=0"], "--max_dev_examples is for prompts of an evaluation"),
        (["--evaluate", "--checkpoint={model}", "--max_examples=0"], "max_examples"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(tmp_path, arguments, message, capsys):
    model, to = checkpoint(tmp_path / "model", ENCODER), tmp_path / "prepared"
    given = [argument.format(model=model) for argument in arguments]
    with pytest.raises(SystemExit):
        prepare.main([*given, "--datasets=copa", f"--to={to}"])
    assert message in capsys.readouterr().err
    assert not to.exists()
