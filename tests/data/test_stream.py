import collections
import itertools
import threading
import time

import numpy as np
import pytest

from flan_jax.data import token_store
from flan_jax.data.stream import Stream, prefetch
from flan_jax.data.token_store import TokenizedExample, TokenStore
from flan_jax.errors import FlanError

FINGERPRINT = "ab" * 32
EOS, BOS = 1, 2
RATES = {"rte": 1.0, "snli": 4.0, "squad_v1": 2.0}


def write(folder, name, lengths, renderings=1, low=0, high=300, seed=0):
    """Writes random examples; `lengths(rng)` gives (tokens of the input, tokens of the target)."""
    rng = np.random.default_rng(seed)
    records, lengths = lengths
    examples = []
    for _ in range(renderings):
        for record in range(records):
            parts = (rng.integers(low, high, n).tolist() for n in lengths(rng))
            examples.append(TokenizedExample(*parts, int(rng.integers(10)), record))
    info = {"num_records": records, "renderings": renderings, "vocab_size": high}
    token_store.write_dataset(token_store.folder_of(folder, FINGERPRINT) / name, info, examples)


def uniform(longest, longest_target):
    return lambda rng: (int(rng.integers(1, longest + 1)), int(rng.integers(1, longest_target + 1)))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """rte is small with four renderings, and some of squad_v1 fits no row of 64 slots with 16 target slots."""
    folder = tmp_path_factory.mktemp("prepared")
    write(folder, "rte", (12, uniform(20, 2)), renderings=4)
    write(folder, "snli", (900, uniform(12, 3)), seed=1)
    write(folder, "squad_v1", (300, uniform(70, 18)), seed=2)
    write(folder, "zeros", (40, uniform(9, 5)), high=1)
    return TokenStore.open(folder, FINGERPRINT)


def small(store, rates=None, seed=0, bos_id=None, **more):
    arguments = {"row_length": 64, "target_length": 16, "rows_per_batch": 4, "block_rows": 32} | more
    return Stream(store, RATES if rates is None else rates, seed=seed, bos_id=bos_id, eos_id=EOS, **arguments)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def differ(a, b):
    return any(not np.array_equal(a[name], b[name]) for name in a)


# --------------------------------------------------------------------------------------------------- random access


@pytest.mark.parametrize("rows_per_batch", [1, 4, 5])  # 5 does not divide the block of 32 rows
def test_random_access_equals_sequential(store, rows_per_batch):
    sequential = [small(store, rows_per_batch=rows_per_batch).batch(step) for step in range(30)]
    assert all(differ(a, b) for a, b in itertools.pairwise(sequential))
    stream = small(store, rows_per_batch=rows_per_batch)
    for step in np.random.default_rng(0).permutation(30):
        assert_same(stream.batch(int(step)), sequential[step])


def test_batch_is_not_shared(store):
    stream = small(store)
    first = stream.batch(3)
    expected = {name: value.copy() for name, value in first.items()}
    for value in first.values():
        value[...] = 7
    assert_same(stream.batch(3), expected)


@pytest.mark.parametrize("step", [10**6, 10**7, 10**10])
def test_huge_steps(store, step):
    batch = small(store).batch(step)
    assert_same(batch, small(store).batch(step))
    assert differ(batch, small(store).batch(step + 1))
    assert (batch["segments"] > 0).any(axis=1).all()


def test_a_huge_step_costs_as_much_as_the_first(store):
    def seconds(step):
        times = []
        for attempt in range(5):
            stream = small(store)
            start = time.process_time()  # of the processor, whatever else the machine does
            stream.batch(step + attempt)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(10**10) < 4 * seconds(1) + 0.01


def test_seed(store):
    assert_same(small(store, seed=5).batch(2), small(store, seed=5).batch(2))
    assert differ(small(store, seed=5).batch(2), small(store, seed=6).batch(2))


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_the_global_batch(store, hosts):
    streams = [small(store) for _ in range(hosts)]
    share = 4 // hosts
    for step in (0, 7, 8, 10**7):
        whole = small(store).batch(step)
        parts = [s.batch(step, slice(h * share, (h + 1) * share)) for h, s in enumerate(streams)]
        assert_same({name: np.concatenate([p[name] for p in parts]) for name in whole}, whole)


