"""Prompts that were kept are those that would be rendered; what is stale, damaged or not writable changes nothing."""

import dataclasses
import json
import multiprocessing
import os
import subprocess

import jax
import pytest
from tokenizers_by_kind import CUT, WHOLE

from flan_jax import catalog, configuration, models, styles, ways
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.line_tokens import LineTokenizer
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, prompt_store, ranking, units
from flan_jax.evaluation.prompt_store import PromptStore, read_records
from flan_jax.scoring import scorer as scoring
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import Tree

BYTES = ByteTokenizer()
ROOM = scoring.ROW_LENGTHS[-1]
STYLES = ("instructions", "no_template", "dataset_name", "gpt3", "without_options", "shuffled_options", "2_templates")
STYLES += ("3_shots", "3_shared_shots", "gpt3_3_shots", "gpt3_3_shared_shots", "shuffled_options_2_templates_2_shots")


def rte(number, **changed):
    words = ["Ann", "Bo", "Cy", "Di"]
    premise = f"{words[number % 4]} has {number} cats.\nThey are 'll-fed,\r\n\n5 of them black."
    fields = {"premise": premise, "hypothesis": f"{words[number % 3]} has a cat.", "relation": "fits"}
    return fields | {"options": ["yes", "no"], "answer": ["yes", "no"][number % 2]} | changed


ROWS = {
    "test": [rte(n) for n in range(6)]
    + [rte(6, premise="A very long story. " * 90), rte(7, options=["yes", ""], answer="yes"), rte(8, premise="")],
    "dev": [rte(n) for n in range(20, 23)],
    "exemplars": [rte(n) for n in range(30, 45)] + [rte(0)],
}


def write(folder, rows=ROWS, dataset="rte"):
    numbered = {split: [(f"{split}-{n}", fields) for n, fields in enumerate(found)] for split, found in rows.items()}
    example_files.write_folder(folder / "examples" / dataset, numbered)
    return folder


def make_units(folder, tokenizer, style="instructions", dataset="rte", limit=None, seed=0, max_examples=None):
    asked = evaluator.Settings(style=style, max_input_tokens=limit).protocol_of(catalog.dataset(dataset))
    records = read_records(folder, asked, tokenizer, max_examples, None, seed)
    return [
        units.Unit.create(records.builder, split, number, rows, folder, ())
        for split, rows in records.splits
        for number in asked.forward[:2]
    ]


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path)


def quiet(line):
    raise AssertionError(line)


# ------------------------------------------------------------------------------------------ the same to the last bit


def assert_kept(folder, tokenizer, joint, names=("pmi", "channel"), **how):
    """What is rendered from text by the vocabulary itself, by lines, and read again."""
    by_hand = [
        ranking.render(tokenizer, unit, joint, ROOM, ways.readings(names))
        for unit in make_units(folder, tokenizer, **how)
    ]
    by_lines = LineTokenizer(tokenizer)
    for made in (len(by_hand), 0):
        store = PromptStore(folder, by_lines, quiet)
        found = [store.rendered(unit, joint, ROOM, names) for unit in make_units(folder, by_lines, **how)]
        assert (store.made, store.read) == (made, len(by_hand) - made)
        for one, wanted in zip(found, by_hand, strict=True):
            kept = [field.name for field in dataclasses.fields(one) if field.name != "unit"]
            assert [getattr(one, name) for name in kept] == [getattr(wanted, name) for name in kept]
            assert json.dumps(one.lines) == json.dumps(wanted.lines)  # types too
            assert all(type(tree) is Tree and type(tree.trunk) is tuple for tree in one.trees)
    return by_hand


@pytest.mark.parametrize("joint", ["eos", "newline", "space", "joined"])
@pytest.mark.parametrize("style", STYLES)
def test_every_style_and_joint(folder, style, joint):
    tokenizer = CUT["gpt2_digits"]()
    test, *_ = assert_kept(folder, tokenizer, joint, style=style, limit=400)
    if joint != "eos" and not style.startswith("gpt3"):  # which has words of its own
        assert test.left  # an option that has no tokens
    assert any(line["cut_tokens"] for line in test.lines)
    if styles.parse(style).shots:
        assert any(line["shots"] for line in test.lines)
    if styles.parse(style).shared:
        assert any(tree.prefix for tree in test.trees)


@pytest.mark.parametrize("kind", [*CUT, "unigram", "metaspace"])
def test_every_vocabulary(folder, kind):
    """Unigram vocabularies are those of encoder-decoders, which always have EOS."""
    tokenizer = (CUT | WHOLE)[kind]()
    for style in ("instructions", "2_shared_shots"):
        assert_kept(folder, tokenizer, "eos", style=style)
    assert_kept(folder, tokenizer, "newline", style="2_shots")


