"""Mixtures as lists of parts: every name is one, and what gin, a file or a dictionary makes of it."""

import json
import re

import pytest

from flan_jax import catalog, parts
from flan_jax.errors import FlanError

FOUR = ("instructions", "5_shots", "without_options", "without_options_5_shots")


@pytest.mark.parametrize("name", [*catalog.mixture_names(), "rte", "flan_rte", "flan_first_2_clusters_1_datasets"])
def test_a_name_is_its_datasets_in_one_style(name):
    for suffix, style in (("", "instructions"), ("_no_template", "no_template")):
        found = parts.of(name + suffix)
        assert found.datasets == catalog.mixture(name)
        assert [part.name for part in found.parts] == [record.name for record in catalog.mixture(name)]
        assert {(p.style, p.weight, p.rate, p.loss_weight, p.joint) for p in found.parts} == {
            (style, 1.0, None, 1.0, "eos")
        }
        assert (found.name, found.title, found.recipe) == (name + suffix, name + suffix, {})
        rates = [found.rate(part, n) for part, n in zip(found.parts, range(2500, 9999), strict=False)]
        assert rates == [min(n, 3000) for n in range(2500, 2500 + len(rates))] and {*map(type, rates)} == {int}


def test_a_quarter_each_of_four_styles():
    found = parts.of("flan_without_nli", styles=FOUR)
    assert len(found.parts) == 4 * len(catalog.mixture("flan_without_nli"))
    assert [part.name for part in found.parts[:4]] == [f"copa:{style}" for style in sorted(FOUR)]
    assert {part.weight for part in found.parts} == {0.25}
    assert sum(found.rate(part, 400) for part in found.parts if part.dataset == "copa") == 400
    assert found.title == "flan_without_nli with STYLES"
    assert parts.of("flan_without_nli", styles=dict.fromkeys(reversed(FOUR), 7.0)).parts == found.parts  # in any order


@pytest.mark.parametrize("style", ["5_shots", ("5_shots",), {"5_shots": 3}])
def test_one_style_is_a_name(style):
    assert parts.of("flan", styles=style) == parts.of("flan_5_shots") == parts.of("flan_5_shots", styles=style)


def test_the_nearest_name_counts():
    weights = {"nli": 0, "rte": 2.0, "cb:5_shots": 3, "sentiment:5_shots": 0.5, "all:instructions": 10, "sst2": 1}
    found = {p.name: p.weight for p in parts.of("flan", styles=("instructions", "5_shots"), weights=weights).parts}
    of_nli = {name: found[name] for name in found if parts.cluster_of(name) == "nli"}
    assert of_nli == {"rte:5_shots": 1.0, "rte:instructions": 1.0, "cb:5_shots": 1.5}
    assert (found["sst2:5_shots"], found["imdb_reviews:5_shots"]) == (0.5, 0.25)
    assert (found["copa:instructions"], found["copa:5_shots"]) == (5.0, 0.5)


def test_a_weight_of_0_leaves_it_out():
    found = parts.of("flan", weights={"nli": 0, "paraphrase": 0})
    assert found.datasets == catalog.mixture("flan_without_nli")


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({}, [10, 3000, 3000]),
        ({"cap": 1000}, [10, 1000, 1000]),
        ({"cap": None}, [10, 4000, 30000]),
        ({"cap": 1}, [1, 1, 1]),
        ({"temperature": 2}, [10**0.5, 3000**0.5, 3000**0.5]),
        ({"cap": None, "temperature": 4}, [10**0.25, 4000**0.25, 30000**0.25]),
    ],
)
def test_rates(rates, expected):
    found = parts.of("flan", rates=rates)
    assert [found.rate(found.parts[0], n) for n in (10, 4000, 30000)] == expected


def test_loss_weights_and_joints():
    found = parts.of("flan", loss_weights={"summarization": 0.5, "xsum": 2}, joints={"nli": "newline"})
    weights = {part.name: (part.loss_weight, part.joint) for part in found.parts}
    assert (weights["xsum"], weights["samsum"], weights["rte"]) == ((2.0, "eos"), (0.5, "eos"), (1.0, "newline"))
    assert {part.joint for part in parts.of("flan", joints="newline").parts} == {"newline"}


OWN = {
    "name": "mine",
    "parts": [
        {"of": "flan_without_nli", "weight": 0.25},
        {"of": "nli", "style": "5_shots", "rate": 500, "loss_weight": 2.0},
        {"of": "rte", "style": "no_template", "joint": "newline"},
    ],
    "weights": {"sentiment": 0},
}


