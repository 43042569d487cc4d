import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from flan_jax import content, styles
from flan_jax.data import token_store
from flan_jax.data.identity import Identities
from flan_jax.data.token_store import TokenizedExample, TokenStore
from flan_jax.errors import FlanError

FINGERPRINT = "0123456789abcdef" * 4


def random_examples(seed, vocab_size, records=20, renderings=3):
    rng = np.random.default_rng(seed)

    def ids(longest):
        return rng.integers(0, vocab_size, rng.integers(0, longest + 1)).tolist()

    examples = [
        TokenizedExample(ids(30), ids(6), int(rng.integers(10)), record)
        for _ in range(renderings)
        for record in range(records)
    ]
    info = {"num_records": records, "renderings": renderings, "vocab_size": vocab_size}
    return info, examples


def write(prepared, name, info, examples, **more):
    return token_store.write_dataset(token_store.folder_of(prepared, FINGERPRINT) / name, info, examples, **more)


RECORDS = [(f"rte {n}", {"premise": f"text {n % 7} of some", "answer": "yes"}) for n in range(20)]


@pytest.fixture
def prepared(tmp_path):
    write(tmp_path, "rte", *random_examples(0, 259), records=Identities.of(RECORDS))
    return tmp_path


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_store_says_what_its_records_are(prepared):
    tokens = TokenStore.open(prepared, FINGERPRINT)["rte"]
    assert tokens.records.hashes.tolist() == [content.content_hash(fields).encode() for _, fields in RECORDS]
    assert [one.decode() for one in tokens.records.ids.tolist()] == [identity for identity, _ in RECORDS]
    texts = tokens.records.texts
    for number, (_, fields) in enumerate(RECORDS):
        own = texts[texts["record"] == number]
        assert dict(zip(own["key"].tolist(), own["words"].tolist(), strict=True)) == content.text_keys(fields.values())
    before = tokens.info
    again = write(prepared, "rte", *random_examples(3, 300), records=Identities.of(RECORDS))
    assert again["records_digest"] == before["records_digest"] and again["digest"] != before["digest"]
    other = write(prepared, "rte", *random_examples(0, 259), records=Identities.of(RECORDS[::-1]))
    assert other["records_digest"] != before["records_digest"] and other["tokens_crc32"] == before["tokens_crc32"]


def test_identities_of_parts_are_those_of_the_whole():
    parts = [Identities.of(RECORDS[start : start + 6]) for start in (0, 6, 12, 18)]
    joined, whole = Identities.joined([*parts, Identities.of(())]), Identities.of(RECORDS)
    for name in ("hashes", "ids", "texts"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    assert joined.digest == whole.digest != Identities.joined([]).digest


# ----------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(2, "uint16"), (1 << 16, "uint16"), ((1 << 16) + 1, "uint32"), (262_144, "uint32")]
)
def test_round_trip(tmp_path, vocab_size, dtype):
    info, examples = random_examples(1, vocab_size)
    examples += [TokenizedExample([vocab_size - 1, 0], [], 9, 0), TokenizedExample([], [0, vocab_size - 1], 0, 1)]
    written = write(tmp_path, "rte", info, examples)
    tokens = TokenStore.open(tmp_path, FINGERPRINT)["rte"]
    assert tokens.info == written
    assert tokens.info["tokens_dtype"] == dtype
    assert (tokens.num_records, tokens.renderings, len(tokens.index)) == (20, 3, 62)
    for number, example in enumerate(examples):
        inputs, targets = tokens.example(number)
        assert inputs.dtype == targets.dtype == np.int32
        assert (inputs.tolist(), targets.tolist()) == (list(example.inputs), list(example.targets))
        assert tokens.index["template"][number] == example.template
        assert tokens.index["record"][number] == example.record
    assert written["num_tokens"] == sum(len(e.inputs) + len(e.targets) for e in examples)
    assert written["mean_input_length"] == pytest.approx(np.mean([len(e.inputs) for e in examples]))
    assert written["mean_target_length"] == pytest.approx(np.mean([len(e.targets) for e in examples]))


def test_renderings_follow_each_other(prepared):
    _, examples = random_examples(0, 259)
    tokens = TokenStore.open(prepared, FINGERPRINT)["rte"]
    n = tokens.num_records
    for r in range(tokens.renderings):
        for i in range(n):
            assert tokens.index["record"][r * n + i] == i
            assert tokens.example(r * n + i)[0].tolist() == examples[r * n + i].inputs
    assert len(set(tokens.index["template"][::n].tolist())) > 1


