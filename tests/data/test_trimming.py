import pytest

from flan_jax.data import trimming, vocabularies
from flan_jax.errors import FlanError
from flan_jax.templates import Template

BYTES = vocabularies.ByteTokenizer()
NLI = Template("Read this.\n\n{premise}\n\nSo is it true?\n{hypothesis}\n\n{options}\n\nAnswer:")
OPTIONS = ["yes", "it is not possible to tell", "no"]


def fields(premise, hypothesis="It rained.", options=OPTIONS):
    return {"premise": premise, "hypothesis": hypothesis, "options": options, "answer": "no"}


WORDS = " ".join(f"word{i}" for i in range(400))


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize("room", [150, 200, 801, 2000])
@pytest.mark.parametrize("prefix", ["", "An exemplar.\nno\n\n"])
def test_fields_are_cut_and_nothing_else(side, room, prefix):
    found = trimming.fit(NLI, fields(WORDS), prefix, BYTES, room, side)
    assert len(found.tokens) <= room and list(found.tokens) == BYTES.encode([found.inputs])[0]
    head, rest = found.inputs.removeprefix(prefix).split("Read this.\n\n")
    premise, after = rest.split("\n\nSo is it true?\n")
    assert found.inputs.startswith(prefix) and head == ""
    assert after == "It rained.\n\nOPTIONS:\n- yes\n- it is not possible to tell\n- no\n\nAnswer:"
    assert premise and premise == found.fields["premise"]
    assert set(premise.split()) <= set(WORDS.split())  # whole words
    assert WORDS.startswith(premise)  # the text goes on after it, whatever the side
    assert len(found.tokens) > room - 20  # no more than a word too much
    whole = prefix + NLI.input.replace("{options}", "OPTIONS:\n- yes\n- it is not possible to tell\n- no")
    whole = whole.replace("{premise}", WORDS).replace("{hypothesis}", "It rained.")
    assert found.cut_tokens == len(whole) - len(found.tokens)


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize("pattern", ["{article}\n- {lead}", "{lead} {article}", "{article}\n{lead}\n{article}"])
def test_only_the_field_that_a_prompt_ends_with_loses_its_start(side, pattern):
    texts = {"article": WORDS, "lead": WORDS.replace("word", "term")}
    kept = trimming.fit(Template(pattern), texts, "", BYTES, 400, side).fields
    last = pattern.rsplit("{")[-1].removesuffix("}")
    for name, whole in texts.items():
        assert 0 < len(kept[name]) < len(whole)
        assert whole.endswith(kept[name]) if (side, name) == ("start", last) else whole.startswith(kept[name])


def test_what_fits_stays():
    found = trimming.fit(NLI, fields("Rain fell."), "", BYTES, 200, "end")
    assert found.cut_tokens == 0 and found.fields == fields("Rain fell.")


def test_the_longest_loses_until_the_next_is_as_long():
    long, longer = "a b c d " * 30, "e f g h " * 60
    found = trimming.fit(NLI, fields(longer, long), "", BYTES, 640, "end")
    assert found.fields["hypothesis"] == long  # 240 fit beside it
    found = trimming.fit(NLI, fields(longer, long), "", BYTES, 250, "end")
    sizes = [len(found.fields[name]) for name in ("premise", "hypothesis")]
    assert abs(sizes[0] - sizes[1]) <= 4 and min(sizes) > 60


def test_a_field_that_stands_twice_is_cut_once():
    found = trimming.fit(Template("{text} -- {text}"), {"text": WORDS}, "", BYTES, 100, "end")
    assert found.inputs == "{0} -- {0}".format(found.fields["text"]) and len(found.tokens) > 70


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize(
    "text",
    [
        "x" * 3000,
        "漢字" * 800,
        "🌧" * 700,
        " " * 3000,
        "\n\n" * 900 + "a",
        ("w" * 200 + " ") * 20,
        "a  " * 900,
        "é" * 999,
    ],
    ids=["one word", "no spaces", "four bytes each", "blank", "breaks", "long words", "wide gaps", "accents"],
)
def test_hostile_texts(text, side):
    found = trimming.fit(NLI, fields(text), "", BYTES, 300, side)
    assert len(found.tokens) <= 300 and "OPTIONS:\n- yes" in found.inputs and found.cut_tokens > 0
    kept = found.fields["premise"]
    assert kept in text and (text.strip() in ("", "a") or len(found.tokens) > 200)


def test_what_cannot_fit_is_refused():
    with pytest.raises(trimming.TooLongError, match="without any field's text.*room for 20") as error:
        trimming.fit(NLI, fields(WORDS), "", BYTES, 20, "end")
    assert isinstance(error.value, FlanError) and "\n" not in str(error.value)
    with pytest.raises(trimming.TooLongError):  # options are never cut
        trimming.fit(NLI, fields("a", options=["yes " * 100, "no"]), "", BYTES, 300, "end")
    with pytest.raises(trimming.TooLongError):  # nor exemplars
        trimming.fit(NLI, fields("a"), "An exemplar. " * 50, BYTES, 300, "end")
    with pytest.raises(trimming.TooLongError):
        trimming.fit(Template("Nothing is shown here."), {}, "", BYTES, 3, "end")
    with pytest.raises(FlanError, match="names no field"):
        trimming.fit(Template("{absent}"), fields("a"), "", BYTES, 300, "end")
