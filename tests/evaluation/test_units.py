"""How an evaluation asks: by the protocol and nothing else, example by example, with predictions bound to all of it."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import pytest

from flan_jax import catalog, configuration, metrics, models, protocol, styles
from flan_jax.checkpoint import digests
from flan_jax.checkpoint.manifest import DECLARED, UNTUNED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.decoding import completion
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, generation, units
from flan_jax.json_lines import read_lines
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import build_tree

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
)
BYTES = ByteTokenizer()
MANIFEST = Manifest.create(CONFIG, BYTES, UNTUNED, [])
TUNED = Manifest.create(CONFIG, BYTES, DECLARED, []).inherit(["sst2"], ["sentiment"], "eos", {})
SETTINGS = evaluator.Settings(max_dev_examples=0, max_new_tokens=4)


@pytest.fixture(scope="module")
def network():
    model = models.build(CONFIG)
    return model, jax.jit(model.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def scorer(network):
    return Scorer(*network, row_lengths=(1024,))


@pytest.fixture(scope="module")
def generator(network):
    return Generator(*network, 1)


RTE = {
    "premise": "Grass is green.",
    "hypothesis": "It is.",
    "relation": "fits",
    "options": ["yes", "no"],
    "answer": "no",
}
NQ = {"question": "who wrote it?", "answer": "Ann", "references": ["Ann"]}
COPA = {"premise": "It rained.", "relation": "effect", "question": "What happened as a result?", "link": "so"}
COPA |= {"beginning": "It rained so", "options": ["The grass got wet.", "I left."], "answer": "I left.", "wrong": "x"}
PIQA = {"goal": "Cool a pan.", "options": ["Use water.", "Use fire."], "answer": "Use water.", "wrong": "Use fire."}


def prepare(folder, **rows):
    for dataset, fields in rows.items():
        splits = {split: [(f"{split}-{n}", f) for n, f in enumerate(fields)] for split in ("test", "dev", "exemplars")}
        example_files.write_folder(folder / "examples" / dataset, splits)
    return folder


def evaluate(scorer, prepared, output, names, settings=SETTINGS, manifest=MANIFEST, **more):
    return evaluator.evaluate(
        scorer, BYTES, manifest, "small step 0", evaluator.select(names), prepared, output, settings, **more
    )


def predictions(output, dataset, number=0, split="test"):
    return read_lines(output / "predictions" / dataset / f"{split}_t{number}.jsonl")


# --------------------------------------------------------------------------------------------- one bad example (E5)


@pytest.mark.parametrize(
    ("dataset", "good", "bad", "reason"),
    [
        ("piqa", PIQA, PIQA | {"options": ["", "Use fire."], "answer": "Use fire."}, "no tokens of its own"),
        ("piqa", PIQA, PIQA | {"options": ["Use water.", "x" * 900]}, "there is room for 1024"),
        ("rte", RTE, RTE | {"options": ["yes", "n" * 1500], "answer": "yes"}, "without any field's text"),
    ],
)
def test_an_example_that_cannot_be_asked_is_left_out_and_named(scorer, tmp_path, dataset, good, bad, reason):
    bad = bad | ({"goal": "g" * 300} if "x" * 900 in bad["options"] else {})
    prepare(tmp_path / "prepared", **{dataset: [good, bad, good]})
    results = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", [dataset])
    figures, record = results["datasets"][dataset], catalog.dataset(dataset)
    assert (figures["examples"], figures["skipped_examples"]) == (2, 1)
    (left,) = figures["left_out"]
    assert (left["split"], left["example"]) == ("test", "test-1") and reason in left["reason"]
    for number in record.forward_templates:  # the templates stay comparable, example by example
        header, *lines = predictions(tmp_path / "out", dataset, number)
        assert [line["id"] for line in lines] == ["test-0", "test-2"]
        assert [one["example"] for one in header["left_out"]] == ["test-1"] and header["examples"] == 2
    # A second job takes all of it as it is.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jsonl")}
    again = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", [dataset])
    for found in (again, results):
        assert found["datasets"][dataset].pop("cost")["units" if found is results else "reused"] > 0
    assert again["datasets"] == results["datasets"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jsonl")} == times


def test_what_only_one_template_cannot_ask_is_left_out_of_all(scorer, tmp_path):
    """With a line break for a joint an empty option has no tokens; so has one that is cut by one template's room."""
    record = catalog.dataset("rte")
    lengths = {n: len(record.templates[n].input.encode()) for n in record.forward_templates}
    room = sorted(lengths.values())[-2]  # so that the options fit beside all instructions but the longest
    options = ["yes", "n" * (1024 - room)]
    prepare(tmp_path / "prepared", rte=[RTE, RTE | {"options": options, "answer": "yes"}])
    figures = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["rte"])["datasets"]["rte"]
    assert figures["examples"] == 1 and figures["skipped_examples"] == 1
    for number in record.forward_templates:
        assert [line["id"] for line in predictions(tmp_path / "out", "rte", number)[1:]] == ["test-0"]