# --------------------------------------------------------------------------------------- what is written in a batch


def unpacked(stream, batch, bos_id):
    """(dataset, inputs, targets) of every segment, row by row, from a batch's arrays alone; every slot is checked."""
    rows = []
    for b in range(len(batch["tokens"])):
        tokens, positions, segments = (batch[name][b] for name in ("tokens", "positions", "segments"))
        weights, at, targets = (batch[name][b] for name in ("weights", "target_positions", "targets"))
        count = segments.max()
        used, used_targets = (segments > 0).sum(), int(weights.sum())
        assert (segments[:used] > 0).all() and (np.diff(segments[:used]) >= 0).all()
        assert (weights[:used_targets] == 1).all() and (weights[used_targets:] == 0).all()
        row = []
        for s in range(1, count + 1):
            (slots,) = np.nonzero(segments == s)
            segment = tokens[slots]
            np.testing.assert_array_equal(positions[slots], np.arange(len(slots)))
            (mine,) = np.nonzero((weights == 1) & (segments[at] == s))
            n = len(mine)
            np.testing.assert_array_equal(mine, np.arange(mine[0], mine[0] + n))
            np.testing.assert_array_equal(at[mine], slots[-n - 1 : -1])  # the slot before each target predicts it
            np.testing.assert_array_equal(targets[mine], segment[-n:])
            assert len(set(batch["dataset_ids"][b][mine])) == 1
            assert segment[-1] == EOS and segment[-n - 1] == EOS
            start = 0 if bos_id is None else 1
            assert start == 0 or segment[0] == bos_id
            name = stream.parts[batch["dataset_ids"][b][mine[0]]]
            row.append((name, tuple(segment[start : -n - 1]), tuple(segment[-n:-1])))
        rows.append(row)
    return rows


@pytest.mark.parametrize("bos_id", [None, BOS])
@pytest.mark.parametrize("rates", [RATES, {"zeros": 1.0, "rte": 0.5}, {"squad_v1": 1.0}])
def test_batches_hold_the_examples(store, rates, bos_id):
    stream = small(store, rates, bos_id=bos_id)
    assert stream.parts == tuple(rates)
    for step in (0, 1, 7, 8, 1000):
        batch = stream.batch(step)
        for name, value in batch.items():
            narrow = name in ("targets", "target_positions", "dataset_ids", "weights")
            assert value.shape == (4, 16 if narrow else 64)
            assert value.dtype == (np.float32 if name == "weights" else np.int32)
        for row, members in enumerate(unpacked(stream, batch, bos_id)):
            segments = stream.segments(step, row)
            assert len(segments) == len(members) > 0
            start = 0
            for segment, (name, inputs, targets) in zip(segments, members, strict=True):
                expected = store[segment.dataset].example(segment.example)
                assert name == segment.dataset
                assert (list(inputs), list(targets)) == (expected[0].tolist(), expected[1].tolist())
                entry = store[segment.dataset].index[segment.example]
                assert (segment.record, segment.template) == (entry["record"], entry["template"])
                assert segment.start == start
                assert segment.length == len(inputs) + len(targets) + 2 + (bos_id is not None)
                start += segment.length


def test_id_0_is_a_token(store):
    batch = small(store, {"zeros": 1.0}).batch(0)
    inside, targets = batch["segments"] > 0, batch["weights"] == 1
    assert set(batch["tokens"][inside]) == {0, EOS}
    assert (batch["targets"][targets] == 0).sum() > 20
    assert inside.mean() > 0.5


def test_padding_carries_nothing(store):
    stream = small(store)
    batches = [stream.batch(step) for step in range(20)]
    batch = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    outside = batch["segments"] == 0
    assert outside.any() and (batch["weights"] == 0).any()
    assert (batch["tokens"][outside] == 0).all() and (batch["positions"][outside] == 0).all()


# ----------------------------------------------------------------------------------------------- what is drawn when


def drawn(stream, steps, rows=4):
    """Counts of (dataset, example) over the rows of some steps."""
    return collections.Counter(
        (s.dataset, s.example) for step in steps for row in range(rows) for s in stream.segments(step, row)
    )