def test_reading_out_of_order(prepared):
    _, examples = random_examples(0, 259)
    tokens = TokenStore.open(prepared, FINGERPRINT)["rte"]
    for number in np.random.default_rng(2).permutation(len(examples)):
        assert tokens.example(number)[1].tolist() == examples[number].targets


def test_info_keeps_what_it_is_given(tmp_path):
    info, examples = random_examples(0, 259)
    consumed = []

    def counted():
        for example in examples:
            consumed.append(example)
            yield example

    write(tmp_path, "rte", {**info, "source": "super_glue/rte:1.0.2"}, counted(), after=lambda: {"cut": len(consumed)})
    found = token_store.read_info(token_store.folder_of(tmp_path, FINGERPRINT) / "rte")
    assert (found["source"], found["cut"], found["num_examples"]) == ("super_glue/rte:1.0.2", 60, 60)


@pytest.mark.parametrize("examples", [[], [TokenizedExample([], [], 0, 0)]])
def test_no_tokens(tmp_path, examples):
    write(tmp_path, "rte", {"num_records": 1, "renderings": 1, "vocab_size": 259}, examples)
    tokens = TokenStore.open(tmp_path, FINGERPRINT)["rte"]
    assert len(tokens.index) == len(examples)
    assert [tuple(map(len, tokens.example(i))) for i in range(len(examples))] == [(0, 0)] * len(examples)


# --------------------------------------------------------------------------------------------- what is not there


def test_other_vocabulary(prepared):
    with pytest.raises(FlanError, match=r"nothing prepared .* this vocabulary \(ffff.*run python -m flan_jax.prepare"):
        TokenStore.open(prepared, "f" * 64)
    with pytest.raises(FlanError, match="style instructions; it holds another's: give --vocabulary or the checkpoint"):
        TokenStore.open(prepared, "f" * 64)
    with pytest.raises(FlanError, match="style no_template; run python -m flan_jax.prepare"):  # it has none in it
        TokenStore.open(prepared, FINGERPRINT, styles.parse("no_template"))


def test_missing_dataset_names_those_that_are_there(prepared):
    write(prepared, "snli", *random_examples(1, 259))
    store = TokenStore.open(prepared, FINGERPRINT)
    assert store.names == ("rte", "snli")
    with pytest.raises(FlanError, match="'qnli' is not in .*there are: rte, snli. Run .*--datasets=qnli"):
        store["qnli"]


# ------------------------------------------------------------------------------------------------------ corruption


def _flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def _info(**changes):
    return lambda content: json.dumps(
        {k: v for k, v in (json.loads(content) | changes).items() if v is not None}
    ).encode()


DAMAGE = {
    "tokens removed": ("tokens.bin", None, "tokens.bin"),
    "tokens empty": ("tokens.bin", lambda content: b"", "shorter or longer"),
    "tokens cut": ("tokens.bin", lambda content: content[:-2], "shorter or longer"),
    "tokens cut within a token": ("tokens.bin", lambda content: content[:-1], "multiple"),
    "tokens appended": ("tokens.bin", lambda content: content + content[:4], "shorter or longer"),
    "tokens flipped": ("tokens.bin", _flip, "tokens.bin has changed"),
    "index removed": ("index.npy", None, "index.npy"),
    "index empty": ("index.npy", lambda content: b"", "No data"),
    "index cut in its header": ("index.npy", lambda content: content[:20], "header"),
    "index cut": ("index.npy", lambda content: content[:-5], "greater than file size"),
    "index flipped": ("index.npy", _flip, "index.npy has changed"),
    "index is a pickle": ("index.npy", lambda content: b"\x80\x04K\x01.", "pickle"),
    "info removed": ("info.json", None, "info.json cannot be read"),
    "info empty": ("info.json", lambda content: b"", "info.json cannot be read"),
    "info cut": ("info.json", lambda content: content[:-9], "info.json cannot be read"),
    "info is no text": ("info.json", lambda content: b"\xff\xfe\x00", "info.json cannot be read"),
    "info is a list": ("info.json", lambda content: b"[1, 2]", "info.json cannot be read"),
    "info has an unknown type": ("info.json", _info(tokens_dtype="uint99"), "uint99"),
    "info has another type": ("info.json", _info(tokens_dtype="uint32"), "shorter or longer"),
    "info has another size": ("info.json", _info(num_examples=59), "shorter or longer"),
    "info lacks a size": ("info.json", _info(num_records=None), "num_records"),
    "info lacks the index's sum": ("info.json", _info(index_crc32=None), "index_crc32"),
    "hashes cut": ("hashes.npy", lambda content: content[:-16], "ValueError"),
    "hashes changed": ("hashes.npy", lambda content: content[:-1] + b"?", "hashes.npy has changed"),
    "ids changed": ("ids.npy", lambda content: content[:-1] + b"?", "ids.npy has changed"),
    "texts changed": ("texts.npy", lambda content: content[:-1] + b"?", "texts.npy has changed"),
    "texts removed": ("texts.npy", None, "texts.npy"),
    "info lacks the tokens' sum": ("info.json", _info(tokens_crc32=None), "tokens_crc32"),
}


