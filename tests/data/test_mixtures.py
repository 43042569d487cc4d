import dataclasses
import io
import json

import pytest
from rich.console import Console

from flan_jax import catalog
from flan_jax.data import mixtures
from flan_jax.errors import FlanError


def sizes(mixture, default=30_000, **more):
    return {d.name: default for d in catalog.mixture(mixture)} | more


def test_rates_and_shares_are_the_papers():
    found = mixtures.composition("flan_without_nli", sizes("flan_without_nli", copa=352, wsc273=0))
    by_name = {m.dataset: m for m in found.members}
    assert (by_name["copa"].examples, by_name["copa"].rate) == (352, 352)
    assert (by_name["piqa"].examples, by_name["piqa"].rate) == (30_000, 3_000)
    total = sum(m.rate for m in found.members)
    for m in found.members:
        assert m.share == pytest.approx(m.rate / total)
        assert m.rate == min(m.examples, 3_000) == found.rates[m.dataset]
        assert (m.draws, m.epochs) == (None, None)
    assert sum(m.share for m in found.members) == pytest.approx(1)
    assert not {m.cluster for m in found.members} & {"nli", "paraphrase"}


def test_draws_and_epochs_of_a_run():
    found = mixtures.composition("flan_without_nli", sizes("flan_without_nli", copa=300)).over(1e6)
    assert sum(m.draws for m in found.members) == pytest.approx(1e6)
    by_name = {m.dataset: m for m in found.members}
    assert by_name["piqa"].draws == pytest.approx(10 * by_name["copa"].draws)
    assert by_name["copa"].epochs == pytest.approx(by_name["copa"].draws / 300)
    assert by_name["piqa"].epochs == pytest.approx(by_name["piqa"].draws / 30_000)


def test_what_is_not_there_is_named_and_takes_no_share():
    found = mixtures.composition("flan", {"rte": 100, "copa": 300, "sst2": 0})
    assert [(m.dataset, m.share) for m in found.members] == [("rte", 0.25), ("copa", 0.75)]
    assert len(found.absent) == len(catalog.mixture("flan")) - 2
    assert "sst2" in found.absent
    with pytest.raises(FlanError, match="no dataset of its"):
        mixtures.composition("flan", {})


def test_cluster_shares():
    found = mixtures.composition("flan", {"rte": 100, "cb": 100, "copa": 200})
    assert found.cluster_shares == {"nli": pytest.approx(0.5), "commonsense": pytest.approx(0.5)}


def test_a_style_keeps_the_members():
    plain = mixtures.composition("flan_without_nli", sizes("flan_without_nli"))
    styled = mixtures.composition("flan_without_nli_no_template", sizes("flan_without_nli"))
    assert [dataclasses.replace(m, style="instructions") for m in styled.members] == list(plain.members)
    assert styled.mixture == "flan_without_nli_no_template"


@pytest.mark.parametrize("name", catalog.mixture_names())
def test_every_mixture_prints_as_a_table_and_as_json(name):
    found = mixtures.composition(name, sizes(name)).over(10_000)
    output = io.StringIO()
    Console(file=output, width=200).print(found.table())
    text = output.getvalue()
    for m in found.members:
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [m.dataset]]
        assert f"{m.examples:,}" in line and f"{m.share:.2%}" in line and f"{m.epochs:.2f}" in line
    assert f"{len(found.members)} datasets" in text
    values = json.loads(json.dumps(found.to_dict()))
    assert values["mixture"] == name
    assert [m["dataset"] for m in values["members"]] == [d.name for d in catalog.mixture(name)]
