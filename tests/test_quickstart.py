import json
import os
import subprocess
import sys

import pytest

from flan_jax.checkpoint import choosing
from flan_jax.checkpoint.manifest import TUNED, Manifest


@pytest.mark.slow
def test_end_to_end(tmp_path):
    """As a user runs it: in an empty working folder, with the bundled samples."""
    command = [sys.executable, "-m", "flan_jax.quickstart", "--model=tiny", "--steps=2", "--max_examples=2", "--json"]
    # Rows take longer to run than to compile. A user's machine has one CPU device.
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(done.stdout.strip().split("\n")[-1])
    to = tmp_path / "runs" / "quickstart"
    study = to / "held_out_clusters"
    assert results == json.loads((study / "study.json").read_text())
    gain = results["clusters"]["structure_to_text"]["gain"]
    assert gain["examples"] == 2 and gain["verdict"] == "n < 50" and gain["interval"] is None

    (tuned,) = (to / "tuned").iterdir()
    manifest = Manifest.load(tuned)
    assert choosing.latest_step(tuned) == 2
    assert manifest.tuning["status"] == TUNED
    assert "structure_to_text" not in manifest.trained_clusters and "nli" in manifest.trained_clusters

    page = (study / "study.html").read_text("utf-8")
    assert "untuned" in page and "common_gen" in page and "data:image/svg+xml" in page
    assert (study / "gains.png").read_bytes().startswith(b"\x89PNG")
    assert "held_out_clusters/study.html" in done.stdout