@pytest.mark.parametrize(("name", "change", "reason"), DAMAGE.values(), ids=list(DAMAGE))
def test_damage_is_found_on_opening(prepared, name, change, reason):
    path = token_store.folder_of(prepared, FINGERPRINT) / "rte" / name
    content = path.read_bytes()
    path.unlink()
    if change is not None:
        path.write_bytes(change(content))
    with pytest.raises(FlanError) as error:
        TokenStore.open(prepared, FINGERPRINT)["rte"]
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert "'rte'" in message and str(path.parent) in message and reason in message
    assert "run python -m flan_jax.prepare --datasets=rte --vocabulary=CHECKPOINT/vocabulary --to=" in message
    assert "--overwrite, with the same --data as before" in message


def test_every_bit_of_the_index_counts(prepared):
    path = token_store.folder_of(prepared, FINGERPRINT) / "rte" / "index.npy"
    content = path.read_bytes()
    start = content.index(b"\n") + 1
    for at in np.random.default_rng(0).integers(start, len(content), 20):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(FlanError, match="corrupt"):
            TokenStore.open(prepared, FINGERPRINT)["rte"]


# ------------------------------------------------------------------------------------------------ interrupted writes


def _interrupted(examples):
    yield from examples[:30]
    raise KeyboardInterrupt


def test_interrupted_first_write_leaves_nothing(tmp_path):
    info, examples = random_examples(3, 259)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "rte", info, _interrupted(examples))
    assert contents(tmp_path) == {}
    assert TokenStore.open(tmp_path, FINGERPRINT).names == ()


def test_interrupted_second_write_keeps_the_first(prepared):
    before = contents(prepared)
    info, examples = random_examples(3, 259)
    with pytest.raises(KeyboardInterrupt):
        write(prepared, "rte", info, _interrupted(examples))
    assert contents(prepared) == before


def test_write_replaces(prepared):
    info, examples = random_examples(3, 259, records=5, renderings=1)
    write(prepared, "rte", info, examples)
    tokens = TokenStore.open(prepared, FINGERPRINT)["rte"]
    assert len(tokens.index) == 5
    assert tokens.example(4)[0].tolist() == examples[4].inputs


KILLED = """
import sys
from flan_jax.data import token_store

def examples():
    for i in range(100_000):
        yield token_store.TokenizedExample([1] * 50, [2], 0, i)
    print("half", flush=True)
    sys.stdin.read()

info = {"num_records": 200_000, "renderings": 1, "vocab_size": 259}
token_store.write_dataset(sys.argv[1], info, examples())
"""


def test_killed_write_is_invisible(prepared):
    folder = token_store.folder_of(prepared, FINGERPRINT)
    before = contents(folder / "rte")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder / "rte")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    store = TokenStore.open(prepared, FINGERPRINT)
    assert store.names == ("rte",)
    assert contents(folder / "rte") == before
    assert len(list(folder.iterdir())) == 2  # what the killed process left has a name of its own


def test_leftover_of_a_killed_process_with_the_same_number(tmp_path):
    """In a container a restarted process often has its predecessor's number."""
    folder = token_store.folder_of(tmp_path, FINGERPRINT)
    left = folder / ".rte.building"
    left.mkdir(parents=True)
    (left / "tokens.bin").write_bytes(b"half")
    info, examples = random_examples(3, 259)
    write(tmp_path, "rte", info, examples)
    assert TokenStore.open(tmp_path, FINGERPRINT)["rte"].example(7)[0].tolist() == examples[7].inputs
    assert sorted(p.name for p in folder.iterdir()) == ["rte"]
