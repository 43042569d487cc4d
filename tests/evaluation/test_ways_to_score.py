"""Letters and channel in an evaluation: against one forward pass a text, and with hostile options."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import catalog, configuration, models, styles, ways
from flan_jax.checkpoint.manifest import DECLARED, UNTUNED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator
from flan_jax.json_lines import read_lines
from flan_jax.scoring.scorer import Scorer
from flan_jax.templates import LETTERED_HEADING

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
)
BYTES = ByteTokenizer()
UNTRAINED = Manifest.create(CONFIG, BYTES, UNTUNED, [])
TUNED = Manifest.create(CONFIG, BYTES, DECLARED, []).inherit(["sst2"], ["sentiment"], "eos", {})
SETTINGS = evaluator.Settings(max_dev_examples=0, ways=("pmi", "channel"))
LONGEST = 2048
EOS = 1


@pytest.fixture(scope="module")
def network():
    model = models.build(CONFIG)
    params = jax.jit(model.init)(jax.random.key(0))
    return model, jax.tree.map(lambda x: 3 * x, params)  # so that scores differ by more than their rounding


@pytest.fixture(scope="module")
def scorer(network):
    return Scorer(*network, row_lengths=(512, LONGEST))


@pytest.fixture(scope="module")
def by_hand(network):
    """The log-likelihood of a text after a prompt: one forward pass, log-softmax in float64."""
    model, params = network

    @jax.jit
    def forward(tokens_1xL, segments_1xL):
        positions = jnp.arange(tokens_1xL.shape[1])[None]
        return model.logits(params, model.hidden(params, tokens_1xL, positions, segments_1xL))[0]

    def score(prompt, text, joint):
        head, tail = BYTES.encode([prompt, text])
        if joint == "eos":
            head, tail = [*head, EOS], [*tail, EOS]
        elif joint == "newline":
            head = [*head, *BYTES.encode(["\n"])[0]]
        else:
            tail = [*BYTES.encode([" "])[0], *tail]
        head = head or [EOS]  # something has to predict the first token
        ids = head + tail
        length = next(length for length in (256, 1024, LONGEST) if len(ids) <= length)
        tokens = np.zeros((1, length), np.int32)
        tokens[0, : len(ids)] = ids
        logits = np.asarray(forward(tokens, (np.arange(length) < len(ids))[None].astype(np.int32)), np.float64)
        logprobs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
        return sum(logprobs[i - 1, ids[i]] for i in range(len(head), len(ids)))

    return score


RTE = [
    {
        "premise": f"Grass is {color}, said {name}.",
        "hypothesis": f"It is {other}.",
        "relation": "fits",
        "options": ["yes", "no"],
        "answer": answer,
    }
    for color, other, name, answer in (
        ("green", "blue", "Ann", "no"),
        ("red", "red", "Bo", "yes"),
        ("grey", "gray", "Cy", "yes"),
        ("dry", "wet", "Di", "no"),
    )
]
PIQA = {"goal": "Cool a pan.", "options": ["Use water.", "Use fire."], "answer": "Use water.", "wrong": "Use fire."}
NQ = {"question": "who wrote it?", "answer": "Ann", "references": ["Ann"]}


def prepare(folder, dataset, rows, exemplars=()):
    splits = {"test": rows, "dev": [], "exemplars": list(exemplars)}
    named = {split: [(f"{split}-{n}", f) for n, f in enumerate(fields)] for split, fields in splits.items()}
    example_files.write_folder(folder / "examples" / dataset, named)
    return folder


def evaluate(scorer, prepared, output, dataset, settings=SETTINGS, manifest=UNTRAINED, **more):
    results = evaluator.evaluate(
        scorer, BYTES, manifest, "small step 0", evaluator.select([dataset]), prepared, output, settings, **more
    )
    path = output / "predictions" / dataset / "test_t0.jsonl"
    return results["datasets"].get(dataset), read_lines(path)[1:]


# ---------------------------------------------------------------------------------------------------------- channel


def shown_exemplars(prompt):
    """The records in front of a prompt, by the places of their names, without the last, which is asked."""
    places = [(prompt.index(row["premise"]), row) for row in RTE if row["premise"] in prompt]
    return [row for _, row in sorted(places, key=lambda place: place[0])][:-1]


@pytest.mark.parametrize(
    ("style", "manifest", "joint"),
    [
        ("instructions", UNTRAINED, "newline"),
        ("1_templates", TUNED, "eos"),
        ("gpt3", UNTRAINED, "space"),
        ("lettered_options_1_templates", TUNED, "eos"),
        ("1_templates_2_shots", UNTRAINED, "newline"),
        ("gpt3_2_shots", UNTRAINED, "space"),
        ("1_templates_2_shared_shots", TUNED, "eos"),
        ("lettered_options_1_templates_2_shared_shots", UNTRAINED, "newline"),
    ],
)
def test_channel_is_the_input_after_the_answer(scorer, by_hand, tmp_path, style, manifest, joint):
    prepare(tmp_path / "prepared", "rte", RTE[:2], RTE[2:])
    settings = dataclasses.replace(SETTINGS, style=style)
    figures, lines = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "rte", settings, manifest)
    shots, space = styles.parse(style).shots, " " if style.startswith("gpt3") else "\n"
    words = ["true", "false"] if style.startswith("gpt3") else ["yes", "no"]
    for line, row in zip(lines, RTE, strict=False):
        exemplars = shown_exemplars(line["prompt"])
        assert len(exemplars) == shots == line["shots"]
        # Each exemplar is its answer and then its input, as the record that is asked.
        answers = [words[e["options"].index(e["answer"])] for e in exemplars]
        inputs = [f"{e['premise']}\n{e['hypothesis']}" for e in exemplars]
        prefix = "".join(f"{a}{space}{i}\n\n" for a, i in zip(answers, inputs, strict=True))
        bare = f"{row['premise']}\n{row['hypothesis']}"
        expected = [by_hand(prefix + word, bare, joint) for word in words]
        np.testing.assert_allclose(line["channel"], expected, atol=2e-3, rtol=2e-6)
        assert np.ptp(expected) > 0.01
    right = [int(np.argmax(line["channel"]) == line["answer"]) for line in lines]
    assert figures["templates"][0]["channel"] == np.mean(right)
    assert 0 <= figures["mean_channel"] <= 1


def test_a_long_input_is_cut_and_the_same_after_every_option(scorer, by_hand, tmp_path):
    long = " ".join(f"word{n}" for n in range(400))
    rows = [RTE[0] | {"premise": long}, RTE[0] | {"premise": long, "options": ["yes", "n" * 1200], "answer": "yes"}]
    prepare(tmp_path / "prepared", "rte", rows[:1])
    settings = dataclasses.replace(SETTINGS, max_input_tokens=600)
    _, (line,) = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "rte", settings)
    kept = next(n for n in range(400, 0, -1) if len(" ".join(long.split()[:n]) + "\nIt is blue.") <= 599)
    candidates = {
        n: [by_hand(option, " ".join(long.split()[:n]) + "\nIt is blue.", "newline") for option in ("yes", "no")]
        for n in range(kept - 6, kept + 1)
    }
    close = [n for n, values in candidates.items() if np.allclose(values, line["channel"], atol=2e-3)]
    assert len(close) == 1  # both options have the same words of it, and nearly all that fit
    # Where an option is long, the input after it has what the scorer leaves.
    prepare(tmp_path / "piqa", "piqa", [PIQA | {"goal": long, "options": ["Use water.", "n" * 1500]}])
    settings = dataclasses.replace(SETTINGS, max_input_tokens=500, style="gpt3")
    _, (line,) = evaluate(scorer, tmp_path / "piqa", tmp_path / "piqa_out", "piqa", settings)
    assert len(line["channel"]) == 2 and np.isfinite(line["channel"]).all()


# ---------------------------------------------------------------------------------------------------------- letters


@pytest.mark.parametrize(("manifest", "joint"), [(UNTRAINED, "newline"), (TUNED, "eos")])
def test_letters_are_scored(scorer, by_hand, tmp_path, manifest, joint):
    prepare(tmp_path / "prepared", "rte", RTE[:2], RTE[2:])
    settings = dataclasses.replace(SETTINGS, style="lettered_options_1_templates_1_shots")
    figures, lines = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "rte", settings, manifest)
    for line, row in zip(lines, RTE, strict=False):
        (exemplar,) = shown_exemplars(line["prompt"])
        assert (
            line["prompt"].count("OPTIONS (answer with the letter):\nA. yes\nB. no") == 2
            and "- yes" not in line["prompt"]
        )
        assert (
            f"OPTIONS (answer with the letter):\nA. yes\nB. no\n{'AB'[exemplar['answer'] == 'no']}\n\n"
            in line["prompt"]
        )
        assert line["options"] == ["A", "B"] and line["words"] == ["yes", "no"]
        assert line["answer"] == row["options"].index(row["answer"])
        expected = [by_hand(line["prompt"], letter, joint) for letter in "AB"]
        np.testing.assert_allclose(line["loglikelihood"], expected, atol=1e-3)
        assert line["characters"] == line["bytes"] == [1, 1]
    assert figures["metric"] == "accuracy" and figures["random"] == 0.5
    assert figures["templates"][0]["input"].endswith("OPTIONS (answer with the letter):\n{lettered_options}")


def test_letters_in_gpt3s_manner_have_their_space(scorer, by_hand, tmp_path):
    prepare(tmp_path / "prepared", "rte", RTE[:2], RTE[2:])
    settings = dataclasses.replace(SETTINGS, style="gpt3_lettered_options_1_shots")
    _, (line, _) = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "rte", settings)
    (exemplar,) = shown_exemplars(line["prompt"])
    letter = "AB"[exemplar["answer"] == "no"]
    assert f"Is the statement true or false?\n A. true\n B. false\nAnswer: {letter}\n\n" in line["prompt"]
    assert line["prompt"].endswith("\n A. true\n B. false\nAnswer:") and line["words"] == ["yes", "no"]
    np.testing.assert_allclose(line["loglikelihood"], [by_hand(line["prompt"], c, "space") for c in "AB"], atol=1e-3)


def test_a_dataset_without_options_is_asked_as_ever(network, scorer, tmp_path):
    prepare(tmp_path / "prepared", "natural_questions", [NQ])
    found, more = [], {"generator": Generator(*network, 1)}
    for style in ("1_templates", "lettered_options_1_templates", "gpt3", "gpt3_lettered_options"):
        settings = dataclasses.replace(SETTINGS, style=style, max_new_tokens=3)
        _, (line,) = evaluate(scorer, tmp_path / "prepared", tmp_path / style, "natural_questions", settings, **more)
        found.append(line["prompt"])
    assert found[0] == found[1] and found[2] == found[3]


def test_shuffled_and_lettered(scorer, tmp_path):
    row = PIQA | {"options": [f"way {n}" for n in range(8)], "answer": "way 3"}
    prepare(tmp_path / "prepared", "piqa", [row])
    settings = dataclasses.replace(SETTINGS, style="shuffled_options_lettered_options")
    _, (line,) = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "piqa", settings)
    assert line["words"] != row["options"] and sorted(line["words"]) == sorted(row["options"])
    assert line["words"][line["answer"]] == "way 3"
    block = "\n".join(f"{letter}. {word}" for letter, word in zip("ABCDEFGH", line["words"], strict=True))
    assert f"{LETTERED_HEADING}\n{block}" in line["prompt"]


# ---------------------------------------------------------------------------------------------------------- hostile

HOSTILE = {
    "equal": ["Use fire.", "Use water.", "Use water."],
    "white space": ["Use water.", " "],
    "one": ["Use water."],
    "lines": ["Use water.\nB. Use fire.", "Use water."],
    "letters": ["A. Use water.", "B", "A", "Use water."],
    "placeholder": ["{goal}", "Use water.", "{lettered_options}"],
    "not ASCII": ["Use water.", "水を使う", "e\u0301", "👩‍👩‍👧"],
    "26": ["Use water.", *(f"way {n}" for n in range(25))],
}


@pytest.mark.parametrize("style", ["1_templates", "lettered_options_1_templates", "gpt3", "gpt3_lettered_options"])
@pytest.mark.parametrize("options", HOSTILE.values(), ids=HOSTILE)
def test_hostile_options(scorer, by_hand, tmp_path, style, options):
    prepare(tmp_path / "prepared", "piqa", [PIQA | {"options": options}])
    settings = dataclasses.replace(SETTINGS, style=style)
    figures, (line,) = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "piqa", settings)
    joint = "space" if style.startswith("gpt3") else "newline"
    assert len(line["options"]) == len(options) and line["answer"] == options.index("Use water.")
    for way in ways.ALL:
        assert len(way.values(line)) == len(options) and np.isfinite(way.values(line)).all()
        assert figures["templates"][0][way.name] in (0.0, 1.0)
    for i in (0, len(options) - 1):
        joined = options[i].rstrip() if joint == "space" else options[i]  # one space is between them
        expected = by_hand(joined, "Cool a pan.", joint)
        assert line["channel"][i] == pytest.approx(expected, abs=2e-3)
    if "lettered" in style:
        space = " " if style.startswith("gpt3") else ""
        block = "\n".join(f"{space}{letter}. {option}" for letter, option in zip(styles.LETTERS, options, strict=False))
        assert block in line["prompt"] and line["options"] == list(styles.LETTERS[: len(options)])
    else:
        assert line["options"] == options and line["characters"] == [len(option) for option in options]
    assert figures["mean"] <= 1 and (figures["random"] == 1 if len(options) == 1 else True)


def test_options_of_the_same_text_are_right_together(scorer, tmp_path):
    prepare(tmp_path / "prepared", "piqa", [PIQA | {"options": ["Use water."] * 4}])
    for style in ("instructions", "lettered_options"):
        settings = dataclasses.replace(SETTINGS, style=style)
        figures, (line,) = evaluate(scorer, tmp_path / "prepared", tmp_path / style, "piqa", settings)
        assert all(figures["templates"][0][way.name] == 1.0 for way in ways.ALL)
        assert len(set(line["channel"])) == 1


@pytest.mark.parametrize(
    ("style", "manifest", "options", "reason"),
    [
        ("lettered_options", UNTRAINED, [f"way {n}" for n in range(26)], "27 options are more than the 26 letters"),
        ("gpt3_lettered_options", TUNED, [f"way {n}" for n in range(26)], "27 options are more than the 26 letters"),
        ("instructions", UNTRAINED, [""], "no tokens of its own"),
        ("instructions", TUNED, ["n" * 1100], "there is room for"),
    ],
)
def test_what_cannot_be_asked_is_left_out_and_named(scorer, tmp_path, style, manifest, options, reason):
    bad = PIQA | {"options": ["Use water.", *options]}
    prepare(tmp_path / "prepared", "piqa", [PIQA, bad, PIQA])
    figures, lines = evaluate(
        scorer, tmp_path / "prepared", tmp_path / "out", "piqa", dataclasses.replace(SETTINGS, style=style), manifest
    )
    assert [line["id"] for line in lines] == ["test-0", "test-2"]
    assert {one["example"] for one in figures["left_out"]} == {"test-1"} and reason in figures["left_out"][0]["reason"]


def test_an_empty_option_has_a_channel_where_its_end_is_scored(scorer, by_hand, tmp_path):
    prepare(tmp_path / "prepared", "piqa", [PIQA | {"options": ["Use water.", ""]}])
    _, (line,) = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "piqa", manifest=TUNED)
    assert line["channel"][1] == pytest.approx(by_hand("", "Cool a pan.", "eos"), abs=2e-3)
    assert line["characters"] == [10, 0] and np.isfinite(ways.way("per_character").values(line)).all()


def test_exemplars_without_letters_are_passed_over(scorer, tmp_path):
    many = PIQA | {"goal": "Do it in many ways.", "options": [f"way {n}" for n in range(27)], "answer": "way 3"}
    prepare(tmp_path / "prepared", "piqa", [PIQA], [many, PIQA | {"goal": "Warm a pan."}])
    settings = dataclasses.replace(SETTINGS, style="lettered_options_2_shots")
    _, (line,) = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "piqa", settings)
    assert line["shots"] == 1 and "many ways" not in line["prompt"]


# ------------------------------------------------------------------------------------------------ headline and keys


def test_the_headline_is_the_sum_whatever_is_asked_for(scorer, tmp_path):
    prepare(tmp_path / "prepared", "rte", RTE)
    plain, lines = evaluate(
        scorer, tmp_path / "prepared", tmp_path / "plain", "rte", dataclasses.replace(SETTINGS, ways=())
    )
    more, others = evaluate(scorer, tmp_path / "prepared", tmp_path / "more", "rte")
    assert plain["mean"] == more["mean"] == np.mean([t["sum"] for t in more["templates"]])
    for line, other in zip(lines, others, strict=True):
        assert other["loglikelihood"] == pytest.approx(line["loglikelihood"], abs=1e-4)
        assert set(other) - set(line) == {"unconditional", "channel"}
    assert {key for key in more if key.startswith("mean_")} == {
        *(f"mean_{way.name}" for way in ways.ALL if way is not ways.SUM)
    }
    assert not {"mean_pmi", "mean_channel"} & set(plain) and {"mean_per_character"} <= set(plain)


def test_predictions_are_bound_to_the_ways(scorer, tmp_path, monkeypatch):
    prepare(tmp_path / "prepared", "rte", RTE[:1])
    path = tmp_path / "out" / "predictions" / "rte" / "test_t0.jsonl"

    def key(*names):
        settings = dataclasses.replace(SETTINGS, ways=names)
        evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "rte", settings)
        return json.loads(path.read_text().split("\n")[0])["key"]

    plain, channel, both = key(), key("channel"), key("pmi", "channel")
    assert len({plain, channel, both}) == 3
    assert key("channel", "pmi", "sum") == both and key("sum", "per_character") == plain
    monkeypatch.setattr(ways, "VERSION", ways.VERSION + 1)
    assert key() != plain
    before = path.stat().st_mtime_ns
    key()
    assert path.stat().st_mtime_ns == before  # a second job takes what is there


def test_the_best_way_is_told_by_dev_alone(scorer, tmp_path):
    record = catalog.dataset("rte")
    splits = {"test": RTE[:2], "dev": RTE[2:], "exemplars": []}
    named = {split: [(f"{split}-{n}", f) for n, f in enumerate(rows)] for split, rows in splits.items()}
    example_files.write_folder(tmp_path / "prepared" / "examples" / "rte", named)
    settings = dataclasses.replace(SETTINGS, max_dev_examples=9)
    figures, _ = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "rte", settings)
    on_dev = {}
    for way in ways.ALL:
        shares = []
        for number in record.forward_templates:
            lines = read_lines(tmp_path / "out" / "predictions" / "rte" / f"dev_t{number}.jsonl")[1:]
            shares.append(np.mean([np.argmax(way.values(line)) == line["answer"] for line in lines]))
        on_dev[way.name] = np.mean(shares)
    assert figures["dev_ways"] == pytest.approx(on_dev)
    assert figures["best_dev_way"] == max(on_dev, key=on_dev.get)


def test_an_unknown_way_is_refused_before_anything_is_scored(scorer, tmp_path):
    prepare(tmp_path / "prepared", "rte", RTE)
    with pytest.raises(FlanError, match="did you mean 'channel'"):
        evaluate(
            scorer, tmp_path / "prepared", tmp_path / "out", "rte", dataclasses.replace(SETTINGS, ways=("chanel",))
        )
    assert not (tmp_path / "out").exists()


class Counting(Scorer):
    """Keeps what it is asked to score."""

    def score(self, trees, **more):
        trees = list(trees)
        self.asked.extend(trees)
        return super().score(trees, **more)


@pytest.mark.parametrize("at_once", [1, 256])
def test_what_recurs_from_template_to_template_is_scored_once(network, scorer, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(evaluator, "_TREES_AT_ONCE", at_once)
    counting = Counting(*network, row_lengths=(512, LONGEST))
    counting._compiled, counting.asked = scorer._compiled, []
    prepare(tmp_path / "prepared", "rte", RTE)
    settings = dataclasses.replace(SETTINGS, ways=("channel",))
    figures, _ = evaluate(counting, tmp_path / "prepared", tmp_path / "out", "rte", settings)
    templates = len(figures["templates"])
    assert templates > 5 and sum(len(tree.branches) == 2 for tree in counting.asked) == templates * len(RTE)
    assert sum(len(tree.branches) == 1 for tree in counting.asked) == 2 * len(RTE)
    assert len({t["channel"] for t in figures["templates"]}) == 1


@pytest.mark.parametrize(
    "style", ["without_options_1_templates", "gpt3", "gpt3_2_shots", "1_templates", "gpt3_lettered_options"]
)
def test_what_speaks_of_options_that_are_not_shown_is_left_out_and_named(scorer, tmp_path, style):
    """A4: 233 of 2,466 answers of CosmosQA are "None of the above choices .", also where no choice is shown."""
    none = "None of the above choices ."
    rows = [
        {"context": f"He left at {n}.", "question": "Why?", "options": [f"It was {n}.", none, "No."], "answer": answer}
        for n, answer in ((1, "It was 1."), (2, none), (3, "It was 3."))
    ]
    prepare(tmp_path / "prepared", "cosmos_qa", rows, [rows[1], rows[0]])
    settings = dataclasses.replace(SETTINGS, style=style)
    figures, lines = evaluate(scorer, tmp_path / "prepared", tmp_path / "out", "cosmos_qa", settings)
    if style in ("1_templates", "gpt3_lettered_options"):
        assert len(lines) == figures["examples"] == 3 and not figures.get("left_out")
        return
    assert [line["id"] for line in lines] == ["test-0", "test-2"]
    assert (figures["examples"], figures["skipped_examples"]) == (2, 1)
    assert {one["example"] for one in figures["left_out"]} == {"test-1"}
    assert figures["left_out"][0]["reason"] == f"its answer speaks of options, which style {style} does not show."
    assert all(f"A: {none}" not in line["prompt"] for line in lines)  # nor is it an exemplar
