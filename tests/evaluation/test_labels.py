import pytest

from flan_jax import catalog, styles
from flan_jax.evaluation import labels


def tuning(clusters, known=(), datasets=()):
    """What a manifest says of a tuning whose clusters are known, or else of which some are."""
    status = "unknown" if clusters is None else "tuned"
    return {"status": status, "clusters": sorted(known if clusters is None else clusters), "datasets": list(datasets)}


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        (None, labels.UNKNOWN),
        (set(), labels.HELD_OUT),
        ({"sentiment", "commonsense"}, labels.HELD_OUT),
        ({"nli"}, labels.SEEN),
        ({"paraphrase"}, labels.SEEN),  # the extra exclusion of the paper
    ],
)
def test_status_follows_the_hold_out_rule(trained, expected):
    assert labels.status(catalog.dataset("rte"), tuning(trained)) == expected


@pytest.mark.parametrize(
    ("known", "datasets", "expected"),
    [
        (("nli",), (), labels.SEEN),
        (("paraphrase",), (), labels.SEEN),
        (("sentiment",), ("sst2",), labels.UNKNOWN),
        (("unknown",), ("rte",), labels.SEEN),
    ],
)
def test_what_a_model_of_unknown_history_was_tuned_on_here_is_seen(known, datasets, expected):
    assert labels.status(catalog.dataset("rte"), tuning(None, known, datasets)) == expected


@pytest.mark.parametrize(
    ("style", "status", "expected"),
    [
        ("instructions", labels.HELD_OUT, "zero-shot, held out"),
        ("gpt3", labels.SEEN, "zero-shot, seen"),
        ("5_shots", labels.HELD_OUT, "few-shot (5), held out"),
        ("without_options_1_shots", labels.UNKNOWN, "few-shot (1), unknown"),
        ("gpt3_16_shared_shots", labels.MIXED, "few-shot (16), mixed"),
    ],
)
def test_the_label_says_style_and_status(style, status, expected):
    style = styles.parse(style)
    assert labels.label(style, status) == labels.of_figures({"status": status}, style) == expected
    assert labels.status_of(expected) == status


@pytest.mark.parametrize(
    ("figures", "style", "expected"),
    [
        ({"status": "zero-shot, held out"}, "5_shots", "few-shot (5), held out"),  # what earlier versions wrote
        ({"status": "zero-shot, held out"}, "instructions", "zero-shot, held out"),
        ({"status": "seen"}, "instructions", "zero-shot, seen"),
        ({"status": "something else"}, "instructions", "zero-shot, unknown"),  # never held out by mistake
        ({}, "gpt3", "zero-shot, unknown"),
        ({"status": "seen", "label": "few-shot (2), seen"}, "instructions", "few-shot (2), seen"),
    ],
)
def test_results_of_any_version_get_the_same_labels(figures, style, expected):
    assert labels.of_figures(figures, styles.parse(style)) == expected


@pytest.mark.parametrize(
    ("several", "expected"),
    [
        (["zero-shot, seen"], "zero-shot, seen"),
        (["zero-shot, seen", "zero-shot, held out"], "zero-shot, mixed"),
        (["zero-shot, seen", "few-shot (5), seen"], "mixed, seen"),
        (["zero-shot, held out", "few-shot (5), seen"], "mixed"),
    ],
)
def test_a_mean_is_called_what_its_parts_are(several, expected):
    assert labels.joint(several) == expected


@pytest.mark.parametrize("text", ["", "rte", "20.0 ± 1.0", "seen", "dataset, mean"])
def test_other_cells_are_no_labels(text):
    assert labels.status_of(text) == ""
