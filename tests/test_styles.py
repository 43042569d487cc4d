import collections
import dataclasses

import pytest

from flan_jax import catalog, styles
from flan_jax.errors import FlanError
from flan_jax.styles import TextStyle
from flan_jax.templates import LETTERED_HEADING, Gpt3Prompt, placeholders

RTE, CB, SQUAD = (catalog.dataset(name) for name in ("rte", "cb", "squad_v1"))

NAMES = {
    "instructions": TextStyle(),
    "no_template": TextStyle("no_template"),
    "dataset_name": TextStyle("dataset_name"),
    "gpt3": TextStyle("gpt3"),
    "without_options": TextStyle(with_options=False),
    "shuffled_options": TextStyle(shuffled_options=True),
    "4_templates": TextStyle(num_templates=4),
    "16_shots": TextStyle(shots=16),
    "5_shared_shots": TextStyle(shots=5, shared=True),
    "without_options_3_shared_shots": TextStyle(with_options=False, shots=3, shared=True),
    "no_template_5_shots": TextStyle("no_template", shots=5),
    "without_options_4_templates_5_shots": TextStyle(with_options=False, num_templates=4, shots=5),
    "lettered_options": TextStyle(lettered_options=True),
    "shuffled_options_lettered_options_2_shots": TextStyle(shuffled_options=True, lettered_options=True, shots=2),
    "gpt3_lettered_options_5_shared_shots": TextStyle("gpt3", lettered_options=True, shots=5, shared=True),
    "shuffled_options_1_templates": TextStyle(shuffled_options=True, num_templates=1),
}


@pytest.mark.parametrize(("name", "style"), NAMES.items(), ids=NAMES)
def test_names(name, style):
    assert styles.parse(name) == style
    assert style.name == name
    assert styles.split_name(f"flan_rte{style.suffix}") == ("flan_rte", style)
    assert styles.split_name(f"flan_without_nli_2_datasets{style.suffix}") == ("flan_without_nli_2_datasets", style)


def test_no_name_of_a_dataset_or_mixture_ends_in_a_style():
    for name in (*(f"flan_{d.name}" for d in catalog.datasets()), *catalog.mixture_names()):
        assert styles.split_name(name) == (name, styles.PAPER)


def test_the_papers_style_adds_nothing_to_a_name():
    assert styles.PAPER.suffix == ""
    assert styles.split_name("flan") == ("flan", styles.PAPER)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "unknown style ''"),
        ("5_shots_", "unknown style '5_shots_': did you mean '5_shots'"),
        ("no_templates", "unknown style 'no_templates'"),
        ("notemplate", "unknown style"),
        ("4_templates5_shots", "unknown style"),
        ("no_template_4_templates", "has one template"),
        ("gpt3_without_options", "has one template"),
        ("no_template_shuffled_options", "needs instructions"),
        ("without_options_shuffled_options", "needs instructions"),
        ("no_template_lettered_options", "needs gpt3, or instructions that show"),
        ("without_options_lettered_options", "needs gpt3, or instructions that show"),
        ("gpt3_shuffled_options_lettered_options", "needs instructions"),
        ("lettered_options_lettered_options", "says twice"),
        ("lettered_option", "did you mean 'lettered_options'"),
        ("GPT3", "did you mean 'gpt3'"),
        ("0_templates", "'0_templates' is no part of a style: leave it out"),
        ("11_templates", "1 to 10 templates, not 11"),
        ("17_shots", "up to 16 shots, not 17"),
        ("17_shared_shots", "up to 16 shots, not 17"),
        ("0_shared_shots", "'0_shared_shots' is no part of a style: leave it out"),
        ("0_shots", "'0_shots' is no part of a style: leave it out"),
        ("without_options_0_shots", "'0_shots' is no part of a style: leave it out"),
        ("01_shots", "write '1_shots'"),
        ("010_shots", "write '10_shots'"),
        ("04_templates", "write '4_templates'"),
        ("00_templates", "leave it out"),
        ("\uff15_shots", "unknown style"),  # a wide digit
        ("5_shots_3_shots", "says twice"),
        ("5_shots_3_shared_shots", "says twice"),
        ("gpt3_no_template", "says twice"),
        ("shared_shots", "unknown style"),
    ],
)
def test_bad_styles_end_in_one_line(name, message):
    with pytest.raises(FlanError, match=message) as error:
        styles.parse(name)
    assert "\n" not in str(error.value)


def test_templates_of_a_style():
    def inputs(name):
        return [t.input for t in styles.templates(CB, styles.parse(name))]

    assert inputs("instructions") == [t.input for t in CB.templates]
    # A number names the same template in every style; which ones a style uses is `styles.numbers`.
    assert inputs("3_templates") == inputs("instructions")
    assert styles.numbers(CB, styles.parse("3_templates")) == (0, 1, 8)
    assert styles.forward_templates(CB, styles.parse("3_templates")) == (0, 1)
    assert inputs("no_template") == ["{premise}\n{hypothesis}"]
    assert inputs("dataset_name") == ["[Natural language inference: cb] {premise}\n{hypothesis}"]
    assert inputs("gpt3") == [CB.gpt3_prompt.input]
    assert inputs("without_options") == [t.without_options.input for t in CB.templates]


