import numpy as np
import pytest

from flan_jax import catalog, templates
from flan_jax.errors import FlanError
from flan_jax.templates import INVERTED, Template

FIELDS = {
    "premise": "A dog barks.",
    "hypothesis": "An animal makes a noise.",
    "relation": "has to be true",
    "options": ["yes", "no"],
    "answer": "yes",
}


# -------------------------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("pattern", "names", "literals"),
    [
        ("", [], [""]),
        ("no field", [], ["no field"]),
        ("{a}", ["a"], ["", ""]),
        ("{a}{b_1}", ["a", "b_1"], ["", "", ""]),
        ("x {a}\ny {b} {a}.", ["a", "b", "a"], ["x ", "\ny ", " ", "."]),
        ("{ a } {} {a-b} {a", [], ["{ a } {} {a-b} {a"]),  # none of these is a placeholder
        ("{{a}}", ["a"], ["{", "}"]),
    ],
)
def test_parse(pattern, names, literals):
    assert templates.placeholders(pattern) == names
    assert templates.pieces(pattern) == tuple(zip(literals, [*names, None], strict=True))


@pytest.mark.parametrize("dataset", catalog.datasets(), ids=lambda d: d.name)
def test_pieces_spell_the_pattern(dataset):
    for template in dataset.templates:
        for pattern in (template.input, template.target):
            parts = templates.pieces(pattern)
            assert "".join(text + (f"{{{name}}}" if name else "") for text, name in parts) == pattern
            assert [name for _, name in parts if name] == templates.placeholders(pattern)


# ------------------------------------------------------------------------------------------------------ rendering


def test_options_block():
    assert templates.options_block(["yes", "it is not possible to tell"]) == (
        "OPTIONS:\n- yes\n- it is not possible to tell"
    )


def test_render():
    template = Template("{premise}\n\nIs this true? {hypothesis}\n{options}")
    assert templates.render(template, FIELDS) == (
        "A dog barks.\n\nIs this true? An animal makes a noise.\nOPTIONS:\n- yes\n- no",
        "yes",
    )
    template = Template("Write what {relation} after: {premise}", "{hypothesis} ({relation})", INVERTED)
    assert templates.render(template, FIELDS) == (
        "Write what has to be true after: A dog barks.",
        "An animal makes a noise. (has to be true)",
    )


def test_fields_are_not_patterns():
    fields = {**FIELDS, "premise": r"{answer} {options} \1 \g<0> $& %s {", "options": ["{premise}", "- {answer}"]}
    inputs, targets = templates.render(Template("{premise}|{options}"), fields)
    assert inputs == r"{answer} {options} \1 \g<0> $& %s {" + "|OPTIONS:\n- {premise}\n- - {answer}"
    assert targets == "yes"


def test_unknown_placeholder():
    with pytest.raises(
        FlanError, match=r"\{premises\} in 'A\\n\{premises\}' names no field; .*: answer, hypo"
    ) as error:
        templates.render(Template("A\n{premises}"), FIELDS)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(FlanError, match=r"\{options\} .* names no field"):
        templates.fill("{options}", {"answer": "yes"})


def test_list_other_than_options():
    with pytest.raises(FlanError, match=r"\{references\} .* names a list"):
        templates.fill("{references}", {"references": ["a", "b"]})


def _random_fields(rng):
    words = [
        "",
        " ",
        "{",
        "}",
        "{a}",
        "{b}",
        "{options}",
        "\\1",
        "\\g<0>",
        "$",
        "$0",
        ".*",
        "[",
        "(?i)",
        "^",
        "%s",
        "%",
    ]
    words += ["plain", "ö", "日本", "🦊", "e\u0301", "\u200f", "\n", "\t", "\x00", '"', "'", "&amp;", "- x", "OPTIONS:"]

    def text():
        return "".join(rng.choice(words, size=rng.integers(0, 6)))

    return {
        "a": text(),
        "b": text(),
        "c_1": text(),
        "options": [text() for _ in range(rng.integers(1, 5))],
    }


def _random_template(rng):
    parts = ["{a}", "{b}", "{c_1}", "{options}", " ", "\n", "x", "é", "\\1", "{", "}", "%s", "$"]
    return Template(*("".join(rng.choice(parts, size=rng.integers(0, 8))) for _ in range(2)))


@pytest.mark.slow
def test_tensors_render_like_python():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for _ in range(12):
        chosen = [_random_template(rng) for _ in range(rng.integers(1, 11))]
        signature = {name: tf.TensorSpec([], tf.string) for name in ("a", "b", "c_1")}
        signature["options"] = tf.TensorSpec([None], tf.string)

        @tf.function(input_signature=[signature, tf.TensorSpec([], tf.int64)])
        def rendered(fields, number, chosen=chosen):
            return templates.render_tensors(chosen, fields, number)

        for _ in range(8):
            fields = _random_fields(rng)
            number = rng.integers(len(chosen))
            got = rendered({name: tf.constant(value) for name, value in fields.items()}, tf.constant(number, tf.int64))
            assert tuple(t.numpy().decode() for t in got) == templates.render(chosen[number], fields)


@pytest.mark.slow
def test_tensors_with_an_unknown_placeholder():
    import tensorflow as tf

    chosen = [Template("{premise}"), Template("{premise} {options}")]
    with pytest.raises(FlanError, match=r"\{options\} .* names no field"):
        templates.render_tensors(chosen, {"premise": tf.constant("x"), "answer": tf.constant("y")}, 0)


# --------------------------------------------------------------------------------------------------------- digest


def test_digest_follows_the_text():
    base = [Template("a {x}", "{y}"), Template("b {x}", "{y}")]
    same = [Template("a {x}", "{y}"), Template("b {x}", "{y}")]
    assert templates.digest(base) == templates.digest(same)
    others = [
        [Template("a {x}!", "{y}"), base[1]],
        [Template("a {x}", "{y}."), base[1]],
        [Template("a {x}", "{y}", INVERTED), base[1]],
        [Template("a {x", "}{y}"), base[1]],
        base[::-1],
        base[:1],
        [],
    ]
    assert len({templates.digest(t) for t in [base, *others]}) == 1 + len(others)


def test_digests_of_the_catalog_differ():
    by_digest = {}
    for dataset in catalog.datasets():
        by_digest.setdefault(templates.digest(dataset.templates), set()).add(dataset.paper_dataset)
    assert all(len(names) == 1 for names in by_digest.values())
