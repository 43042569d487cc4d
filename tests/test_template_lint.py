import dataclasses
import re

import pytest

from flan_jax import catalog, template_lint
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

FIELDS = {
    "premise": "A dog barks.",
    "hypothesis": "An animal makes a noise.",
    "relation": "has to be true",
    "options": ["yes", "no"],
    "answer": "yes",
}


FORWARD = tuple(
    Template(f"{opening}: {{premise}}\nWould that make it so? {{hypothesis}}\n{{options}}")
    for opening in ("One", "Two", "Three", "Four", "Five", "Six", "Seven")
)
BACKWARD = tuple(
    Template(f"{opening} a sentence that {{relation}}: {{premise}}", "{hypothesis}", INVERTED)
    for opening in ("Write", "Find", "Make up")
)
CLEAN = dataclasses.replace(
    catalog.dataset("rte"),
    name="clean",
    kind=catalog.CLASSIFICATION,
    labels=(("entailment", "yes"), ("not_entailment", "no")),
    templates=FORWARD + BACKWARD,
)


def _with(number, **changes):
    changed = list(CLEAN.templates)
    changed[number] = dataclasses.replace(changed[number], **changes)
    return dataclasses.replace(CLEAN, templates=tuple(changed))


def _generation(first="{premise} What follows?"):
    forward = tuple(Template(t.input.removesuffix("\n{options}")) for t in FORWARD[1:])
    return dataclasses.replace(
        CLEAN, kind=catalog.GENERATION, labels=(), templates=(Template(first), *forward, *BACKWARD)
    )


def test_lint_of_a_clean_dataset():
    assert template_lint.lint(CLEAN, [FIELDS, {**FIELDS, "answer": "no"}]) == []
    assert template_lint.lint(_generation(), [FIELDS]) == []


def test_lint_allows_options_of_the_examples_own():
    own = dataclasses.replace(CLEAN, labels=())
    assert template_lint.lint(own, [{**FIELDS, "options": ["yes", "blue", "seven"]}, FIELDS]) == []


@pytest.mark.parametrize(
    ("pattern", "finding"),
    [
        ("Two  spaces {premise}\n{options}", "two spaces in a row"),
        ("A\u00a0 mixed {premise}\n{options}", "two spaces in a row"),
        (" Leading {premise}\n{options}", "white space at an edge or before a line break"),
        ("Trailing {premise}\n{options} ", "white space at an edge or before a line break"),
        ("Trailing {premise} \n{options}", "white space at an edge or before a line break"),
        ("Trailing {premise}\n{options}\n", "white space at an edge or before a line break"),
        ("Blank {premise}\n\n\n{options}", "more than one blank line in a row"),
        ("Is {premise} ?\n{options}", "a space before punctuation"),
        ("Is {premise}n it\n{options}", "a letter or digit glued to a placeholder"),
        ("Is so{premise} it\n{options}", "a letter or digit glued to a placeholder"),
        ("Bell\x07 {premise}\n{options}", "a control character"),
        ("Tab\t{premise}\n{options}", "a control character"),
        ("Is {premise}??\n{options}", "doubled punctuation"),
        ("So {premise}.. it\n{options}", "doubled punctuation"),
        ("If {premise}} is\n{options}", "a stray brace"),
        ("If {premise} { is\n{options}", "a stray brace"),
        ("If (a {premise}\n{options}", r"an unbalanced \("),
        ("If a] {premise}\n{options}", r"an unbalanced \["),
        ('If "a {premise}\n{options}', "an unbalanced quotation mark"),
        ("If {premise} is\n{answer} {options}", "a forward template shows the answer"),
        ("If {premise} is", r"\{options\} belongs in every forward classification template"),
        ("If {premisse} is\n{options}", r"\{premisse\} .* names no field"),
    ],
)
def test_lint_of_one_input(pattern, finding):
    (found,) = template_lint.lint(_with(2, input=pattern), [FIELDS])
    assert re.match(rf"clean template 2: .*{finding}", found)


def test_lint_looks_at_targets_too():
    (found,) = template_lint.lint(_with(8, target="So:  {hypothesis}"), [FIELDS])
    assert re.match(r"clean template 8: two spaces in a row in 'So:", found)


def test_lint_allows_an_ellipsis():
    assert template_lint.lint(_with(2, input="Well... {premise} (so [far])\n{options}"), [FIELDS]) == []


