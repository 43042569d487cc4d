"""What a corpus may be made of: every form is read, or refused by its name; none looks clean for want of reading."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile

import numpy as np
import pytest
import zstandard

from flan_jax import catalog
from flan_jax import contamination as binary
from flan_jax.data import examples as example_files
from flan_jax.errors import FlanError
from flan_jax.overlap import contamination, corpus

WORDS = [f"w{i}" for i in range(40)]
PREMISE = " ".join(WORDS)
TEXT = f"It began so. {PREMISE}\nAnd ended."
LINES = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in ("nothing here", TEXT, "nor there"))
PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    ".zst": zstandard.compress,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "prepared"
    fields = {"premise": PREMISE, "hypothesis": "It is so.", "options": ["yes", "no"], "answer": "no"}
    example_files.write_folder(folder / "examples" / "rte", {split: [(split, fields)] for split in ("dev", "test")})
    return folder


def _check(prepared, *patterns, **more):
    results = contamination.check([catalog.dataset("rte")], prepared, [str(p) for p in patterns], **more)
    return results, [d["id"] for d in results["datasets"]["rte"]["test"]["dirty"]]


READ = {
    **{f"c.jsonl{suffix}": pack(LINES.encode()) for suffix, pack in PACK.items()},
    **{f"c.txt{suffix}": pack(TEXT.encode()) for suffix, pack in PACK.items()},
    "c.jsonl.zstd": zstandard.compress(LINES.encode()),
    "C.JSONL.GZ": gzip.compress(LINES.encode()),
    "C.Jsonl.Zst": zstandard.compress(LINES.encode()),
    "c.json.gz": gzip.compress(LINES.encode()),
    "c.json": LINES.encode(),
    "c.ndjson": LINES.encode(),
    "c.NDJSON": LINES.encode(),
    "c.jsonlines": LINES.encode(),
    "one.json": json.dumps({"text": TEXT}).encode(),
    "lines": LINES.encode(),
    "lines.data": LINES.encode(),
    "lines.txt": LINES.encode(),
    "part-00000": TEXT.encode(),
    "c.TXT": TEXT.encode(),
    "c.md": TEXT.encode(),
    "c.html": f"<p>{TEXT}</p>".encode(),
    "c.csv": f'"{TEXT}",1\n'.encode(),
    "packed": gzip.compress(TEXT.encode()),
    "not packed.txt.gz": TEXT.encode(),  # a browser unpacks on the way and keeps the name
    "packed otherwise.jsonl.gz": zstandard.compress(LINES.encode()),
    "c.v1.0.jsonl": LINES.encode(),
    "mark.jsonl": b"\xef\xbb\xbf" + LINES.encode(),
    "mark.txt": b"\xef\xbb\xbf" + TEXT.encode(),
    "mark": b"\xef\xbb\xbf" + LINES.encode(),
    "blank lines.jsonl": b"\r\n\n" + LINES.replace("\n", "\r\n").encode(),
    "two frames.jsonl.zst": zstandard.compress(LINES.encode()[:90]) + zstandard.compress(LINES.encode()[90:]),
    "skipped frame.jsonl.zst": b"\x50\x2a\x4d\x18\x04\x00\x00\x00note" + zstandard.compress(LINES.encode()),
    "two members.jsonl.gz": gzip.compress(LINES.encode()[:90]) + gzip.compress(LINES.encode()[90:]),
    "no size.jsonl.zst": zstandard.ZstdCompressor(write_content_size=False).compress(LINES.encode()),
    "brackets.txt": f"[1] {TEXT}".encode(),
    "brace.txt": f"{{a}} {TEXT}".encode(),
    "latin.txt": "é".encode("latin-1") + b" " * 300 + TEXT.encode(),  # a stray byte
    "few good lines.jsonl": b"{\n3\n[]\n" + LINES.encode(),
    "escapes": json.dumps({"text": PREMISE.replace(" ", "\n")}).encode() + b"\n",
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_what_is_read(prepared, tmp_path, name, block_bytes):
    (tmp_path / name).write_bytes(READ[name])
    results, dirty = _check(prepared, tmp_path / name, block_bytes=block_bytes)
    about = results["corpus"]
    assert dirty == ["test"] and about["files"] == [str(tmp_path / name)]
    assert about["documents"] >= 1 and about["words"] > 40 - 1 and about["bytes"] > 100
    assert sum(about["forms"].values()) == 1 and about["empty_files"] == 0


def _tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info := tarfile.TarInfo("c.txt"), io.BytesIO(TEXT.encode()[: info.size]))
    return buffer.getvalue()


def _zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("c.txt", TEXT)
    return buffer.getvalue()


LONG = (TEXT * 400).encode()  # so long that half of it is more than a head
NOISE = np.random.default_rng(0).integers(32, 127, 200_000, np.uint8).tobytes()
REFUSED = {
    "c.parquet": (b"PAR1\x15\x04" + TEXT.encode() + b"PAR1", "is Parquet"),
    "renamed.jsonl": (b"PAR1\x15\x04" + TEXT.encode() + b"PAR1", "is Parquet"),
    "c.arrow": (b"ARROW1\0\0" + TEXT.encode(), "is Arrow"),
    "stream.arrow": (b"\xff\xff\xff\xff\x10\0\0\0" + TEXT.encode(), "is an Arrow stream"),
    "c.zip": (_zip(), "is a zip archive"),
    "c.tar": (_tar(), "is a tar archive"),
    "c.tar.gz": (gzip.compress(_tar()), "is a tar archive"),
    "c.tfrecord": (b"\x50\0\0\0\0\0\0\0" + TEXT.encode(), "is binary"),
    "c.bin": (bytes(range(256)) * 4, "is binary"),
    "c.pdf": (b"%PDF-1.7 " + TEXT.encode(), "is PDF"),
    "c.npy": (b"\x93NUMPY\x01\0" + TEXT.encode(), "is a NumPy array"),
    "utf16.txt": (TEXT.encode("utf-16"), "is text in UTF-16"),
    "utf16.jsonl": (LINES.encode("utf-16-le"), "is binary"),
    "latin.txt": ("é à ".encode("latin-1") * 200 + TEXT.encode(), "is no text in UTF-8"),
    "pointer.jsonl.gz": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "is a pointer of Git LFS",
    ),
    "twice.txt.gz": (gzip.compress(gzip.compress(TEXT.encode())), "is compressed twice"),
    "c.lz4": (b"\x04\x22\x4d\x18" + TEXT.encode(), "is compressed by lz4"),
    "array.json": (json.dumps([{"text": TEXT}]).encode(), "is one JSON array: .*jq -c '.\\[\\]'"),
    "array.json.gz": (gzip.compress(json.dumps([{"text": TEXT}], indent=1).encode()), "is one JSON array"),
    "array.txt": (json.dumps([{"text": TEXT}]).encode(), "is one JSON array"),
    "strings.jsonl": (json.dumps([TEXT]).encode(), "is one JSON array"),
    "pretty.json": (json.dumps({"text": TEXT}, indent=1).encode(), "none of its 4 lines|none of its 3 lines"),
    "field.jsonl": (LINES.replace('"text"', '"content"').encode(), "none of its 3 lines .*field 'text'; name it"),
    "upper.jsonl": (LINES.replace('"text"', '"Text"').encode(), "none of its 3 lines"),
    "lists.jsonl": (LINES.replace(': "', ': ["').replace('", "n"', '"], "n"').encode(), "none of its 3 lines"),
    "plain.jsonl": (TEXT.encode(), "none of its 2 lines"),
    "cut.txt.gz": (gzip.compress(LONG)[:-20], "cannot be read"),
    "cut.txt.bz2": (bz2.compress(NOISE)[:-20], "cannot be read"),
    "cut.txt.xz": (lzma.compress(NOISE)[:-20], "cannot be read"),
    "cut.txt.zst": (zstandard.compress(NOISE)[:-20], "cannot be read: it ends in the middle"),
    "cut.jsonl.zst": (zstandard.compress(LINES.encode())[:-3], "cannot be read: it ends in the middle"),
    "flipped.txt.gz": (gzip.compress(NOISE)[:1000] + b"\0" + gzip.compress(NOISE)[1001:], "cannot be read"),
    "flipped.txt.zst": (
        (packed := zstandard.ZstdCompressor(write_checksum=True).compress(NOISE))[:5000] + b"\xff\xff" + packed[5002:],
        "cannot be read",
    ),
    "rubbish.txt.gz": (gzip.compress(TEXT.encode()) + b"rubbish", "cannot be read"),
    "blank.txt": (b" \n\t\n" * 10, "the corpus holds no words"),
    "empty.jsonl": (b"", "the corpus holds no words: 1 file, 0 bytes"),
    "empty.txt.gz": (gzip.compress(b""), "the corpus holds no words"),
    "no words.jsonl": (json.dumps({"text": "… !?"}).encode(), "the corpus holds no words"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_by_name(prepared, tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("many words of no interest")
    with pytest.raises(FlanError, match=message) as caught:
        # Beside a good file, which would make the whole look clean.
        _check(prepared, tmp_path / name, *([] if "no words" in message else [tmp_path / "good.txt"]))
    assert "\n" not in str(caught.value) and (name in str(caught.value) or "no words" in message)


def test_empty_files_are_counted(prepared, tmp_path):
    for name, content in (("a.jsonl", b""), ("b.txt", b""), ("c.txt.gz", gzip.compress(b"")), ("d.txt", TEXT.encode())):
        (tmp_path / name).write_bytes(content)
    results, dirty = _check(prepared, tmp_path / "*")
    about = results["corpus"]
    assert dirty == ["test"] and about["empty_files"] == 3 and about["documents"] == 1 and about["forms"] == {"text": 1}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing/*.jsonl", "no corpus file matches"),
        ("deep", "deep is a folder: give its files"),
        ("*", "deep is a folder: give its files"),
        ("nothing/**/*", "no corpus file matches"),
        ("links/*", "gone.txt is no file"),
        ("pipes/*", "pipe is no file"),
    ],
)
def test_patterns_that_miss_files(prepared, tmp_path, pattern, message):
    (tmp_path / "c.txt").write_text(TEXT)
    for name in ("deep", "links", "pipes"):
        (tmp_path / name).mkdir()
    (tmp_path / "deep" / "d.txt").write_text(TEXT)
    (tmp_path / "links" / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipes" / "pipe")
    with pytest.raises(FlanError, match=message):
        _check(prepared, tmp_path / pattern)
    assert len(_check(prepared, tmp_path / "deep" / "**" / "*")[0]["corpus"]["files"]) == 1


def test_a_long_first_line_is_known_by_its_start(tmp_path):
    path = tmp_path / "lines"
    path.write_text(json.dumps({"text": "word " * 50_000}) + "\n")
    assert corpus.corpus_files([str(path)]) == [corpus.CorpusFile(path, corpus.JSON_LINES)]


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_zstd_is_read_in_pieces(tmp_path, size):
    content = np.random.default_rng(0).integers(97, 123, 300_000, np.uint8).tobytes().replace(b"q", b" ")
    path = tmp_path / "c.zst"
    frames = [zstandard.compress(content[i : i + 70_001]) for i in range(0, len(content), 70_001)]
    path.write_bytes(b"".join(frames))
    (file,) = corpus.corpus_files([str(path)])
    assert b"".join(block for block, _ in corpus.blocks(file, max(size, 2000))) == content


def test_what_was_read_is_printed_and_written(prepared, tmp_path, capsys):
    for name in ("c.jsonl.zst", "part-00000", "few good lines.jsonl"):
        (tmp_path / name).write_bytes(READ[name])
    (tmp_path / "empty.txt").touch()
    arguments = [f"--prepared={prepared}", f"--to={tmp_path / 'out' / 'found.json'}", "--workers=1", "--json"]
    binary.main([*arguments, "--corpus", *(str(p) for p in sorted(tmp_path.iterdir()) if p.is_file())])
    *_, printed, summary = capsys.readouterr().out.strip().split("\n")
    assert "4 files (2 as JSON lines, 1 as text, 1 empty)" in printed and "7 documents" in printed
    assert "3 lines left out" in printed and "few good lines.jsonl: 3" in printed
    written, summary = json.loads((tmp_path / "out" / "found.json").read_text()), json.loads(summary)
    assert written["corpus"]["forms"] == summary["corpus"]["forms"] == {"JSON lines": 2, "text": 1}
    assert list(written["corpus"]["broken"].values()) == [3]
    assert summary["datasets"]["rte"]["test"] == {"examples": 1, "dirty": 1}