def test_a_dataset_of_which_nothing_can_be_asked(scorer, tmp_path):
    prepare(tmp_path / "prepared", piqa=[PIQA | {"options": ["", "b"], "answer": "b"}], rte=[RTE])
    results = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["piqa", "rte"])
    assert set(results["datasets"]) == {"rte"}
    (skipped,) = results["skipped"]
    assert skipped["dataset"] == "piqa" and "no test example of 1 can be asked" in skipped["reason"]
    with pytest.raises(FlanError, match="there is no result for small step 0: piqa: no test example of 1") as caught:
        evaluate(scorer, tmp_path / "prepared", tmp_path / "alone", ["piqa"])
    assert "\n" not in str(caught.value) and not (tmp_path / "alone" / "results.json").exists()


def test_a_generated_answer_with_too_long_an_instruction(scorer, generator, tmp_path):
    style = styles.parse("2_shared_shots")
    assert protocol.of(catalog.dataset("natural_questions"), style).exemplar_room == 960
    prepare(tmp_path / "prepared", natural_questions=[NQ, NQ])
    settings = dataclasses.replace(SETTINGS, max_input_tokens=30)
    with pytest.raises(FlanError, match="no test example of 2 can be asked"):
        evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["natural_questions"], settings, generator=generator)


# ------------------------------------------------------------------------------------------------ the key (E13)


def _asked(monkeypatch, change):
    """The evaluator's protocol with something changed."""
    monkeypatch.setattr(protocol, "of", lambda record, style=styles.PAPER, of=protocol.of: change(of(record, style)))


def _another_metric(monkeypatch):
    """Every metric in another version."""
    other = lambda name, of=metrics.metric: dataclasses.replace(of(name), version="other")  # noqa: E731
    monkeypatch.setattr(metrics, "metric", other)


CHANGES = {
    "stops": lambda p, _: _asked(p, lambda one: dataclasses.replace(one, untuned_stops=("\n", "?"))),
    "version": lambda p, _: _asked(p, lambda one: dataclasses.replace(one, version=one.version + 1)),
    "trim": lambda p, _: _asked(p, lambda one: dataclasses.replace(one, trim="start")),
    "engine": lambda p, ranked: p.setattr(evaluator, "scorer_version" if ranked else "generator_version", 99),
    "metric": lambda p, _: _another_metric(p),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("dataset", ["piqa", "natural_questions"])
def test_old_predictions_do_not_answer_for_a_changed_rule(scorer, generator, tmp_path, monkeypatch, what, dataset):
    prepare(tmp_path / "prepared", piqa=[PIQA], natural_questions=[NQ])
    arguments = scorer, tmp_path / "prepared", tmp_path / "out", [dataset]
    evaluate(*arguments, generator=generator)
    before = predictions(tmp_path / "out", dataset)[0]["key"]
    evaluate(*arguments, generator=generator)
    assert predictions(tmp_path / "out", dataset)[0]["key"] == before
    CHANGES[what](monkeypatch, dataset == "piqa")
    evaluate(*arguments, generator=generator)
    assert predictions(tmp_path / "out", dataset)[0]["key"] != before


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], lines[1].replace('"answer": 1', '"answer": 0'), *lines[2:]],
        lambda lines: [lines[0].replace('"examples": 3', '"examples": 2'), *lines[1:]],
        lambda lines: [lines[0], *lines[2:], lines[1]],
        lambda lines: [lines[0], *lines[1:3], lines[3][:40]],  # a half-written line
        lambda lines: [lines[0], *lines[1:3]],
        lambda lines: ["[]", *lines[1:]],
        lambda lines: [re.sub(r', "digest": "\w*"', "", lines[0]), *lines[1:]],  # as of an earlier version
        lambda lines: [re.sub(r'"digest": "\w*"', '"digest": null', lines[0]), *lines[1:3], lines[3].replace("R", "T")],
    ],
)
def test_predictions_that_were_changed_are_made_anew(scorer, tmp_path, capsys, change):
    prepare(tmp_path / "prepared", rte=[RTE, RTE | {"premise": "Snow is white."}, RTE | {"premise": "Red."}])
    before = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["rte"])["datasets"]["rte"]
    path = tmp_path / "out" / "predictions" / "rte" / "test_t2.jsonl"
    whole = path.read_text()
    changed = "\n".join(change(whole.splitlines()))
    assert changed.strip() != whole.strip()
    path.write_text(changed)
    capsys.readouterr()
    again = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["rte"])["datasets"]["rte"]
    for was, line in zip(map(json.loads, whole.splitlines()[1:]), read_lines(path)[1:], strict=True):
        assert line | {"loglikelihood": was["loglikelihood"]} == was
        assert line["loglikelihood"] == pytest.approx(was["loglikelihood"], abs=1e-4)  # packed with others
    assert again["mean"] == before["mean"]
    assert again["cost"]["reused"] == before["cost"]["units"] - 1  # the others stay
    said = capsys.readouterr().out
    earlier = changed.startswith("{") and "digest" not in changed
    assert said == ("" if earlier else f"{path} was edited, damaged or cut off: predicted anew.\n")


