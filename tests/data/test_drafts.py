import dataclasses
import types

import pytest

from flan_jax import catalog, styles
from flan_jax.data import drafts
from flan_jax.training import records

RTE = catalog.dataset("rte")
OF_RTE = drafts.fingerprint(RTE, styles.PAPER)


def _style(name):
    return styles.parse(name)


def test_a_fingerprint_is_of_the_wording_alone():
    first, *others = RTE.templates
    reworded = dataclasses.replace(RTE, templates=(dataclasses.replace(first, input=f"{first.input}\nTrue?"), *others))
    assert drafts.fingerprint(reworded, styles.PAPER) != OF_RTE
    assert drafts.fingerprint(dataclasses.replace(RTE, metrics=("accuracy", "binary_f1")), styles.PAPER) == OF_RTE
    other = {
        drafts.fingerprint(RTE, _style(name)) for name in ("no_template", "without_options", "gpt3", "2_templates")
    }
    assert len({OF_RTE, *other}) == 5
    assert drafts.fingerprint(reworded, _style("gpt3")) == drafts.fingerprint(RTE, _style("gpt3"))


NOT_OLD = {
    "today's": {"dataset": "rte", "style": "instructions", "wording": OF_RTE},
    "today's in a style": {
        "dataset": "rte",
        "style": "2_templates",
        "wording": drafts.fingerprint(RTE, _style("2_templates")),
    },
    "no template": {"dataset": "rte", "style": "no_template"},
    "GPT-3's manner": {"dataset": "rte", "style": "gpt3_2_shots"},
    "an unknown dataset": {"dataset": "of_someone_else", "style": "instructions"},
    "an unknown style": {"dataset": "rte", "style": "of_a_later_version"},
}
OLD = {
    "another wording": {"dataset": "rte", "style": "instructions", "wording": "0123456789abcdef"},
    "of another style": {"dataset": "rte", "style": "without_options", "wording": OF_RTE},
    "without a fingerprint": {"dataset": "rte", "style": "instructions", "digest": "d", "records": 9},
    "without a style": {"dataset": "rte", "digest": "d"},
    "of some templates": {"dataset": "rte", "style": "4_templates_2_shots"},
}


@pytest.mark.parametrize("entry", NOT_OLD.values(), ids=NOT_OLD)
def test_what_is_of_today(entry):
    assert drafts.said({"datasets": [entry["dataset"]], "text": [entry]}) == ""


@pytest.mark.parametrize("entry", OLD.values(), ids=OLD)
def test_what_is_of_an_earlier_draft(entry):
    assert drafts.earlier({"datasets": ["rte"], "text": [NOT_OLD["no template"], entry, entry]}) == ["rte"]


def test_a_manifest_of_the_first_draft_is_told_in_one_line():
    tuning = {"status": "tuned", "datasets": ["rte", "snli", "sst2", "wnli"], "clusters": ["nli", "sentiment"]}
    of = "an earlier draft of the templates of {}, whose wording is not today's"
    assert drafts.said(tuning) == of.format("rte, snli, sst2 and 1 more dataset")  # of before texts were recorded
    recorded = tuning | {"text": [{"dataset": n, "style": "instructions", "digest": n} for n in ("rte", "snli")]}
    assert drafts.said(recorded | {"datasets": ["rte", "snli"]}) == of.format("rte, snli")
    assert drafts.said_of({"tunings": {"nli": {"text": [OLD["another wording"]]}}}) == of.format("rte")
    assert drafts.said_of({"tuning": {"status": "declared untuned", "datasets": [], "text": []}}) == ""
    assert drafts.said_of({}) == ""


def test_a_run_says_what_it_tunes_on_and_starts_from():
    def lines(wording, before, saved=None):
        given = types.SimpleNamespace(
            tokenizer=types.SimpleNamespace(fingerprint="f"),
            manifest=types.SimpleNamespace(tuning=before),
            saved=saved,
        )
        stream = types.SimpleNamespace(text=[{"dataset": "rte", "digest": "d"} | wording])
        composition = types.SimpleNamespace(members=[types.SimpleNamespace(style="instructions")])
        return records.earlier_drafts(given, stream, composition)

    assert lines({"wording": OF_RTE}, {"datasets": []}) == []
    (one,) = lines({}, {"datasets": []})
    assert one.startswith("this run tunes on an earlier draft of the templates of rte, ") and "prepare again" in one
    (two,) = lines({"wording": OF_RTE}, {"datasets": ["snli"]})
    assert two.startswith("the run starts from a model that was tuned on an earlier draft of the templates of snli")
    assert lines({"wording": OF_RTE}, {"datasets": ["snli"]}, saved="run.json") == []  # it said so at its first start