def test_a_beginning_of_sequence(folder):
    tokenizer = CUT["gpt2"]()
    tokenizer.bos_id = tokenizer.eos_id
    first, *_ = assert_kept(folder, tokenizer, "eos", limit=300)
    assert first.trees[0].trunk[0] == tokenizer.eos_id


@pytest.mark.parametrize(("limit", "room"), [(60, ROOM), (None, 100), (None, 700)])
def test_examples_that_are_left_out(folder, limit, room):
    (unit, *_) = make_units(folder, BYTES, style="2_shots", limit=limit)
    wanted = ranking.render(BYTES, unit, "newline", room)
    assert wanted.left
    for _ in range(2):
        found = PromptStore(folder, LineTokenizer(BYTES), quiet).rendered(unit, "newline", room)
        assert (found.lines, found.trees, found.left) == (wanted.lines, wanted.trees, wanted.left)


# -------------------------------------------------------------------------------------------------- stale and damaged


def fill(folder, joint="newline", tokenizer=BYTES, **how):
    for unit in make_units(folder, tokenizer, **how):
        PromptStore(folder, tokenizer, quiet).rendered(unit, joint, ROOM)


def counted(folder, joint="newline", tokenizer=BYTES, room=ROOM, names=(), **how):
    """(units that are read, lines that are said) after each is compared with what is rendered from text."""
    said = []
    store = PromptStore(folder, tokenizer, said.append)
    for unit in make_units(folder, tokenizer, **how):
        found, wanted = (
            store.rendered(unit, joint, room, names),
            ranking.render(tokenizer, unit, joint, room, ways.readings(names)),
        )
        assert (found.lines, found.trees, found.left) == (wanted.lines, wanted.trees, wanted.left)
    return store.read, said


def test_what_is_kept_is_read(folder):
    fill(folder)
    assert counted(folder) == (4, [])


@pytest.mark.parametrize(
    "other",
    [
        {"joint": "eos"},
        {"joint": "space"},
        {"limit": 200},
        {"room": 1_000},
        {"names": ("pmi",)},
        {"names": ("channel",)},
        {"style": "without_options"},
        {"seed": 1, "style": "shuffled_options"},
        {"max_examples": 3},
        {"tokenizer": CUT["gpt2"]()},
        {"tokenizer": ByteTokenizer(stop_ids=(5,))},
    ],
    ids=lambda other: ",".join(map(str, other)) if "tokenizer" not in other else other["tokenizer"].kind,
)
def test_what_a_user_chooses_otherwise_is_kept_beside_it(folder, other):
    style = "shuffled_options" if "seed" in other else "instructions"
    fill(folder, style=style)
    read = 4 if "tokenizer" in other and other["tokenizer"].kind == "bytes" else 0  # where an answer ends is no text
    if "max_examples" in other:
        read = 2  # dev is the same
    assert counted(folder, **other) == (read, [])
    assert counted(folder, **other) == (4, [])
    assert counted(folder, style=style) == (4, [])


@pytest.mark.parametrize("style", ["instructions", "2_shots"])
@pytest.mark.parametrize("split", ["test", "exemplars"])
def test_other_records_of_the_same_number(folder, style, split):
    fill(folder, style=style)
    changed = dict(ROWS) | {split: [*ROWS[split][:-1], rte(99)]}
    write(folder, changed)
    read, said = counted(folder, style=style)
    kept = {("instructions", "test"): 2, ("2_shots", "test"): 2, ("instructions", "exemplars"): 4}
    assert read == kept.get((style, split), 0)
    assert len(said) == (read < 4) and all("of other records" in line for line in said)  # said once, not for each
    assert counted(folder, style=style) == (4, [])


def test_another_order_of_records(folder):
    fill(folder)
    write(folder, ROWS | {"test": ROWS["test"][::-1]})
    assert counted(folder)[0] == 2


def test_another_template_or_version(folder, monkeypatch):
    fill(folder)
    record = catalog.dataset("rte")
    first, *rest = record.templates
    reworded = dataclasses.replace(first, input=first.input + " Please.")
    asked = evaluator.Settings().protocol_of(record)
    other = dataclasses.replace(asked, templates=(reworded, *rest))
    with monkeypatch.context() as patch:
        patch.setattr(evaluator.Settings, "protocol_of", lambda *_: other)
        read, _ = counted(folder)
        assert 0 < read < 4  # those of the other templates stay
        assert counted(folder) == (4, [])
    for name, value in (("VERSION", 99), ("_LIBRARIES", ("tokenizers",))):
        with monkeypatch.context() as patch:
            patch.setattr(prompt_store, name, value)
            assert counted(folder)[0] == 0
            assert counted(folder) == (4, [])


def files(folder):
    return sorted((folder / "trees").rglob("*.trees"))


