import importlib.metadata
import subprocess
import time

import jax
import pytest

import flan_jax
from flan_jax import catalog, content
from flan_jax.evaluation import provenance
from flan_jax.scoring.trees import Tree


@pytest.fixture(autouse=True)
def fresh():
    provenance.code_revision.cache_clear()
    provenance.versions.cache_clear()
    yield
    provenance.code_revision.cache_clear()


def test_a_run_says_where_it_comes_from():
    found = provenance.of_run(seed=3)
    assert found["seed"] == 3 and found["versions"]["flan-jax"] == flan_jax.__version__
    assert all(found["versions"][name] == importlib.metadata.version(name) for name in ("jax", "flax", "sacrebleu"))
    devices = jax.devices()
    assert (found["device"]["count"], found["device"]["kind"]) == (len(devices), devices[0].device_kind)


def _repository(folder, changed):
    def git(*arguments):
        own = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", "-C", str(folder), *own, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    package = folder / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("one\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    if changed:
        (package / "__init__.py").write_text("two\n")
    return package / "__init__.py", git("rev-parse", "HEAD")


@pytest.mark.parametrize("changed", [False, True])
def test_the_commit_of_the_code(tmp_path, monkeypatch, changed):
    file, commit = _repository(tmp_path, changed)
    monkeypatch.setattr(flan_jax, "__file__", str(file))
    assert provenance.code_revision() == commit + ("+changes" if changed else "")


@pytest.mark.parametrize("why", ["no repository", "no git", "another's repository"])
def test_without_a_commit_the_version_stands(tmp_path, monkeypatch, why):
    file = tmp_path / "site-packages" / "flan_jax" / "__init__.py"
    if why == "another's repository":
        _repository(tmp_path, changed=False)
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.setattr(flan_jax, "__file__", str(file))
    if why == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_revision() == f"flan-jax {flan_jax.__version__}"


def test_the_data_is_what_was_evaluated():
    rows = [{"hash": "a"}, {"hash": "b"}]
    found = provenance.of_data({"test": rows, "dev": ()})
    assert found == {"test": {"records": 2, "digest": content.digest(["a", "b"])}}
    assert provenance.of_data({"test": rows[:1]})["test"]["digest"] != found["test"]["digest"]


def test_wordings_and_keys_stand_beside_their_figures():
    record = catalog.dataset("rte")
    figures = {"mean": 0.5, "templates": [{"template": 3, "sum": 0.5}]}
    found = provenance.with_templates(figures, record.templates, {3: "k"})
    shown = {"input": record.templates[3].input, "target": record.templates[3].target}
    assert found["templates"] == [{"template": 3, "sum": 0.5, "key": "k"} | shown]
    assert "input" not in figures["templates"][0]


def test_costs():
    costs = provenance.Costs()
    with costs.over(["rte", "rte", "cb", "cb"]):
        time.sleep(0.02)
    costs.trees("rte", [Tree((1, 2), ((3,), (4, 5)), (0, 0), (1, 1), prefix=(9,))])
    costs.texts("cb", 7)
    costs.reused("cb")
    rte, cb, other = (costs.of(name) for name in ("rte", "cb", "sst2"))
    assert (rte["tokens"], rte["units"], rte["reused"]) == (6, 1, 0)
    assert (cb["tokens"], cb["units"], cb["reused"]) == (7, 1, 1)
    assert 0.01 <= rte["seconds"] == cb["seconds"] < 1 and other["seconds"] == other["tokens"] == 0
    assert rte["device"] == f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