def test_results_are_bound_to_the_files_of_their_predictions(scorer, tmp_path):
    prepare(tmp_path / "prepared", rte=[RTE])
    found = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["rte"])["datasets"]["rte"]["templates"]
    keys = [predictions(tmp_path / "out", "rte", t["template"])[0]["key"] for t in found]
    assert [t["key"] for t in found] == keys and len(set(keys)) == len(keys)


def test_a_folder_in_the_place_of_predictions_is_named(scorer, tmp_path):
    prepare(tmp_path / "prepared", rte=[RTE])
    (tmp_path / "out" / "predictions" / "rte" / "test_t0.jsonl").mkdir(parents=True)
    with pytest.raises(FlanError, match=r"rte/test_t0.jsonl is a folder, where a file .* belongs: move it away"):
        evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["rte"])


def test_predictions_say_which_passage_they_share(scorer, tmp_path):
    rows = [RTE, RTE | {"hypothesis": "Red."}, RTE | {"premise": "Snow is white."}]
    snli = [{**row, "options": ["yes", "maybe", "no"]} for row in rows]
    prepare(tmp_path / "prepared", rte=rows, snli=snli)
    evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["rte", "snli"])
    _, *lines = predictions(tmp_path / "out", "snli")
    first, second, other = (line["passage"] for line in lines)
    assert first == second != other
    assert not any("passage" in line for line in predictions(tmp_path / "out", "rte"))


def test_other_weights_are_other_predictions(network, scorer, tmp_path):
    prepare(tmp_path / "prepared", piqa=[PIQA])
    first = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["piqa"])
    key = predictions(tmp_path / "out", "piqa")[0]["key"]
    assert first["weights"] == digests.combined(digests.of_tree(network[1]))
    other = jax.tree.map(lambda x: x, network[1])
    other["decoder"]["token_embedder"]["embedding"] = other["decoder"]["token_embedder"]["embedding"].at[5, 5].add(1.0)
    # The same manifest, date and folder: only the numbers differ.
    second = evaluate(Scorer(network[0], other, row_lengths=(1024,)), tmp_path / "prepared", tmp_path / "out", ["piqa"])
    assert second["weights"] != first["weights"] and predictions(tmp_path / "out", "piqa")[0]["key"] != key


# ------------------------------------------------------------------------------------- joints, stops and limits