@pytest.mark.parametrize(
    ("dataset", "findings"),
    [
        (dataclasses.replace(CLEAN, templates=CLEAN.templates[:9]), ["clean: has 9 templates, not 10"]),
        (
            dataclasses.replace(CLEAN, templates=(*CLEAN.templates, Template("Eight {premise}\n{options}"))),
            ["clean: has 11 templates, not 10"],
        ),
        (
            _with(6, direction=INVERTED, input="Seven: {premise}", target="{hypothesis}"),
            ["clean: has 6 forward templates, fewer than 7"],
        ),
        (_with(4, input=FORWARD[1].input), ["clean template 4: the same as template 1"]),
        (_with(3, target="The answer is {answer}"), [r"clean template 3: a forward template's target is not {answer}"]),
        (
            _with(8, direction="backward"),
            ["clean template 8: direction 'backward' is neither forward nor inverted"],
        ),
        (
            _with(8, input="Write {options} a sentence that {relation}: {premise}"),
            ["clean template 8: an inverted template shows options"],
        ),
        (
            _with(8, input="Copy this: {hypothesis}"),
            ["clean template 8: an inverted template's input contains its target"],
        ),
        (
            _generation("{premise}\n{options}"),
            [
                "clean template 0: {options} belongs in every forward classification template and in no other",
            ],
        ),
    ],
)
def test_lint_of_a_set(dataset, findings):
    assert template_lint.lint(dataset, [FIELDS]) == findings


def test_case_and_punctuation_make_no_other_template():
    near = "TWO - {premise}\n\nWould that make it so? {hypothesis}\n\n{options}"
    assert template_lint.lint(_with(4, input=near), [FIELDS]) == ["clean template 4: the same as template 1"]


@pytest.mark.parametrize(
    ("fields", "findings"),
    [
        ({"answer": None}, {"{answer} .* names no field", "fields lack 'answer'"}),
        ({"options": None}, {r"{options} .* names no field", "fields lack the list 'options'"}),
        ({"options": "yes or no"}, {"fields lack the list 'options'"}),
        ({"answer": "maybe"}, {"the answer 'maybe' is not one of the options"}),
        ({"options": ["yes", "no", "no"]}, {"two options are the same", "are not the label words"}),
        ({"options": ["no", "yes"]}, {r"the options \['no', 'yes'\] are not the label words \['yes', 'no'\]"}),
        ({"options": []}, {"field 'options' is empty", "the answer 'yes' is not one", "are not the label words"}),
        ({"premise": "  "}, {"field 'premise' is empty"}),
        ({"hypothesis": ""}, {"field 'hypothesis' is empty", "empty targets after rendering"}),
    ],
)
def test_lint_of_fields(fields, findings):
    example = {name: value for name, value in {**FIELDS, **fields}.items() if value is not None}
    found = template_lint.lint(CLEAN, [FIELDS, example])
    assert found
    for line in found:
        assert any(re.search(finding, line) for finding in findings), line
    for finding in findings:
        assert any(re.search(finding, line) for line in found), finding


def test_lint_of_empty_inputs():
    found = template_lint.lint(_with(8, input="{premise}"), [{**FIELDS, "premise": ""}])
    assert "clean template 8: empty inputs after rendering" in found


def test_lint_of_labels():
    assert template_lint.lint_labels(CLEAN, ["entailment", "not_entailment"]) == []
    (found,) = template_lint.lint_labels(CLEAN, ["not_entailment", "entailment"])
    assert found.startswith("clean: labels are declared as ['entailment', 'not_entailment'], but TFDS has ['not_")


OPEN = {
    "the block alone goes": ("{premise}\n\nIs this so? {hypothesis}\n\n{options}", "", []),
    "a block in the middle": ("{premise}\n{options}\nIs this so? {hypothesis}", "", []),
    "another wording": ("Pick a reply: {hypothesis}\n{options}", "Reply: {hypothesis}", []),
    "speaks of them": ("Which of the choices fits? {hypothesis}\n{options}", "", ["speaks of options ('choices')"]),
    "no options": ("Is this so? {hypothesis}", "Is it? {hypothesis}", ["open_input is for templates that show"]),
    "shown all the same": ("Pick: {hypothesis}\n{options}", "Pick: {hypothesis}\n{options}", ["shows the options"]),
    "other fields": ("Pick: {hypothesis}\n{options}", "Reply: {premise}", ["has other fields than input"]),
}