def test_parts_of_ones_own(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(OWN))
    found = parts.of(str(tmp_path / "mine.json"))
    assert found == parts.of(OWN) == parts.of(json.dumps(OWN)) == parts.of(repr(OWN)) == parts.of(found.value)
    by_name = {part.name: part for part in found.parts}
    assert found.rate(by_name["rte:5_shots"], 99_999) == 500 and by_name["rte:5_shots"].loss_weight == 2.0
    assert by_name["rte:no_template"].joint == "newline" and "rte" not in by_name and "sst2" not in by_name
    assert found.rate(by_name["copa"], 400) == 100
    assert found.name == "mine" and "nli" in {part.cluster for part in found.parts}


def test_a_part_takes_the_names_that_a_mixture_has():
    given = [{"of": "flan_without_nli_5_shots"}, {"of": "rte:5_shots"}, {"of": "cb_no_template"}, {"of": "cb"}]
    plain = [{"of": "flan_without_nli", "style": "5_shots"}, {"of": "rte", "style": "5_shots"}]
    plain += [{"of": "cb", "style": "no_template"}, {"of": "cb"}]
    assert parts.of({"parts": given}) == parts.of({"parts": plain})
    for wrong, line in (
        ([{"of": "rte:5_shots", "style": "5_shots"}], "'rte:5_shots' names a style already"),
        ([{"of": "rte:6_shotz"}], "6_shotz"),
        ([{"of": "nope_5_shots"}], "unknown mixture 'nope'"),
    ):
        with pytest.raises(FlanError, match=line):
            parts.of({"parts": wrong})
    with pytest.raises(
        FlanError, match="'nli' is a cluster; the mixture of its datasets is {'parts': \\[{'of': 'nli'}]}"
    ):
        parts.of("nli")
    with pytest.raises(FlanError, match="did you mean 'rte'\\?$"):
        parts.of("flan", weights={"Rte": 2})


def test_macros_stand_over_a_file(tmp_path):
    file = tmp_path / "shared.json"
    file.write_text(json.dumps({"mixture": "flan", "styles": list(FOUR), "weights": {"nli": 0, "rte": 2}}))
    found = parts.of(str(file), styles="5_shots", weights={"rte": 3}, rates={"cap": 10})
    assert found.name == "flan_5_shots" and found.recipe["weights"] == {"nli": 0.0, "rte": 3.0} and found.cap == 10
    assert parts.of(parts.of(str(file)), weights={"rte": 5}) == parts.of(str(file), weights={"rte": 5})


@pytest.mark.parametrize("made", [{"styles": FOUR}, {"weights": {"nli:instructions": 2}, "joints": "newline"}])
def test_a_recipe_makes_the_same_mixture(made):
    found = parts.of("flan", **made)
    through_json = json.loads(json.dumps({"tuned on": found.name, "recipe": found.recipe}))
    assert parts.of(parts.recorded(through_json)) == found


NAN = float("nan")