@pytest.mark.parametrize(
    ("style", "manifest", "joint", "stops"),
    [
        ("gpt3", MANIFEST, "space", ("\n",)),
        ("instructions", MANIFEST, "newline", ("\n\n", "\nQ:")),
        ("instructions", TUNED, "eos", ()),
        ("gpt3", TUNED, "space", ("\n",)),
        ("1_shots", TUNED, "eos", ()),
    ],
)
def test_answers_end_as_the_protocol_says(scorer, generator, tmp_path, monkeypatch, style, manifest, joint, stops):
    """B1: whatever the prompt, answers ended at "Q:" or a blank line."""
    seen = []

    def complete(*arguments, **settings):
        seen.append(settings)
        return completion.complete(*arguments, **settings)

    monkeypatch.setattr(generation, "complete", complete)
    prepare(tmp_path / "prepared", natural_questions=[NQ, NQ | {"question": "who sang?"}])
    settings = dataclasses.replace(SETTINGS, style=style)
    arguments = scorer, tmp_path / "prepared", tmp_path / "out", ["natural_questions"], settings, manifest
    results = evaluate(*arguments, generator=generator)
    assert results["joint"] == joint and results["datasets"]["natural_questions"]["examples"] == 2
    assert {(one["joint"], one["stops"], one["max_new_tokens"]) for one in seen} == {(joint, stops, 4)}


@pytest.mark.parametrize("style", ["gpt3", "instructions"])
def test_prompts_are_cut_as_the_store_cuts_them(scorer, tmp_path, style):
    """E18: evaluation cut the start of a field at 1,280 tokens, the store its end at 1,024."""
    long = " ".join(f"word{n}" for n in range(300))
    prepare(tmp_path / "prepared", rte=[RTE | {"premise": long}])
    settings = dataclasses.replace(SETTINGS, style=style, max_input_tokens=700)
    results = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["rte"], settings)
    _, line = predictions(tmp_path / "out", "rte", protocol.of(catalog.dataset("rte"), styles.parse(style)).forward[0])
    assert 650 < len(line["prompt"]) <= 699 and line["cut_tokens"] > 0
    assert "word0 " in line["prompt"] and "word299" not in line["prompt"]
    assert RTE["hypothesis"] in line["prompt"] and results["settings"]["max_input_tokens"] == 700
    if style == "instructions":
        assert "OPTIONS:\n- yes\n- no" in line["prompt"]


def test_an_answer_goes_on_with_what_was_kept(scorer, tmp_path):
    """Of a field that the prompt ends with, the start is cut."""
    long = " ".join(f"word{n}" for n in range(300))
    prepare(tmp_path / "prepared", piqa=[PIQA | {"goal": long}])
    settings = dataclasses.replace(SETTINGS, style="gpt3", max_input_tokens=700)
    evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["piqa"], settings)
    _, line = predictions(tmp_path / "out", "piqa")
    assert line["prompt"].endswith(" word299") and "word0 " not in line["prompt"] and line["cut_tokens"] > 0


def test_a_prompt_without_its_record_is_its_own_end(scorer, tmp_path):
    """E24: it was "A:" for every prompt in GPT-3's manner."""
    settings = dataclasses.replace(SETTINGS, style="gpt3", ways=("pmi",))
    prepare(tmp_path / "prepared", copa=[COPA], piqa=[PIQA], rte=[RTE])
    evaluate(scorer, tmp_path / "prepared", tmp_path / "out", ["copa", "piqa", "rte"], settings)
    tails = {"copa": "so", "piqa": "", "rte": "Is the statement true or false?\nAnswer:"}
    for dataset, tail in tails.items():
        _, line = predictions(tmp_path / "out", dataset)
        tree = build_tree(BYTES, tail, line["options"], joint="space")
        (alone,) = scorer.score([tree])
        assert line["unconditional"] == pytest.approx(list(alone.loglikelihood), abs=1e-4)
        assert line["unconditional"] != pytest.approx(line["loglikelihood"], abs=1e-3)
    _, copa = predictions(tmp_path / "out", "copa")
    assert copa["prompt"] == "It rained so" and copa["options"] == ["the grass got wet.", "I left."]
    assert copa["words"] == COPA["options"] and copa["answer"] == 1


def test_predictions_without_more_examples():
    lines = [{"id": n} for n in range(4)]
    one = units.Predictions(lines[:3], (units.Left(3, 0, "x"),))
    both = one.without([units.Left(1, 2, "y"), units.Left(3, 2, "z"), units.Left(1, 5, "w")])
    assert [line["id"] for line in both.lines] == [0, 2] and {left.example for left in both.left} == {1, 3}
    assert one.without([]) == one


