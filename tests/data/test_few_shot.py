import dataclasses
import re

import numpy as np
import pytest

from flan_jax import catalog, protocol, styles, templates
from flan_jax.data import few_shot, sources, tasks
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.templates import Template

RTE = catalog.dataset("rte")
TOKENIZER = ByteTokenizer()
TEMPLATES = (Template("Q{x}?", "{answer}"), Template("{x}!", "{answer}"))


def pool(count, length=5, seed=0):
    rng = np.random.default_rng(seed)
    letters = "abcdefgh"
    return [
        (str(i), {"x": f"{i}" + "".join(rng.choice(list(letters), length)), "answer": f"answer {i}"})
        for i in range(count)
    ]


def exemplars(records, shots=4, budget=10_000, seed=0, dataset="rte", shared=False):
    return few_shot.Exemplars(
        dataset,
        TEMPLATES,
        records,
        TOKENIZER,
        shots=shots,
        shared=shared,
        budget=budget,
        joint="\n",
        end="\n\n",
        seed=seed,
    )


def parts(prefix):
    return prefix.split("\n\n")[:-1]


def test_all_exemplars_come_from_the_pool_through_the_examples_template():
    records = pool(50)
    for template in (0, 1):
        prefix, count = exemplars(records).prefix("1000", template, "Qnew?")
        assert count == 4 == len(parts(prefix))
        known = {"\n".join(templates.render(TEMPLATES[template], fields)) for _, fields in records}
        assert set(parts(prefix)) <= known
        assert len(set(parts(prefix))) == 4


def test_an_example_is_never_its_own_exemplar():
    records = pool(5)
    for identity, fields in records:
        inputs, _ = templates.render(TEMPLATES[0], fields)
        prefix, count = exemplars(records, shots=5).prefix(identity, 0, inputs)
        assert count == 4
        assert inputs not in prefix


def directions(count):
    """Records in two variants, as an evaluation has them, each with both sides."""
    return [
        (f"{i}#{way}", {"x": f"{way} {i}", "answer": f"answer {way} {i}", "variant": way})
        for i in range(count)
        for way in ("in", "out")
    ]


@pytest.mark.parametrize("shared", [False, True])
def test_exemplars_are_of_the_examples_own_variant(shared):
    made = exemplars(directions(30), shared=shared)
    taken = {}
    for way in ("in", "out"):
        prefix, count = made.prefix(f"1000#{way}", 0, f"Q{way} 1000?", way)
        assert count == 4
        assert all(re.fullmatch(rf"Q{way} \d+\?\nanswer {way} \d+", part) for part in parts(prefix))
        taken[way] = re.findall(r"\d+(?=\?)", prefix)
        alone = exemplars([one for one in directions(30) if one[1]["variant"] == way], shared=shared)
        assert alone.prefix(f"1000#{way}", 0, f"Q{way} 1000?", way)[0] == prefix  # whoever keeps only this variant
    assert taken["in"] == taken["out"] or not shared


def test_a_record_is_no_exemplar_of_itself_in_any_of_its_examples():
    for identity, fields in directions(4):
        inputs, _ = templates.render(TEMPLATES[0], fields)
        prefix, count = exemplars(directions(4)).prefix(identity, 0, inputs, fields["variant"])
        assert count == 3 and inputs not in prefix
        assert exemplars(directions(4)).prefix(f"{catalog.record_id(identity)}#3", 1, "Q?", "in")[1] == 3


def test_an_example_of_no_variant_is_refused_where_exemplars_have_one():
    with pytest.raises(ValueError, match="say of which"):
        exemplars(directions(4)).prefix("1000", 0, "Q?")
    assert exemplars(directions(4)).prefix("1000", 0, "Q?", "sideways") == ("", 0)


def test_a_record_that_reads_the_same_is_no_exemplar():
    records = [("a", {"x": "same", "answer": "1"}), ("b", {"x": "same", "answer": "2"})]
    assert exemplars(records).prefix("c", 0, "Qsame?") == ("", 0)