@pytest.mark.parametrize(("pattern", "open_input", "expected"), OPEN.values(), ids=OPEN)
def test_without_options(pattern, open_input, expected):
    template = Template(pattern, open_input=open_input)
    record = dataclasses.replace(catalog.dataset("rte"), templates=(template,) * 10)
    findings = [f for f in template_lint.lint(record, [FIELDS]) if "option" in f or "open_input" in f]
    for part in expected:
        assert any(part in finding for finding in findings)
    if not expected:
        assert not [f for f in findings if "open_input" in f]
        shown = template.without_options.input
        assert "{options}" not in shown and shown == shown.strip() and "\n\n\n" not in shown
        assert shown.split() == (open_input or pattern.replace("{options}", "")).split()


THREE_WAY = ("yes", "it is not possible to tell", "no")
SPOKEN = (
    {  # case: (label words or None, pattern, open form, a part of the finding or None)
        "a question": (("no", "yes"), "{premise}\nIs this so? {hypothesis}\n{options}", "", None),
        "a bare one": (("no", "yes"), "{premise}\n{hypothesis}\nTrue?\n{options}", "", None),
        "whether": (("no", "yes"), "Say whether it is so: {premise}\nWhat is it? {hypothesis}\n{options}", "", None),
        "asks what": (
            ("no", "yes"),
            "{premise}\nWhat about this? {hypothesis}\n{options}",
            "",
            "asks 'What about this?'",
        ),
        "marks": (("no", "yes"), "{premise}\nMark the reply: {hypothesis}\n{options}", "", "choosing ('Mark the')"),
        "one of two sentences": (("no", "yes"), "{premise}\nIs one of these so? {hypothesis}\n{options}", "", None),
        "neutral": (THREE_WAY, "{premise}\nIs it true? {hypothesis}\n{options}", "", None),
        "neutral is no": (THREE_WAY, "{premise}\nDoes this follow? {hypothesis}\n{options}", "", "\"no\": 'follow?'"),
        "neutral after an arrow": (THREE_WAY, "{premise}\n=> {hypothesis}\nTrue?\n{options}", "", "\"no\": '=>'"),
        "neutral is not meant": (
            THREE_WAY,
            "{premise}\nDoes that mean this? {hypothesis}\n{options}",
            "",
            "mean this?",
        ),
        "neutral cannot be told": (
            THREE_WAY,
            "{premise}\nCan you tell? {hypothesis}\n{options}",
            "",
            "'Can you tell?'",
        ),
        "follows of two": (("no", "yes"), "{premise}\nDoes this follow? {hypothesis}\n{options}", "", None),
        "labels named": (("negative", "positive"), "Positive or negative?\n{premise}\n{options}", "", None),
        "labels unnamed": (
            ("negative", "positive"),
            "Sentiment of {premise}\n{options}",
            "",
            "not name the labels (negative",
        ),
        "labels named where open": (
            ("negative", "positive"),
            "Sentiment: {premise}\n{options}",
            "Sentiment, negative or positive: {premise}",
            None,
        ),
        "other words": (
            ("negative", "positive"),
            "Good or bad? {premise}\n{options}",
            "Positive or negative? {premise}",
            "speaks of 'Good or bad'",
        ),
        "heads of the labels": (
            ("different meanings", "the same meaning"),
            "Same or different? {premise}\n{options}",
            "The same meaning or different meanings? {premise}",
            None,
        ),
        "yes or no of others": (
            ("negative", "positive"),
            "Did they like it?\n{premise}\n{options}",
            "Positive or negative? {premise}",
            "asks for yes or no ('Did they like it?')",
        ),
        "a polite request": (
            ("negative", "positive"),
            "Could you label this? {premise}\n{options}",
            "Positive or negative? {premise}",
            None,
        ),
        "the ends of a scale": (("0", "1", "2"), "From 0 to 2, how close are they? {premise}\n{options}", "", None),
        "no scale": (
            ("0", "1", "2"),
            "How close are they? {premise}\n{options}",
            "",
            "does not name the labels (0, 2)",
        ),
    }
    | {
        words: (None, f"{words} {{premise}}\n{{options}}", "", "its open form speaks of choosing")
        for words in (
            "There are four ways to go on:",
            "Which one is it?",
            "Find the line that is right.",
            "Mark the one ending that fits:",
            "Into which group does it go?",
            "On which pile does she lay it?",
            "Which folder?",
            "What is more likely?",
            "Only one of them works:",
            "Put this in a folder:",
            "Decide between them:",
            "Multiple-choice:",
            "Which is the more sensible reply?",
            "Give the letter.",
        )
    }
    | {
        words: (None, f"{words} {{premise}}\n{{options}}", "", None)
        for words in (
            "How does it go on?",
            "What comes next?",
            "Finish the sentence:",
            "What should they do, and who helps?",
            "Give the story an ending, in which nobody is surprised.",
            "Give the ending.",
            "Write the last sentence, and say more than that.",
        )
    }
)