def wide(store, rates, block_rows=16):
    """Rows in which a hundred short examples stand, so that next to none is left without a row."""
    return small(store, rates, row_length=1280, target_length=600, block_rows=block_rows)


@pytest.mark.parametrize("rates", [RATES, {"rte": 1.0, "snli": 1.0}, {"snli": 3000.0, "zeros": 250.0, "rte": 600.0}])
def test_rates(store, rates):
    """Datasets are drawn by their rates, whatever their sizes and lengths."""
    counts = collections.Counter()
    for (name, _), n in drawn(wide(store, rates), range(20)).items():
        counts[name] += n
    total = counts.total()
    assert total > 2000
    for name, rate in rates.items():
        p = rate / sum(rates.values())
        # Never further off than draws with replacement would be, by three standard deviations.
        assert abs(counts[name] - total * p) < 3 * np.sqrt(total * p * (1 - p))


def test_share_of_the_report(store):
    share = wide(store, RATES).report(blocks=4)["share"]
    for name, rate in RATES.items():
        assert share[name] == pytest.approx(rate / 7, abs=0.02)


def test_an_epoch_meets_every_example_once(store):
    """Draws are without replacement; at a block's borders epochs may overlap by a little."""
    stream = wide(store, {"snli": 1.0}, block_rows=4)
    counts, step = collections.Counter(), 0
    while counts.total() < 900:
        counts += drawn(stream, [step])
        step += 1
    assert len(counts) > 0.95 * 900
    ten = drawn(stream, range(10 * step))
    assert len(ten) == 900
    mean = ten.total() / 900
    assert min(ten.values()) >= mean - 3 and max(ten.values()) <= mean + 3


