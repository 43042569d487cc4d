"""Means of clusters, against the paper's own table."""

import numpy as np
import pytest

from flan_jax import catalog
from flan_jax.evaluation import clusters, labels

# Zero-shot scores of the paper's appendix tables, in percent: GPT-3 175B; FLAN 137B, mean over the templates. The cells
# are recalled, not copied from a print; the six means are printed. That each of them follows from the cells to its last
# digit (0.05), each variant counted by itself, says that cells and rule are the paper's.
CELLS = {
    "anli_r1": (34.6, 47.7),
    "anli_r2": (35.4, 43.9),
    "anli_r3": (34.5, 47.0),
    "cb": (46.4, 64.1),
    "rte": (63.5, 78.3),
    "bool_q": (60.5, 80.2),
    "multirc": (72.9, 74.5),
    "openbookqa": (57.6, 77.4),
    "arc_easy": (68.8, 79.5),
    "arc_challenge": (51.4, 61.7),
    "natural_questions": (14.6, 18.6),
    "trivia_qa": (64.3, 66.5),
}
BEST_DEV = {"anli_r1": 46.4, "anli_r2": 44.0, "anli_r3": 48.5, "cb": 83.9, "rte": 84.1}
PRINTED = {  # GPT-3, FLAN: the means that the paper prints
    "nli": (42.9, 56.2),
    "reading_comprehension": (63.7, 77.4),
    "closed_book_qa": (49.8, 56.6),
}


def _figures(name, mean, **more):
    record = catalog.dataset(name)
    return {
        "cluster": record.cluster,
        "paper_dataset": record.paper_dataset,
        "mean": mean,
        "best_dev": None,
        "random": 0.5,
        "majority": 0.5,
        "status": labels.HELD_OUT,
        "label": "zero-shot, held out",
    } | more


def test_every_direction_of_a_translation_counts_by_itself():
    names = clusters.members("translation")
    assert len(names) == 2 * len(catalog.datasets("translation")) == 16 and "wmt14_enfr/fr-en" in names
    scores = {"wmt14_enfr/en-fr": 0.1, "wmt14_enfr/fr-en": 0.3, "wmt16_translate_deen/de-en": 0.5}
    runs = [{name: _figures(name, mean) for name, mean in scores.items()}]
    runs.append({name: runs[0][name] for name in list(scores)[1:]})
    alone, both = clusters.common(runs[:1])["translation"], clusters.common(runs)["translation"]
    assert (alone.count, both.count) == ("3 of 16", "2 of 16")
    assert clusters.mean(runs[0], alone)["mean"] == pytest.approx(0.3)
    assert both.datasets == tuple(scores)[1:] and both.not_shared == ("wmt14_enfr/en-fr",)


def test_an_earlier_figure_over_both_directions_is_in_no_mean():
    """One BLEU over both directions is neither of them."""
    old = {"wmt14_enfr": _figures("wmt14_enfr", 0.9)}
    assert clusters.cluster_means(old) == {}
    new = {"wmt14_enfr/fr-en": _figures("wmt14_enfr/fr-en", 0.3)}
    over = clusters.common([old | new])["translation"]
    assert (over.datasets, over.apart) == (("wmt14_enfr/fr-en",), ("wmt14_enfr",))


@pytest.mark.parametrize("column", [0, 1], ids=["gpt3", "flan"])
def test_the_papers_cells_give_its_printed_means(column):
    means = clusters.cluster_means({name: _figures(name, cells[column] / 100) for name, cells in CELLS.items()})
    assert set(means) == set(PRINTED)
    for cluster, printed in PRINTED.items():
        assert 100 * means[cluster]["mean"] == pytest.approx(printed[column], abs=0.05 + 1e-9), cluster


def test_other_cells_and_other_rules_do_not():
    flan = {name: cells[1] for name, cells in CELLS.items()}
    once = np.mean([np.mean([flan[f"anli_r{r}"] for r in (1, 2, 3)]), flan["cb"], flan["rte"]])
    assert round(once, 1) == 62.9  # variants as one: what was printed here before
    assert round(np.mean(list(BEST_DEV.values())), 1) == 61.4  # the template that is best on dev


def test_extras_are_in_no_mean():
    means = clusters.cluster_means({"winogrande": _figures("winogrande", 0.6), "wsc": _figures("wsc", 1.0)})
    assert means["coreference"]["mean"] == 0.6 and means["coreference"]["datasets"] == ["winogrande"]
    assert clusters.cluster_means({"wsc": _figures("wsc", 1.0)}) == {}


def test_a_part_of_a_cluster_is_marked():
    names = clusters.members("coreference")
    some = clusters.cluster_means({names[0]: _figures(names[0], 0.5)})["coreference"]
    every = clusters.cluster_means({name: _figures(name, 0.5) for name in names})["coreference"]
    assert (some["partial"], len(some["datasets"]), some["of"]) == (True, 1, len(names))
    assert (every["partial"], len(every["datasets"]), every["of"]) == (False, len(names), len(names))
    assert "wsc" not in names


def test_a_mean_of_several_runs_is_over_what_all_have():
    first = {"rte": _figures("rte", 0.2), "cb": _figures("cb", 0.4), "sst2": _figures("sst2", 0.9)}
    other = {"rte": _figures("rte", 0.6), "cb": _figures("cb", 0.8), "snli": _figures("snli", 0.1)}
    found = clusters.common([first, other])
    assert found["nli"].datasets == ("cb", "rte") and found["nli"].not_shared == ("snli",)
    assert found["nli"].count == f"2 of {len(clusters.members('nli'))}" and found["nli"].partial
    assert clusters.mean(other, found["nli"])["mean"] == pytest.approx(0.7)
    # A run without anything of a cluster takes nothing from the others.
    assert found["sentiment"].datasets == ("sst2",)
    assert clusters.mean(other, found["sentiment"]) is None
    # Nothing in common: no mean at all.
    (apart,) = clusters.common([{"rte": _figures("rte", 0.2)}, {"cb": _figures("cb", 0.2)}]).values()
    assert apart.datasets == () and clusters.mean(first, apart) is None


def test_only_the_same_metric_is_averaged():
    first = {"multirc": _figures("multirc", 0.2), "bool_q": _figures("bool_q", 0.4)}
    other = {"multirc": _figures("multirc", 0.6, metric="f1a"), "bool_q": _figures("bool_q", 0.8)}
    found = clusters.common([first, other])["reading_comprehension"]
    assert found.datasets == ("bool_q",) and found.other_metric == ("multirc",)


def test_what_some_dataset_lacks_has_no_mean():
    found = clusters.cluster_means(
        {"rte": _figures("rte", 0.2, best_dev=0.3), "cb": _figures("cb", 0.4, random=None, status=labels.SEEN)},
        ["snli"],
    )["nli"]
    assert found["best_dev"] is None and found["random"] is None and found["majority"] == 0.5
    assert found["status"] == labels.MIXED and found["left_out"] == ["snli"]


def test_datasets_that_the_catalog_does_not_know_are_apart():
    found = clusters.common([{"my_task": {"cluster": "other", "mean": 0.5}}])["other"]
    assert found.datasets == () and found.apart == ("my_task",)