@pytest.mark.parametrize(("labels", "pattern", "open_input", "expected"), SPOKEN.values(), ids=SPOKEN)
def test_lint_of_wording(labels, pattern, open_input, expected):
    of_labels = tuple((word, word) for word in labels or ())
    record = dataclasses.replace(CLEAN, labels=of_labels, templates=(Template(pattern, open_input=open_input),))
    found = template_lint.lint_wording(record)
    assert found.keys() <= {0}
    lines = found.get(0, [])
    assert any(expected in line for line in lines) if expected else not lines, lines


def test_lint_of_wording_looks_at_targets_and_fields():
    target = "Question: {hypothesis}\n{answer}"
    pair = (Template("Ask: {premise}", target, INVERTED), Template("Write a line (question: ...).", target, INVERTED))
    found = template_lint.lint_wording(dataclasses.replace(CLEAN, templates=pair))
    assert found == {0: ["the target has 'Question:', which the prompt does not announce"]}
    triples = dataclasses.replace(CLEAN, templates=(Template("{triples}", "{answer}"),))
    for joined, many in (("a, b, c; d, e, f", 1), ("a | b | c; d | e | f", 0)):
        assert len(template_lint.lint_wording(triples, [FIELDS | {"triples": joined}]).get(None, ())) == many


@pytest.mark.parametrize(
    "text",
    ["He 's here.", "I do n't.", "in ( the film ) it", "so , he", "He left .", "``No'' it", "the workers ' union"],
)
def test_lint_of_wording_finds_what_a_tokenizer_left(text):
    shown = tuple(Template(t.input, t.target, t.direction) for t in CLEAN.templates)
    for name, many in (("paws_wiki", 1), ("cosmos_qa", 0)):  # the latter is shown as its source has it
        record = dataclasses.replace(CLEAN, name=name, templates=shown, labels=(("n", "no"), ("y", "yes")))
        assert len(template_lint.lint_wording(record, [FIELDS | {"premise": text}]).get(None, ())) == many
        assert None not in template_lint.lint_wording(record, [FIELDS | {"premise": "He's (in '89) at 5, the 'Inn'."}])


# Of a dataset's GPT-3 prompt: the pattern, the fields that differ, and what is found.
GPT3_PROMPTS = {
    "white space at its end": ("{premise}\nIt follows: ", {}, "white space at an edge"),
    "an empty field before its end": ("{premise}\n- {relation}", {"relation": ""}, "ends in white space: "),
    "an empty field": ("{relation}\n{premise}", {"relation": " "}, "field 'relation' is empty"),
    "no such field": ("{premise}\n{lead}", {}, "{lead}"),
    "the answer": ("{premise}\n{answer}", {}, "shows 'answer', which belongs after it"),
    "two spaces": ("{premise}  {hypothesis}", {}, "two spaces in a row"),
}


@pytest.mark.parametrize(("pattern", "fields", "finding"), GPT3_PROMPTS.values(), ids=GPT3_PROMPTS)
def test_lint_of_gpt3_prompts(pattern, fields, finding):
    """A7: ReCoRD's prompt ended in "- " where its query began with the answer, and no check looked at it."""
    dataset = dataclasses.replace(CLEAN, gpt3_prompt=Gpt3Prompt(pattern))
    found = [line for line in template_lint.lint(dataset, [{**FIELDS, **fields}]) if "GPT-3 prompt" in line]
    assert found and finding in found[0]


def test_lint_of_needs_options():
    own = dataclasses.replace(CLEAN, needs_options=(("options", "none of"),))
    assert any("needs_options looks at 'options'" in line for line in template_lint.lint(own, [FIELDS]))
