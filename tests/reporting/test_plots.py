import xml.etree.ElementTree as ElementTree

import pytest

from flan_jax import reporting
from flan_jax.errors import FlanError
from flan_jax.reporting import plots
from flan_jax.reporting.plots import Plot


def test_a_plot_is_found_by_its_file(make_run, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from matplotlib import pyplot as plt\n"
        "from flan_jax.reporting.plots import Plot\n"
        "def draw(runs, evidence):\n"
        "    figure, axes = plt.subplots()\n"
        "    axes.set_title('of my own')\n"
        "    return figure\n"
        "PLOT = Plot('mine', 'Mine', 25, 'my plot', draw)\n"
    )
    monkeypatch.setattr(plots, "__path__", [*plots.__path__, str(tmp_path)])
    plots.plots.cache_clear()
    try:
        assert [p.section for p in plots.plots()] == ["clusters", "mine", "spread", "differences", "calibration"]
        run = make_run("tuned", {"rte": 1.0})
        page = reporting.page([run], reporting.gather([run]))
        assert '<h2 id="mine">Mine</h2>' in page and page.index('id="clusters"') < page.index('id="mine"')
        (tmp_path / "broken.py").write_text("PLOT = 3\n")
        plots.plots.cache_clear()
        with pytest.raises(FlanError, match=r"plots/broken\.py must define PLOT"):
            plots.plots()
    finally:
        plots.plots.cache_clear()


def test_plots_with_nothing_to_show_are_left_out(make_run):
    run = make_run("tuned", {"wsc": 1.0})  # an extra alone: no cluster, no difference
    found = reporting.gather([run])
    drawn = {p.section: p.svg([run], found) for p in plots.plots()}
    assert drawn["clusters"] is None and drawn["differences"] is None
    for svg in filter(None, drawn.values()):
        ElementTree.fromstring(svg)
    assert 'id="clusters"' not in reporting.page([run], found)


def test_plots_say_what_was_held_out(make_run):
    held, seen = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0}, status="seen")
    found = reporting.gather([held, seen])
    bars = next(p for p in plots.plots() if p.section == "clusters").svg([held, seen], found).decode()
    assert f"{100 * held.figures('rte')['mean']:.1f} held out" in bars
    assert f"{100 * seen.figures('rte')['mean']:.1f} seen" in bars
    assert isinstance(plots.plots()[0], Plot)