# --------------------------------------------------------------------------------------- rows of another program


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (RTE | {"answer": "maybe"}, "its answer is not one of its options."),
        (RTE | {"options": []}, "it has no list of options."),
        (RTE | {"options": "no"}, "it has no list of options."),
        (RTE | {"options": ["no", 4]}, "field 'options' is no text and no list of texts."),
        ({key: RTE[key] for key in RTE if key != "options"}, "it has no list of options."),
        (RTE | {"premise": None}, "field 'premise' is no text and no list of texts."),
        (RTE | {"premise": 3}, "field 'premise' is no text and no list of texts."),
        (RTE | {"premise": ["a", "b"]}, "there is no text for 'premise'."),
        ({key: RTE[key] for key in RTE if key != "premise"}, "there is no text for 'premise'."),
        (NQ | {"references": [1]}, "field 'references' is no text and no list of texts."),
        (NQ | {"references": None}, "field 'references' is no text and no list of texts."),
        (NQ | {"references": ["Ann", ""]}, "its answer is empty."),
        (NQ | {"answer": "", "references": []}, "its answer is empty."),
        (NQ | {"answer": " ", "references": []}, "its answer is empty."),
        ({"question": "who?"}, "there is no text for 'answer'."),
    ],
)
@pytest.mark.parametrize("style", ["gpt3_1_shots", "lettered_options_1_shots"])
def test_a_bad_row_costs_no_other(scorer, generator, tmp_path, fields, reason, style):
    name, good = ("nq", NQ) if "question" in fields else ("rte", RTE)
    name = "natural_questions" if name == "nq" else name
    rows = [good, fields, {**good, next(iter(good)): "Snow is white."}]
    settings = dataclasses.replace(SETTINGS, style=style, max_new_tokens=1)
    prepared = prepare(tmp_path, **{name: rows})
    results = evaluate(scorer, prepared, tmp_path / "out", [name], settings, generator=generator)
    figures = results["datasets"][name]
    assert (figures["examples"], figures["skipped_examples"]) == (2, 1)
    assert {(one["example"], one["reason"]) for one in figures["left_out"]} == {("test-1", reason)}
    number = figures["templates"][0]["template"]
    _, *lines = predictions(tmp_path / "out", name, number)
    assert [line["shots"] for line in lines] == [1, 1]  # nor is it an exemplar


def test_results_say_how_many_exemplars_fit(scorer, tmp_path):
    """A dataset of long texts is asked without exemplars, whatever its style is called."""
    long = " ".join(f"word{n}" for n in range(125))
    prepare(tmp_path / "prepared", rte=[RTE, RTE | {"premise": long}, RTE | {"premise": "Snow is white."}])
    for style, shots in (("gpt3_2_shots", 2), ("gpt3", 0)):
        settings = dataclasses.replace(SETTINGS, style=style)
        figures = evaluate(scorer, tmp_path / "prepared", tmp_path / style, ["rte"], settings)["datasets"]["rte"]
        _, *lines = predictions(tmp_path / style, "rte")
        found = [line["shots"] for line in lines]
        assert found[1] == 0 and (sum(found) > 0) == (shots > 0)
        if shots:
            mean = pytest.approx(sum(found) / 3)
            assert figures["shots"] == {"wanted": 2, "mean": mean, "without": found.count(0), "of": 3}
        else:
            assert "shots" not in figures


@pytest.mark.parametrize("style", ["instructions", "2_shots", "without_options"])
def test_another_templates_wording_leaves_predictions_as_they_are(style):
    """Rewording one of ten templates costs one of ten predictions."""
    record = catalog.dataset("rte")
    pool = [(f"train-{number}", RTE | {"premise": f"Grass {number} is green."}) for number in range(4)]

    def keys(changed):
        templates = [
            dataclasses.replace(one, input=f"Now: {one.input}") if number == changed else one
            for number, one in enumerate(record.templates)
        ]
        other = dataclasses.replace(record, templates=tuple(templates))
        builder = ExampleBuilder(other, styles.parse(style), pool=pool, tokenizer=ByteTokenizer())
        made = [
            units.Unit.create(builder, "test", number, [], Path("out"), ["bound"])
            for number in builder.protocol.forward
        ]
        return {unit.number: unit.key for unit in made}

    before, after = keys(None), keys(1)
    assert {number for number in before if before[number] != after[number]} == {1}
    assert len(set(before.values())) == len(before)