@pytest.mark.parametrize(
    ("mixture", "more", "line"),
    [
        ("flam", {}, "unknown mixture 'flam'"),
        ("flan", {"weights": {"rtee": 1}}, "WEIGHTS.*unknown dataset or cluster 'rtee': did you mean 'rte'"),
        ("flan", {"weights": {"nly": 0}}, "did you mean 'nli'"),
        ("flan", {"weights": {"rte": -1}}, "'rte' has to be 0, or a number from 1e-06 to 1e"),
        ("flan", {"weights": {"rte": NAN}}, "'rte' has to be 0, or a number"),
        ("flan", {"weights": {"rte": float("inf")}}, "'rte' has to be"),
        ("flan", {"weights": {"rte": True}}, "'rte' has to be"),
        ("flan", {"weights": {"rte": "2"}}, "'rte' has to be"),
        ("flan", {"weights": {"rte": 1e-300}}, "'rte' has to be"),
        ("flan", {"weights": {}}, "WEIGHTS is {}: name one or more"),
        ("flan", {"weights": {"all": 0}}, "WEIGHTS take out all of mixture 'flan'"),
        ("rte", {"weights": {"rte": 0}}, "WEIGHTS take out all of mixture 'rte'"),
        ("rte", {"weights": {"sst2": 0}}, "WEIGHTS names 'sst2', and mixture 'rte' has nothing of it"),
        ("flan", {"weights": {"rte:5_shots": 2}}, "nothing of it: rte is there in instructions"),
        ("flan", {"weights": {"rte:5_shot": 2}}, "unknown style '5_shot'"),
        ("flan", {"weights": {"rte:4_templates": 1, "rte:instructions_4_templates": 2}}, "'rte:4_templates' twice"),
        ("flan", {"weights": {"wmt14_enfr/fr-en": 1}}, "has nothing of it"),
        ("flan_without_nli", {"weights": {"nli": 1}}, "holds out cannot be weighted back .* count as seen"),
        ("flan_without_nli", {"weights": {"rte": 1e4}}, "holds out cannot be weighted back"),
        ("flan_without_nli", {"weights": {"paraphrase": 0}}, "has nothing of it"),
        ("flan", {"styles": ("5_shots", "instructions_5_shots")}, "'5_shots' twice, as '5_shots' and as"),
        ("flan", {"styles": {"without_options_5_shots": 1, "5_shots_without_options": 2}}, "twice"),
        ("flan", {"styles": {"5_shots": 0, "instructions": 1}}, "'5_shots' has to be a number of at least"),
        ("flan", {"styles": "5_shot"}, "unknown style '5_shot'"),
        ("flan", {"styles": {}}, "name one or more"),
        ("flan_5_shots", {"styles": ("instructions", "5_shots")}, "has a style at its end"),
        ("flan", {"rates": {"cap": 0}}, "'cap' has to be a whole number of at least 1 or None"),
        ("flan", {"rates": {"examples": 0}}, "'examples' has to be a whole number of at least 1 or None"),
        ("flan", {"rates": {"temperature": 0}}, "'temperature' has to be a number of at least 0.1"),
        ("flan", {"rates": {"tempersture": 2}}, "did you mean 'temperature'"),
        ("flan", {"loss_weights": {"rte": 0}}, "LOSS_WEIGHTS.*'rte' has to be a number of at least"),
        ("flan", {"joints": "space"}, "JOINTS is 'space'"),
        ("flan", {"joints": {"rte": "Newline"}}, "did you mean 'newline'"),
        ({}, {}, "needs 'mixture', a name, or 'parts'"),
        ({"mixture": "flan", "weigths": {}}, {}, "no key 'weigths': did you mean 'weights'"),
        ({"mixture": "flan", "name": "mine"}, {}, "leave 'name' out"),
        ({"parts": []}, {}, "it has to be a list"),
        ({"parts": "rte"}, {}, "it has to be a list"),
        ({"parts": [{"of": "rte"}, {"of": "nli"}]}, {}, "dataset rte in style instructions is there already"),
        ({"parts": [{"of": "rte", "wieght": 2}]}, {}, "did you mean 'weight'"),
        ({"parts": [{"of": "rte", "rate": -5}]}, {}, "'rate' has to be"),
        ({"parts": [{"style": "5_shots"}]}, {}, "part 0 has no 'of'"),
        ({"parts": [{"of": "wsc273"}]}, {}, "dataset wsc273 has no training data"),
        ({"parts": [{"of": "wmt14_enfr/fr-en"}]}, {}, "is only scored separately; to tune on it, name 'wmt14_enfr'"),
        ({"parts": [{"of": "rte"}], "name": "flan_without_nli"}, {}, "is that of another mixture"),
        ({"parts": [{"of": "rte"}], "name": "a b"}, {}, "name is 'a b'"),
        ({"parts": [{"of": "rte"}], "styles": ["5_shots"]}, {}, "each entry has its own 'style'"),
        ('{"mixture": "flan", "mixture": "rte"}', {}, "'mixture' twice"),
        ('{"mixture": "flan", "weights": {"rte": 1, "rte": 0}}', {}, "'rte' twice"),
        ("{'mixture': open('x')}", {}, "is no dictionary"),
        ("nowhere.json", {}, "cannot read the mixture nowhere.json"),
    ],
)
def test_what_is_wrong_is_named(mixture, more, line):
    with pytest.raises(FlanError, match=line) as caught:
        parts.of(mixture, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"mixture": NaN}', "", "\xff"])
def test_a_file_that_holds_no_mixture(tmp_path, text):
    (tmp_path / "mine.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FlanError, match=re.escape(str(tmp_path / "mine.json"))):
        parts.of(str(tmp_path / "mine.json"))


def test_a_file_as_other_platforms_write_it(tmp_path):
    (tmp_path / "mine.json").write_bytes(b'\xef\xbb\xbf{"mixture": "flan",\r\n "weights": {"all": 2}}\r\n')
    assert parts.of(str(tmp_path / "mine.json")) == parts.of("flan", weights={"all": 2})
    (tmp_path / "mine.json").write_text('{"mixture": "flan",\n "weights": {"all": 2},\n}')
    with pytest.raises(FlanError, match=r"mine.json: not JSON \(.*, line 3\); mend it"):
        parts.of(str(tmp_path / "mine.json"))