DAMAGES = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[:-1],
    "half": lambda whole: whole[: len(whole) // 2],
    "flipped": lambda whole: whole[:-40] + bytes([whole[-40] ^ 4]) + whole[-39:],
    "flipped in the key": lambda whole: whole[:90] + bytes([whole[90] ^ 1]) + whole[91:],
    "longer": lambda whole: whole + whole[-4:],
    "text": lambda whole: b"{}\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_never_taken(folder, damage):
    fill(folder)
    for path in files(folder)[:2]:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    read, said = counted(folder)
    assert read == 2 and len(said) == 1 and "damaged" in said[0] and "\n" not in said[0]
    assert counted(folder) == (4, [])


def test_a_file_of_another_unit_in_its_place(folder):
    fill(folder)
    first, second, *_ = files(folder)
    second.write_bytes(first.read_bytes())
    assert counted(folder)[0] == 3


def test_a_folder_in_the_place_of_a_file(folder):
    fill(folder)
    path = files(folder)[0]
    path.unlink()
    path.mkdir()
    read, said = counted(folder)
    assert read == 3 and len(said) == 2 and "cannot be read" in said[0] and "are not kept" in said[1]


# -------------------------------------------------------------------------------------------------------- many writers


def _fill_often(folder, started):
    started.wait()
    for _ in range(15):
        for path in files(folder):
            path.unlink(missing_ok=True)
        fill(folder)


def test_two_processes_at_once(folder):
    """Each finds nothing, whole files of the other, or its own; never a part."""
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    workers = [context.Process(target=_fill_often, args=(folder, started)) for _ in range(2)]
    for worker in workers:
        worker.start()
    started.set()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert counted(folder) == (4, [])
    assert {path.suffix for path in (folder / "trees").rglob("*") if path.is_file()} == {".trees"}


def test_a_disk_that_takes_nothing_and_one_that_is_full(read_only_disk, make_disk):
    subprocess.run(["mount", "-o", "remount,rw", str(read_only_disk)], check=True)
    write(read_only_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(read_only_disk)], check=True)
    read, said = counted(read_only_disk)
    assert read == 0 and len(said) == 1 and "not kept" in said[0] and "\n" not in said[0]

    full = write(make_disk(64, "full"))
    rest = os.statvfs(full)
    (full / "rest").write_bytes(b"\0" * (rest.f_bavail * rest.f_bsize - 4096))
    read, said = counted(full, style="3_shots")
    assert read == 0 and len(said) == 1 and "no space left" in said[0]
    assert not list((full / "trees").rglob("*.trees"))


def test_preparing_says_what_it_cannot_write(read_only_disk):
    subprocess.run(["mount", "-o", "remount,rw", str(read_only_disk)], check=True)
    write(read_only_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(read_only_disk)], check=True)
    asked = evaluator.Settings().protocol_of(catalog.dataset("rte"))
    with pytest.raises(FlanError, match="cannot write"):
        prompt_store.prepare(read_only_disk, asked, BYTES, "eos", ROOM)


# ------------------------------------------------------------------------------------------------------ an evaluation

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
)


@pytest.fixture(scope="module")
def scorer():
    model = models.build(CONFIG)
    return Scorer(model, jax.jit(model.init)(jax.random.key(0)), row_lengths=(1024,))


@pytest.mark.parametrize("style", ["instructions", "2_shared_shots"])
def test_an_evaluation_of_prepared_prompts_tokenizes_none(scorer, folder, tmp_path, style, monkeypatch):
    rows = ROWS | {"test": ROWS["test"][:2]}
    write(folder, rows)
    manifest = Manifest.create(CONFIG, BYTES, UNTUNED, [])
    settings = evaluator.Settings(style=style, max_dev_examples=2)
    chosen = evaluator.select(["rte"])

    def evaluate(prepared, output):
        evaluator.evaluate(scorer, BYTES, manifest, "m", chosen, prepared, output, settings)
        return {p.name: p.read_text() for p in (output / "predictions" / "rte").iterdir()}

    asked = settings.protocol_of(chosen[0])
    joint = asked.joint(manifest.separator, False)
    figures = prompt_store.prepare(folder, asked, LineTokenizer(BYTES), joint, scorer.max_length, max_dev_examples=2)
    assert (figures["units"], figures["kept"]) == (2 * len(asked.forward), 0)
    again = prompt_store.prepare(folder, asked, LineTokenizer(BYTES), joint, scorer.max_length, max_dev_examples=2)
    assert again == figures | {"kept": figures["units"]}
    apart = write(tmp_path / "apart", rows)
    wanted = evaluate(apart, tmp_path / "out_apart")
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "render", None)
        assert evaluate(folder, tmp_path / "out") == wanted
        assert evaluate(apart, tmp_path / "out_again") == wanted  # the first evaluation has kept its own
