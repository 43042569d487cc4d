"""Streams of mixtures whose datasets stand in several styles, with weights."""

import collections
import dataclasses

import numpy as np
import pytest

from flan_jax import parts, styles
from flan_jax.data import token_store
from flan_jax.data.identity import Identities
from flan_jax.data.mixture_stream import composed, open_mixture
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError

BYTES = ByteTokenizer()
TWO = ("instructions", "5_shots")
SMALL = {"lengths": {"inputs": 180, "targets": 80}, "rows_per_batch": 4, "seed": 3}


def write(folder, name, style, count, first=0):
    """Examples whose first token tells the style and whose second the dataset."""
    rng = np.random.default_rng(first)
    mark = [60 + TWO.index(style), 100 + len(name)]
    rows = [([*mark, *rng.integers(3, 250, 7).tolist()], rng.integers(3, 250, 3).tolist()) for _ in range(count)]
    examples = [token_store.TokenizedExample(*row, 0, number) for number, row in enumerate(rows)]
    info = {"num_records": count, "renderings": 1, "vocab_size": BYTES.vocab_size, "style": style}
    records = Identities.of((str(first + number), {"text": f"{name} {first + number}"}) for number in range(count))
    where = token_store.folder_of(folder, BYTES.fingerprint, styles.parse(style))
    token_store.write_dataset(where / name, info, examples, records=records)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for style in TWO:
        for name, count in (("rte", 60), ("sst2", 200), ("bool_q", 120)):
            write(folder, name, style, count)
    return folder


def drawn(stream, steps=40):
    counts = collections.Counter()
    for step in range(steps):
        for row in range(stream.rows_per_batch):
            counts.update(segment.part for segment in stream.segments(step, row))
    return {name: count / counts.total() for name, count in counts.items()}


def test_parts_are_drawn_by_rate_and_share(prepared):
    mixture = parts.of("flan", styles={"instructions": 3, "5_shots": 1}, weights={"rte": 2.0, "bool_q:5_shots": 0})
    composition, stream = open_mixture(mixture, prepared, BYTES, **SMALL)
    assert stream.parts == (
        "rte:5_shots",
        "rte:instructions",
        "sst2:5_shots",
        "sst2:instructions",
        "bool_q:instructions",
    )
    assert composition.rates == dict(zip(stream.parts, (30.0, 90.0, 50.0, 150.0, 90.0), strict=True))
    shares = drawn(stream)
    for member in composition.members:
        assert shares[member.part] == pytest.approx(member.share, abs=0.025)
    assert composition.cluster_shares["nli"] == pytest.approx(120 / 410)
    table = [column.header for column in composition.table().columns]
    assert table[:5] == ["dataset", "style", "cluster", "examples", "rate"]


def test_each_part_has_the_tokens_of_its_own_style(prepared):
    _, stream = open_mixture(parts.of("flan", styles=TWO), prepared, BYTES, **SMALL)
    for segment in stream.segments(0, 0):
        inputs, _ = stream.tokens(segment)
        assert inputs[0] == 60 + TWO.index(segment.part.split(":")[1])
        assert inputs[1] == 100 + len(segment.dataset) and segment.dataset == parts.dataset_of(segment.part)
    batch = stream.batch(0)
    for b in range(4):
        marks = [int(t) for t, position in zip(batch["tokens"][b], batch["positions"][b], strict=True) if not position]
        names = [segment.part for segment in stream.segments(0, b)]
        assert marks[: len(names)] == [60 + TWO.index(name.split(":")[1]) for name in names]
        numbers = list(dict.fromkeys(batch["dataset_ids"][b][batch["weights"][b] > 0].tolist()))
        assert numbers == list(dict.fromkeys(stream.parts.index(name) for name in names))


def test_no_step_depends_on_another_and_hosts_share_rows(prepared):
    streams = [open_mixture(parts.of("flan", styles=TWO), prepared, BYTES, **SMALL)[1] for _ in range(2)]
    sequential = [streams[0].batch(step) for step in range(6)]
    for step in (4, 1, 5):
        for name, array in streams[1].batch(step, slice(2, 4)).items():
            np.testing.assert_array_equal(array, sequential[step][name][2:])