def test_later_epochs_meet_other_renderings(store):
    """rte has 12 records in 4 renderings: an epoch shows one rendering of each, and five epochs show all four."""
    stream = small(store, {"rte": 1.0})
    order = [stream._drawn(0, first, 1)[0] for first in range(60)]
    for epoch in range(5):
        part = np.array(order[12 * epoch : 12 * (epoch + 1)])
        assert sorted(part % 12) == list(range(12))
        assert set(part // 12) == {epoch % 4}
    assert order[:12] != order[48:60]  # the same rendering in another order
    counts = drawn(stream, range(24))
    for record in range(12):
        of_record = [counts[("rte", 12 * rendering + record)] for rendering in range(4)]
        assert min(of_record) > 0 and max(of_record) < 2 * min(of_record)


def test_draws_are_a_slice_of_one_sequence(store):
    stream = small(store)
    for dataset in range(3):
        sequence = stream._drawn(dataset, 0, 3000)
        for first, count in ((0, 0), (1, 5), (11, 2), (299, 700), (2000, 999)):
            np.testing.assert_array_equal(stream._drawn(dataset, first, count), sequence[first : first + count])


def test_a_tiny_dataset_in_a_big_block(tmp_path):
    write(tmp_path, "rte", (1, uniform(3, 1)))
    stream = small(TokenStore.open(tmp_path, FINGERPRINT), {"rte": 1.0}, block_rows=64)
    assert drawn(stream, [0, 10**9]).keys() == {("rte", 0)}


# ------------------------------------------------------------------------------------------------ what does not fit


def test_examples_that_fit_no_row_are_never_drawn(store):
    index = store["squad_v1"].index
    long = (index["input_length"] + index["target_length"] + 2 > 64) | (index["target_length"] + 1 > 16)
    stream = small(store)
    assert stream.excluded == {"squad_v1": long.sum()}
    seen = {example for name, example in drawn(stream, range(100)) if name == "squad_v1"}
    assert seen <= set(np.flatnonzero(~long)) and len(seen) > 100
    with_bos = (index["input_length"] + index["target_length"] + 3 > 64) | (index["target_length"] + 1 > 16)
    assert small(store, bos_id=BOS).excluded == {"squad_v1": with_bos.sum()}


@pytest.mark.parametrize("lengths", [{"row_length": 2}, {"target_length": 1}])
def test_a_dataset_that_never_fits(store, lengths):
    with pytest.raises(FlanError, match="dataset rte: no example of 48 fits .*TASK_FEATURE_LENGTHS"):
        small(store, {"rte": 1.0}, **lengths)


def test_no_datasets(store):
    with pytest.raises(FlanError, match="at least one dataset"):
        small(store, {})


def test_unprepared_dataset(store):
    with pytest.raises(FlanError, match="'qnli' is not in"):
        small(store, {"rte": 1.0, "qnli": 1.0})


def test_fill_of_the_papers_rows(tmp_path):
    def clipped(median, spread, high):
        return lambda rng: int(np.clip(rng.lognormal(np.log(median), spread), 1, high))

    kinds = {"snli": (70, 0.6, 4, 0.3), "squad_v1": (280, 0.6, 6, 0.7), "e2e_nlg": (50, 0.4, 35, 0.5)}
    for seed, (name, (m, s, tm, ts)) in enumerate(kinds.items()):
        of_input, of_target = clipped(m, s, 1023), clipped(tm, ts, 255)
        write(tmp_path, name, (1000, lambda rng, i=of_input, t=of_target: (i(rng), t(rng))), seed=seed)
    rates = {"snli": 3000.0, "squad_v1": 3000.0, "e2e_nlg": 1000.0}
    stream = Stream(TokenStore.open(tmp_path, FINGERPRINT), rates, seed=0, bos_id=BOS, eos_id=EOS)
    report = stream.report()
    assert report["fill"] >= 0.985
    assert stream.draws_per_step * 1024 / 8 == pytest.approx(report["draws"], rel=0.01)
    assert report["rows"] == 1024 and report["dropped"] <= 0.01 * report["draws"] and report["excluded"] == {}
    slots = np.mean([(stream.batch(step)["segments"] > 0).mean() for step in range(0, 128, 4)])
    assert slots == pytest.approx(report["fill"], abs=0.003)


@pytest.mark.parametrize("long", [(430, 30), (700, 60), (860, 20)])  # in rows of 1,280 slots and 256 target slots
def test_rows_hold_what_was_asked_for_where_packing_is_hard(tmp_path, long):
    """Long examples leave no gaps for all the short ones that were drawn: the last draws go, not the short ones."""
    around = lambda n, m: lambda rng: (n + int(rng.integers(-n // 8, n // 8)), m + int(rng.integers(0, m)))  # noqa: E731
    write(tmp_path, "cola", (400, around(150, 10)))
    write(tmp_path, "samsum", (300, around(450, 90)), seed=1)
    write(tmp_path, "rte", (300, around(*long)), seed=2)
    rates = {"cola": 2.0, "samsum": 1.0, "rte": 2.0}
    stream = Stream(TokenStore.open(tmp_path, FINGERPRINT), rates, seed=0, bos_id=BOS, eos_id=EOS)
    found = [segment for step in range(128) for row in range(8) for segment in stream.segments(step, row)]
    drawn = collections.Counter(segment.part for segment in found)
    for name, rate in rates.items():
        assert drawn[name] / len(found) == pytest.approx(rate / sum(rates.values()), abs=0.02)
    assert stream.draws_per_step * 128 == pytest.approx(len(found), rel=0.02)
    # Hardly any example is passed over: the draws of a block go on about where those of the one before end.
    seen = collections.Counter(segment.example for segment in found if segment.part == "rte")
    assert max(seen.values()) - min(seen[example] for example in range(300)) <= 2


# ------------------------------------------------------------------------------------------------------- prefetching


def test_prefetch(store):
    stream = small(store)
    with prefetch(small(store), start=5) as batches:
        for step in range(5, 15):
            assert_same(next(batches), stream.batch(step))
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]


def test_prefetch_ends_though_nothing_is_taken(store):
    with prefetch(small(store), start=0, size=1):
        time.sleep(0.05)
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]


def test_prefetch_raises_where_the_batch_is_taken(tmp_path):
    write(tmp_path, "rte", (20, uniform(9, 2)))
    stream = small(TokenStore.open(tmp_path, FINGERPRINT), {"rte": 1.0})
    good = stream.batch(0)
    stream._stores[0].tokens = None  # what the thread reads breaks after the stream is open
    with prefetch(stream, start=0) as batches, pytest.raises(TypeError):
        next(batches)
    assert good["tokens"].shape == (4, 64)