@pytest.mark.parametrize("name", ["instructions", "no_template", "dataset_name", "gpt3", "without_options"])
@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda d: d.name)
def test_a_style_shows_options_or_not(record, name):
    style = styles.parse(name)
    chosen = styles.templates(record, style)
    assert len(chosen) == style.num_wordings
    assert [i for i, t in enumerate(chosen) if t.is_forward] == list(styles.forward_templates(record, style))
    shown = {"{options}" in t.input for t in chosen if t.is_forward}
    assert shown == {name == "instructions" and record.kind == catalog.CLASSIFICATION}


def test_gpt3_words_stand_for_the_label_words_in_their_order():
    words = ("True", "False", "Neither")
    record = catalog.dataset("cb")
    changed = dataclasses.replace(record, gpt3_prompt=Gpt3Prompt("{premise} ...", words))
    for label, word in zip(record.label_words, words, strict=True):
        options = list(record.label_words)
        assert styles.restyled_options(changed, TextStyle("gpt3"), "1", options, label) == (list(words), word)


def test_gpt3_without_words_takes_the_options():
    record = catalog.dataset("hellaswag")
    given = ["a", "b", "c", "d"]
    assert styles.restyled_options(record, TextStyle("gpt3"), "1", given, "c") == (given, "c")


def test_shuffled_options_keep_the_answer_and_take_every_order():
    style = TextStyle(shuffled_options=True)
    options = ["yes", "no", "it is not possible to tell"]
    orders = collections.Counter()
    for number in range(3_000):
        shown, answer = styles.restyled_options(RTE, style, str(number), options, "no")
        assert answer == "no"
        assert sorted(shown) == sorted(options)
        assert (shown, answer) == styles.restyled_options(RTE, style, str(number), options, "no")
        orders[tuple(shown)] += 1
    assert len(orders) == 6
    assert min(orders.values()) > 400  # 500 expected, standard deviation 20
    other = [styles.restyled_options(RTE, style, str(n), options, "no", seed=1)[0] for n in range(50)]
    assert other != [styles.restyled_options(RTE, style, str(n), options, "no")[0] for n in range(50)]


def test_other_styles_leave_the_options_alone():
    for name in ("instructions", "no_template", "without_options", "5_shots"):
        assert styles.restyled_options(RTE, styles.parse(name), "1", ["yes", "no"], "no") == (["yes", "no"], "no")


LETTERED = TextStyle(lettered_options=True)


@pytest.mark.parametrize("words", ["instructions", "gpt3"])
@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda d: d.name)
def test_lettered_prompts_show_the_options_once_and_are_answered_by_a_letter(record, words):
    plain = styles.templates(record, TextStyle(words))
    lettered = styles.templates(record, TextStyle(words, lettered_options=True))
    for before, after in zip(plain, lettered, strict=True):
        if record.kind != catalog.CLASSIFICATION or not before.is_forward:
            assert after == before
            continue
        assert after.input.count("{lettered_options}") == 1 and "{options}" not in after.input
        assert after.target == "{letter}" and "{answer}" not in after.input
        assert set(placeholders(before.input)) - {"options"} == set(placeholders(after.input)) - {"lettered_options"}
        end = after.input[after.input.index("{lettered_options}") :]
        assert (
            end == "{lettered_options}\nAnswer:"
            if words == "gpt3"
            else f"{LETTERED_HEADING}\n{{lettered_options}}" in after.input
        )


@pytest.mark.parametrize(
    ("options", "answer", "block", "letter"),
    [
        (["yes", "no"], "no", "A. yes\nB. no", "B"),
        (["x"], "x", "A. x", "A"),
        (["B", "A"], "A", "A. B\nB. A", "B"),
        (["two\nlines", "", " "], "", "A. two\nlines\nB. \nC.  ", "B"),
        (["same", "same"], "same", "A. same\nB. same", "A"),
        ([f"o{n}" for n in range(26)], "o25", "\n".join(f"{chr(65 + n)}. o{n}" for n in range(26)), "Z"),
    ],
)
def test_letters(options, answer, block, letter):
    assert styles.lettered(LETTERED, options, answer) == {"lettered_options": block, "letter": letter}
    spaced = styles.lettered(TextStyle("gpt3", lettered_options=True), options, answer)["lettered_options"]
    assert spaced.startswith(" A. ") and spaced.count("\n") == block.count("\n")


def test_there_are_26_letters():
    with pytest.raises(styles.TooManyOptionsError, match="27 options are more than the 26 letters"):
        styles.lettered(LETTERED, [str(n) for n in range(27)], "3")