def test_loss_weights_are_on_target_tokens_alone(prepared):
    plain = open_mixture(parts.of("flan", styles=TWO), prepared, BYTES, **SMALL)[1].batch(2)
    weighted = parts.of("flan", styles=TWO, loss_weights={"sentiment": 0.5, "rte:5_shots": 3})
    composition, stream = open_mixture(weighted, prepared, BYTES, **SMALL)
    batch = stream.batch(2)
    wanted = [{"sst2": 0.5}.get(m.dataset, 3.0 if m.part == "rte:5_shots" else 1.0) for m in composition.members]
    np.testing.assert_array_equal(
        batch["weights"], plain["weights"] * np.array(wanted, np.float32)[plain["dataset_ids"]]
    )
    assert set(np.unique(batch["weights"])) == {0.0, 0.5, 1.0, 3.0}
    for name in plain.keys() - {"weights"}:
        np.testing.assert_array_equal(batch[name], plain[name])


def test_a_line_break_in_place_of_eos(prepared):
    plain = open_mixture("flan", prepared, BYTES, **SMALL)[1]
    _, stream = open_mixture(parts.of("flan", joints={"sentiment": "newline"}), prepared, BYTES, **SMALL)
    (line_break,) = BYTES.encode(["\n"])[0]
    tokens, other = plain.batch(1)["tokens"], stream.batch(1)["tokens"]
    places = {}
    for row in range(4):
        for segment in stream.segments(1, row):
            places[row, segment.start + len(stream.tokens(segment)[0])] = segment.dataset
    for (row, place), dataset in places.items():
        assert tokens[row, place] == BYTES.eos_id
        assert other[row, place] == (line_break if dataset == "sst2" else BYTES.eos_id)
    same = np.ones(tokens.shape, bool)
    same[tuple(np.array(list(places)).T)] = False
    np.testing.assert_array_equal(tokens[same], other[same])
    assert set(places.values()) == {"rte", "sst2", "bool_q"}
    with pytest.raises(FlanError, match="JOINTS: rte has 'newline', and this model has an encoder"):
        open_mixture(parts.of("flan", joints="newline"), prepared, BYTES, encoder_decoder=True, **SMALL)


class _Marked(ByteTokenizer):
    """Marks the beginning of each text, as some vocabularies of SentencePiece do."""

    def encode(self, texts):
        return [[99, *ids] for ids in super().encode(texts)]


def test_a_vocabulary_that_writes_an_answer_after_a_line_break_in_other_tokens(prepared):
    with pytest.raises(FlanError, match="writes an answer after a line break in other tokens than by itself"):
        open_mixture(parts.of("flan", joints="newline"), prepared, _Marked(), **SMALL)


@pytest.mark.parametrize("factor", [1e4, 1e-4, 1e6, 1e-6])
def test_weights_of_any_size(prepared, factor):
    composition, stream = open_mixture(parts.of("flan", weights={"rte": factor}), prepared, BYTES, **SMALL)
    share = 60 * factor / (60 * factor + 320)
    assert composition.members[0].share == pytest.approx(share)
    for step in (0, 1, 10**7):
        batch = stream.batch(step)
        assert (batch["segments"] > 0).mean() > 0.9 and np.isfinite(batch["weights"]).all()
    assert drawn(stream, 10).get("rte", 0.0) == pytest.approx(share, abs=0.01)


def test_a_dataset_that_is_prepared_in_some_of_its_styles_only(prepared, tmp_path):
    for style, names in (("instructions", ("rte", "sst2")), ("5_shots", ("rte",))):
        for name in names:
            write(tmp_path, name, style, 20)
    line = (
        r"dataset sst2 is prepared in instructions, and not in 5_shots. "
        rf"Run python -m flan_jax.prepare --datasets=sst2 --style=5_shots .*--to={tmp_path}"
    )
    with pytest.raises(FlanError, match=line):
        open_mixture(parts.of("flan", styles=TWO), tmp_path, BYTES, **SMALL)
    found, _ = open_mixture(parts.of("flan", styles=TWO, weights={"sst2:5_shots": 0}), tmp_path, BYTES, **SMALL)
    assert [m.part for m in found.members] == ["rte:5_shots", "rte:instructions", "sst2:instructions"]
    without, _ = open_mixture(parts.of("flan", styles=TWO, weights={"sentiment": 0}), tmp_path, BYTES, **SMALL)
    assert without.datasets == ("rte",) and "sst2" not in without.absent and "cb" in without.absent
    with pytest.raises(FlanError, match="and style no_template; run python -m flan_jax.prepare"):
        open_mixture(parts.of("flan", styles=("instructions", "no_template")), tmp_path, BYTES, **SMALL)
    weighted = parts.of("flan_without_nli", styles=TWO, weights={"sst2": 0})
    with pytest.raises(
        FlanError, match=r"prepare --mixture=flan_without_nli --style=5_shots,instructions --data=FOLDER .*--to="
    ):
        open_mixture(weighted, tmp_path, BYTES, **SMALL)
    own = parts.of({"parts": [{"of": "cb"}, {"of": "cb", "style": "5_shots"}]})
    with pytest.raises(FlanError, match="run python -m flan_jax.prepare --datasets=cb --style=5_shots,instructions"):
        open_mixture(own, tmp_path, BYTES, **SMALL)


