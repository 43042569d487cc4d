import json
import subprocess
import sys

import pytest

from flan_jax.checkpoint import choosing
from flan_jax.checkpoint.manifest import TUNED, Manifest


@pytest.mark.slow
def test_end_to_end(tmp_path, one_device):
    """As a user runs it: in an empty working folder, with the bundled samples."""
    command = [sys.executable, "-m", "flan_jax.quickstart", "--model=tiny", "--steps=2", "--max_examples=2", "--json"]
    # Rows of 1,280 slots take longer to run than to compile.
    environment = one_device | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(done.stdout.strip().split("\n")[-1])
    to = tmp_path / "runs" / "quickstart"
    assert results == json.loads((to / "eval_after" / "results.json").read_text())
    assert set(results["clusters"]) == {"nli"} and "rte" in results["datasets"]
    assert {figures["label"] for figures in results["datasets"].values()} == {"zero-shot, held out"}

    tuned = Manifest.load(to / "tuned")
    assert choosing.latest_step(to / "tuned") == 2
    assert tuned.tuning["status"] == TUNED
    assert not {"nli", "paraphrase"} & tuned.trained_clusters and "sentiment" in tuned.trained_clusters

    page = (to / "eval_after" / "report.html").read_text("utf-8")
    assert "before" in page and "after" in page and "rte" in page
    assert f"{to.relative_to(tmp_path) / 'eval_after' / 'report.html'}" in done.stdout
