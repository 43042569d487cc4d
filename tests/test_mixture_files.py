"""The file of a mixture, in the commands that take one."""

import json

import numpy as np
import pytest

from flan_jax import browse, styles
from flan_jax.data import token_store
from flan_jax.data.identity import Identities
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.overlap import audited
from flan_jax.overlap.given import Places

BYTES = ByteTokenizer()
RECIPE = {"mixture": "flan", "styles": {"instructions": 3, "5_shots": 1}, "weights": {"nli": 0, "rte": 2}}


@pytest.fixture
def prepared(tmp_path):
    """rte in two styles, of which one alone shows the words of an exemplar."""
    for style, words in (
        ("instructions", "a plain question"),
        ("5_shots", "one two three four five six seven before it"),
    ):
        rng = np.random.default_rng(0)
        texts = [f"{words} {' '.join(rng.choice(['calm', 'grey'], 9))}" for _ in range(12)]
        examples = [token_store.TokenizedExample(*BYTES.encode([text, "yes"]), 0, n) for n, text in enumerate(texts)]
        info = {"num_records": 12, "renderings": 1, "vocab_size": BYTES.vocab_size}
        records = Identities.of((str(n), {"text": f"record {n} of a dataset"}) for n in range(12))
        where = token_store.folder_of(tmp_path / "prepared", BYTES.fingerprint, styles.parse(style))
        token_store.write_dataset(where / "rte", info, examples, records=records)
    (tmp_path / "mine.json").write_text(json.dumps(RECIPE))
    return tmp_path


def test_browse_shows_its_parts(prepared, capsys):
    browse.main([f"--mixture={prepared}/mine.json", f"--prepared={prepared}/prepared", "--steps=10", "--json"])
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found["mixture"] == "flan with STYLES, WEIGHTS"
    shown = [(one["part"], one["style"], one["examples"], one["rate"], one["share"]) for one in found["members"]]
    assert shown == [("rte:5_shots", "5_shots", 12, 6, 0.25), ("rte:instructions", "instructions", 12, 18, 0.75)]
    assert any(line.split()[:6] == ["rte", "5_shots", "nli", "12", "6", "25.00%"] for line in table)
    browse.main([f"--mixture={prepared}/mine.json", f"--prepared={prepared}/prepared", "--row=0"])
    assert "rte:instructions" in capsys.readouterr().out


@pytest.mark.parametrize("tuned", ["mine.json", json.dumps(RECIPE)])
def test_audit_compares_the_text_of_all_its_styles(prepared, tuned):
    line = {
        "premise": "he said one two three four five six seven before it was over",
        "hypothesis": "it was",
        "label": 0,
    }
    (prepared / "mine.jsonl").write_text(json.dumps(line) + "\n")
    tuned = str(prepared / tuned) if tuned.endswith(".json") else tuned
    places = Places(prepared=str(prepared / "prepared"))
    (row,) = audited.audit([tuned], [str(prepared / "mine.jsonl")], places, n=8)["rows"]
    assert row["ngram"] == 1  # which stands in one style alone
    assert "cb is not in" not in row["reason"] and "sst2 is not in" in row["reason"]


def test_audit_names_a_mistake_in_it(prepared):
    (prepared / "wrong.json").write_text(json.dumps(RECIPE | {"weights": {"rtee": 1}}))
    (prepared / "mine.jsonl").write_text('{"text": "one two three four five six"}\n')
    with pytest.raises(FlanError, match="did you mean 'rte'"):
        audited.audit(
            [str(prepared / "wrong.json")],
            [str(prepared / "mine.jsonl")],
            Places(prepared=str(prepared / "prepared")),
        )