def test_styles_that_were_prepared_from_other_records(tmp_path):
    write(tmp_path, "rte", "instructions", 20)
    write(tmp_path, "rte", "5_shots", 20, first=5)
    with pytest.raises(
        FlanError, match="dataset rte in .* has other records in instructions than in 5_shots: run .* --overwrite"
    ):
        composed(parts.of("rte", styles=TWO), tmp_path, BYTES.fingerprint)


def test_a_part_of_which_nothing_fits_is_named(prepared):
    short = SMALL | {"lengths": {"inputs": 4, "targets": 3}}
    with pytest.raises(FlanError, match="dataset rte:5_shots: no example of 60 fits"):
        open_mixture(parts.of("flan", styles=TWO), prepared, BYTES, **short)


def test_a_composition_of_parts_says_all(prepared):
    found = composed(parts.of("flan", styles=TWO, loss_weights={"rte": 2}), prepared, BYTES.fingerprint).composition
    first = dataclasses.asdict(found.members[0])
    assert first == {
        **{"part": "rte:5_shots", "dataset": "rte", "style": "5_shots", "cluster": "nli", "examples": 60, "rate": 30},
        **{"share": 30 / 380, "loss_weight": 2.0, "joint": "eos", "draws": None, "epochs": None},
    }


def records_of(stream, steps=30):
    """What was drawn, by part: the ids of records."""
    found = collections.defaultdict(set)
    for step in range(steps):
        for row in range(stream.rows_per_batch):
            for segment in stream.segments(step, row):
                found[segment.part].add(stream.record_id(segment))
    return found


def test_so_many_records_of_a_dataset_alone_are_drawn(prepared, tmp_path):
    mixture = parts.of("flan", styles=TWO, weights={"bool_q": 0}, rates={"examples": 8})
    composition, stream = open_mixture(mixture, prepared, BYTES, **SMALL)
    found = records_of(stream)
    assert {len(ids) for ids in found.values()} == {8} and {m.examples for m in composition.members} == {8}
    assert found["rte:5_shots"] == found["rte:instructions"]  # of equal records, in all styles
    assert set(composition.rates.values()) == {4.0} and mixture.recipe["rates"] == {"examples": 8}
    # Whatever the seed, and wherever the records stand in a file.
    assert records_of(open_mixture(mixture, prepared, BYTES, **SMALL | {"seed": 4})[1]) == found
    for style in TWO:
        for name, first in (("rte", 60), ("sst2", 200)):
            count, half = first, first // 2
            write(tmp_path, name, style, count)
            shifted = [*range(half, count), *range(half)]
            records = Identities.of((str(number), {"text": f"{name} {number}"}) for number in shifted)
            where = token_store.folder_of(tmp_path, BYTES.fingerprint, styles.parse(style)) / name
            examples = [token_store.TokenizedExample([5, 6], [7], 0, number) for number in range(count)]
            info = {"num_records": count, "renderings": 1, "vocab_size": BYTES.vocab_size, "style": style}
            token_store.write_dataset(where, info, examples, records=records)
    assert records_of(open_mixture(mixture, tmp_path, BYTES, **SMALL)[1]) == found
    every = open_mixture(parts.of("flan", weights={"bool_q": 0}, rates={"examples": 999}), prepared, BYTES, **SMALL)[0]
    assert [m.examples for m in every.members] == [60, 200]


def test_records_that_nobody_knows_cannot_be_chosen_among(tmp_path):
    info = {"num_records": 2, "renderings": 1, "vocab_size": BYTES.vocab_size}
    examples = [token_store.TokenizedExample([5, 6], [7], 0, number) for number in range(2)]
    token_store.write_dataset(token_store.folder_of(tmp_path, BYTES.fingerprint) / "rte", info, examples)
    with pytest.raises(FlanError, match="does not say what its records are"):
        open_mixture(parts.of("flan_rte", rates={"examples": 1}), tmp_path, BYTES, **SMALL)