def test_as_many_as_fit():
    records = pool(100)
    whole = len("Qnew?")
    one = len(exemplars(records, shots=1).prefix("1000", 0, "Qnew?")[0])
    previous = 0
    for budget in range(whole, whole + 6 * one, one // 3):
        prefix, count = exemplars(records, shots=5, budget=budget).prefix("1000", 0, "Qnew?")
        assert len(prefix) + whole <= budget
        assert count >= previous
        previous = count
    assert previous == 5


def test_what_does_not_fit_is_passed_over():
    records = [("long", {"x": "x" * 500, "answer": "1"}), *pool(3)]
    prefix, count = exemplars(records, shots=4, budget=200).prefix("1000", 0, "Qnew?")
    assert count == 3
    assert "x" * 500 not in prefix


def test_draws_depend_on_seed_dataset_and_record_alone():
    records = pool(100)
    first = exemplars(records).prefix("7000", 0, "Qnew?")
    shared = exemplars(records)
    for i in range(20):
        shared.prefix(str(i), 1, "Qother?")
    assert shared.prefix("7000", 0, "Qnew?") == first
    others = [
        exemplars(records, seed=1).prefix("7000", 0, "Qnew?"),
        exemplars(records, dataset="cb").prefix("7000", 0, "Qnew?"),
        exemplars(records).prefix("7001", 0, "Qnew?"),
    ]
    assert all(other != first for other in others)


def test_every_record_of_the_pool_is_drawn_about_equally_often():
    records = pool(10)
    drawn = np.zeros(10)
    draw = exemplars(records, shots=2)
    for i in range(2_000):
        for part in parts(draw.prefix(f"test{i}", 0, "Qnew?")[0]):
            drawn[int(part.rpartition(" ")[2])] += 1
    assert drawn.sum() == 4_000
    assert np.all(abs(drawn - 400) < 100)  # standard deviation 18


def test_an_empty_pool_gives_no_exemplars():
    assert exemplars([]).prefix("1", 0, "Qnew?") == ("", 0)


# ---------------------------------------------------------------------------------------------------------- shared


def test_shared_exemplars_are_the_same_for_all_examples_of_a_template():
    records = pool(100)
    draw = exemplars(records, shared=True)
    found = {(t, draw.prefix(str(1000 + i), t, f"{i}" * i)) for i in range(30) for t in (0, 1)}
    assert len(found) == 2 and all(count == 4 for _, (_, count) in found)
    known = {"\n".join(templates.render(TEMPLATES[0], fields)) for _, fields in records}
    assert set(parts(draw.prefix("1000", 0, "Qnew?")[0])) <= known
    for other in (exemplars(records, seed=1, shared=True), exemplars(records, dataset="cb", shared=True)):
        assert other.prefix("1000", 0, "Qnew?") != draw.prefix("1000", 0, "Qnew?")


def test_an_example_among_the_shared_exemplars_gets_another_one():
    records = pool(40)
    draw = exemplars(records, shots=16, shared=True)
    usual, _ = draw.prefix("1000", 0, "Qnew?")
    changed = 0
    for identity, fields in records:
        inputs, _ = templates.render(TEMPLATES[0], fields)
        prefix, count = draw.prefix(identity, 0, inputs)
        assert count == 16 and inputs not in prefix
        changed += prefix != usual
    assert changed == 16


def test_shared_exemplars_leave_room_for_most_inputs():
    rng = np.random.default_rng(0)
    records = [(str(i), {"x": "x" * rng.integers(5, 60), "answer": "a"}) for i in range(200)]
    lengths = [len(templates.render(TEMPLATES[0], fields)[0]) for _, fields in records]
    for budget in (100, 200, 400):
        prefix, count = exemplars(records, shots=8, budget=budget, shared=True).prefix("1000", 0, "Qnew?")
        assert count > 0
        assert np.mean([len(prefix) + length <= budget for length in lengths]) > 0.75


# --------------------------------------------------------------------------------------------------------- builder


def rte_fields(i):
    return {
        "premise": f"Premise {i}.",
        "hypothesis": f"Hypothesis {i}.",
        "relation": "follows from it",
        "options": ["yes", "no"],
        "answer": ("yes", "no")[i % 2],
    }


RTE_POOL = [(str(i), rte_fields(i)) for i in range(30)]


@pytest.mark.parametrize("name", ["instructions", "no_template", "dataset_name", "without_options", "gpt3"])
def test_builder_renders_the_styles_template(name):
    builder = ExampleBuilder(RTE, styles.parse(name))
    for number, template in enumerate(styles.templates(RTE, styles.parse(name))):
        example = builder.build("1", rte_fields(1), number)
        fields = builder.fields("1", rte_fields(1))
        assert (example.inputs, example.targets) == templates.render(template, fields)
        assert (example.prefix, example.shots, example.template) == ("", 0, number)
        assert example.fields == fields
        assert fields["answer"] in fields["options"]


def roomy(style):
    return dataclasses.replace(protocol.of(RTE, style).limited(8_000), exemplar_budget=5_000)


def test_builder_puts_exemplars_in_front():
    style = styles.parse("shuffled_options_3_shots")
    builder = ExampleBuilder(RTE, style, pool=RTE_POOL, tokenizer=TOKENIZER, asked=roomy(style))
    plain = ExampleBuilder(RTE, styles.parse("shuffled_options"))
    example = builder.build("0", rte_fields(0), 2)
    alone = plain.build("0", rte_fields(0), 2)
    assert example.shots == 3
    assert example.inputs == example.prefix + alone.inputs
    assert example.targets == alone.targets
    # Each exemplar is what the style makes of its own record.
    shown = {plain.build(i, f, 2).inputs + "\n" + plain.build(i, f, 2).targets for i, f in RTE_POOL}
    rest = example.prefix
    for _ in range(3):
        (match,) = [text for text in shown if rest.startswith(text + "\n\n")]
        rest = rest.removeprefix(match + "\n\n")
    assert rest == ""


def test_shots_need_a_tokenizer():
    with pytest.raises(ValueError, match="needs a tokenizer"):
        ExampleBuilder(RTE, styles.parse("3_shots"), pool=RTE_POOL)


@pytest.mark.parametrize("style", ["gpt3_2_shots", "gpt3_2_shared_shots"])
@pytest.mark.parametrize("record", catalog.datasets("commonsense"), ids=lambda d: d.name)
def test_an_exemplar_of_gpt3s_manner_is_one_running_text(record, style):
    """B2: a line break stood before the answer, a space where it is scored; HellaSwag's broke in mid-sentence."""
    source = sources.open_source(record, sources.SAMPLES)
    pool, style = tasks.exemplar_pool(record, source), styles.parse(style)
    builder = ExampleBuilder(
        record,
        style,
        asked=dataclasses.replace(protocol.of(record, style).limited(20_000), exemplar_budget=20_000),
        pool=pool,
        tokenizer=TOKENIZER,
    )
    plain = ExampleBuilder(record, styles.parse("gpt3"))
    identity, fields = pool[0]
    example = builder.build(identity, fields, 0)
    assert example.shots == 2
    scored = {f"{alone.inputs} {alone.targets}\n\n" for i, f in pool[1:] for alone in [plain.build(i, f, 0)]}
    assert any(a + b == example.prefix for a in scored for b in scored)


def test_exemplars_leave_room_where_inputs_are_shorter():
    style = styles.parse("5_shots")
    asked = protocol.of(RTE, style).limited(max_input_tokens=400)
    builder = ExampleBuilder(RTE, style, asked=asked, pool=RTE_POOL, tokenizer=TOKENIZER)
    example = builder.build("0", rte_fields(0), 2)
    assert example.shots > 0 and len(example.inputs) <= 398


# ------------------------------------------------------------------------------------------- what gives an answer away

# Real records: a text, its twin, and a stranger, which is as near as any.
TWINS = {
    "winogrande": (
        "Mary was helping Patricia's daughter put on makeup but",
        "Mary was helping Patricia's daughter put on makeup because",
        "The computer ran faster than the tablet because the files on the",
    ),
    "winogrande, other words": (
        "After visiting their tenth college, Kevin demanded that Donald to just make up",
        "After visiting their tenth college, Kevin asked Donald to just make up his mind, because",
        "The TV that Samantha bought costs more than that of Carrie, because",
    ),
    "wsc": (
        "Emma did not pass the ball to Janie although *she* was open.",
        "Emma did not pass the ball to Janie although *she* saw that she was open.",
        "Bill passed the gameboy to John because *his* turn was over.",
    ),
    "wsc, another pronoun": (
        "The mothers of Arthur and Celeste have come to the town to fetch them. They are happy to have *them* back.",
        "The mothers of Arthur and Celeste have come to the town to fetch *them*. They are happy to have them back.",
        "Bill passed the half-empty plate to John because *he* was full.",
    ),
    "wnli": (
        "Bob paid for Charlie's college education, but now Charlie acts as though it never happened. He is very hurt.",
        "Bob paid for Charlie's college education. He is very grateful.",
        "Fred is the only man still alive who remembers my great-grandfather. He was a remarkable man.",
    ),
    "wnli, the end": (
        "Jim signaled the barman and gestured toward his empty glass.",
        "Jim signaled the barman and gestured toward his bathroom key.",
        "Bill passed the half-empty plate to John because he was full.",
    ),
    "candidates": (["The dog", "The brown fox"], ["the brown fox", "the dog"], ["The dog", "The cat"]),
    "a passage": ("Denver led 7-3. " * 9, "Denver led 7-3. " * 9, "Dallas kicked a field goal in the second quarter."),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("text", "twin", "stranger"), TWINS.values(), ids=TWINS)
def test_what_shares_the_passage_is_no_exemplar(text, twin, stranger, shared):
    """A12: the other half of a schema stood in front, and gave the answer away; so did a passage's questions."""
    records = [(str(i), {"p": twin if i % 2 else stranger, "x": f"{i}", "answer": f"a{i}"}) for i in range(12)]
    draw = few_shot.Exemplars(
        "rte", TEMPLATES, records, TOKENIZER, shots=6, shared=shared, budget=10_000, joint="\n", end="\n\n", passage="p"
    )
    asked = few_shot.passage_text({"p": text}, "p")
    shown = draw.chosen("1000", 0, "Qnew?", passage=asked)
    assert [fields["p"] for fields in shown] == [stranger] * 6
    assert {fields["p"] == twin for fields in draw.chosen("1000", 0, "Qnew?")} == {False, True}  # for another example
    assert draw.prefix("1000", 0, "Qnew?", passage=asked)[1] == 6
    everyone = draw.chosen("1000", 0, "Qnew?", passage=few_shot.passage_text({"p": ""}, "p"))
    assert everyone == draw.chosen("1000", 0, "Qnew?")  # texts without words share nothing


def test_without_a_passage_nothing_is_shared():
    records = pool(9)
    plain, empty = (exemplars(records).prefix("1000", 0, "Qnew?", passage=text) for text in ("", "no such field"))
    assert plain == empty == exemplars(records).prefix("1000", 0, "Qnew?")


def test_exemplars_depend_on_what_must_not_be_shared(monkeypatch):
    """What was drawn by another rule is not used again."""
    record, style = catalog.dataset("wnli"), styles.parse("2_shots")
    before = protocol.of(record, style)
    other = dataclasses.replace(before, record=dataclasses.replace(record, passage="reading"))
    assert before.text_digest != other.text_digest and before.digest != other.digest
    monkeypatch.setattr(protocol, "EXEMPLAR_OVERLAP", 0.7)
    assert protocol.of(record, style).text_digest != other.text_digest
    assert (
        protocol.of(record).text_digest == dataclasses.replace(protocol.of(record), record=other.record).text_digest
    )  # no exemplars, no difference


def test_texts_depend_on_which_records_are_left_out():
    record = catalog.dataset("cosmos_qa")
    other = dataclasses.replace(record, needs_options=())
    for style, same in (
        ("instructions", True),
        ("lettered_options", True),
        ("without_options", False),
        ("gpt3", False),
    ):
        asked = protocol.of(record, styles.parse(style))
        assert (asked.text_digest == dataclasses.replace(asked, record=other).text_digest) == same