@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda d: d.name)
def test_prompts_without_instructions(record):
    prompt = record.gpt3_prompt
    known = {name for t in record.templates for p in (t.input, t.target) for name in placeholders(p)} | {
        "lead",
        "beginning",
    }
    for pattern in (prompt.input, record.bare):
        assert set(placeholders(pattern)) and set(placeholders(pattern)) <= known - {"answer", "options"}
        assert pattern == pattern.strip()
    assert len(prompt.words) in (0, len(record.labels))
    assert len(set(prompt.words)) == len(prompt.words)
    assert all(word == word.strip() != "" for word in prompt.words)


def test_gpt3_words_of_inference_are_in_label_order():
    truth = {"entailment": "true", "e": "true", "not_entailment": "false", "contradiction": "false", "c": "false"}
    for record in catalog.datasets("nli"):
        if record.name != "qnli":  # which asks yes or no, as its options do
            expected = [truth.get(label, "neither") for label, _ in record.labels]
            assert list(record.gpt3_prompt.words) == expected


@pytest.mark.parametrize("name", ["imdb_reviews", "sst2", "trec", "ag_news_subset"])
def test_lettered_prompts_of_gpt3_show_the_labels_once(name):
    """A8: "Sentiment (negative or positive):", and then " A. negative" and " B. positive"."""
    record = catalog.dataset(name)
    (template,) = styles.templates(record, styles.parse("gpt3_lettered_options"))
    assert record.gpt3_prompt.input.endswith("):") and "(" not in template.input
    assert all(word not in template.input for word in record.label_words)
    (scale,) = styles.templates(catalog.dataset("stsb"), styles.parse("gpt3_lettered_options"))
    assert "from 0 (not at all) to 5 (the same):\n" in scale.input  # which says what the labels mean


def test_every_lettered_prompt_says_that_the_letter_is_the_answer():
    """A8: prompts asked for words, as in "Reply with everything from the gap on", and the target was a letter."""
    for record in catalog.datasets():
        for template in styles.templates(record, LETTERED):
            shown = "{lettered_options}" in template.input
            assert shown == (template.is_forward and record.kind == catalog.CLASSIFICATION)
            before, _, after = template.input.partition("{lettered_options}")
            assert not shown or (before.endswith("OPTIONS (answer with the letter):\n") and after[:1] in ("", "\n"))


# Real texts: which styles have a prompt for the record, of "instructions", "without_options", "gpt3".
SPOKEN = {
    "a question about them": ("arc_easy", "question", "Which of these is a source of light?", (True, False, True)),
    "the following": (
        "arc_challenge",
        "question",
        "Which of the following is a trait that a dog does NOT inherit?",
        (True, False, True),
    ),
    "all but one": ("arc_challenge", "question", "All of these are renewable EXCEPT", (True, False, True)),
    "what is below": (
        "arc_easy",
        "question",
        "During which of the processes below does water vapor change to liquid?",
        (True, False, True),
    ),
    "these of the text": (
        "arc_easy",
        "question",
        "By dating these fossils, scientists can best learn what?",
        (True, True, True),
    ),
    "shown below": (
        "arc_easy",
        "question",
        "A mathematical model for calculating speed is shown below. What is it?",
        (True, True, True),
    ),
    "an answer": ("cosmos_qa", "answer", "None of the above choices .", (True, False, False)),
    "an answer, mended": ("cosmos_qa", "answer", "None of the above choices.", (True, False, False)),
    "none in the text": (
        "cosmos_qa",
        "answer",
        "None of the kids in school would be aware what happened",
        (True, True, True),
    ),
    "all of them": ("openbookqa", "answer", "all of these", (True, False, False)),
    "above": ("openbookqa", "answer", "plant trees that tower above the ground", (True, True, True)),
}


@pytest.mark.parametrize(("name", "field", "text", "expected"), SPOKEN.values(), ids=SPOKEN)
def test_records_that_speak_of_options_that_are_not_shown(name, field, text, expected):
    """A4: 233 of 2,466 targets of CosmosQA were "None of the above choices ." where no choice was shown."""
    fields = {"question": "Why?", "answer": "because", "context": "It was so.", "fact": "x", "options": []} | {
        field: text
    }
    record = catalog.dataset(name)

    def is_shown(style):
        try:
            styles.check_answerable(record, styles.parse(style), fields)
        except styles.NeedsOptionsError as error:
            assert str(error) == f"its {field} speaks of options, which style {style} does not show."
            return False
        return True

    without, in_gpt3 = expected[1:]
    for style in ("instructions", "4_templates", "2_shots", "shuffled_options", "lettered_options"):
        assert is_shown(style)
    assert is_shown("gpt3_lettered_options")
    assert [is_shown(s) for s in ("without_options", "without_options_2_shots", "no_template")] == [without] * 3
    assert is_shown("dataset_name") == without
    assert [is_shown(s) for s in ("gpt3", "gpt3_2_shots")] == [in_gpt3] * 2
