import io
import json

import numpy as np
import pytest
import sentencepiece
import tokenizers

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Is the following sentence true? OPTIONS: yes, no, it is not possible to tell.",
    "Write a review of the film that you saw last week!",
    "A lazy fox is quick; a brown dog jumps.",
]
PLAIN = ["", "The fox jumps.", "no", "it is not possible to tell", "a dog!", "naïve café", "日本語 🦊"]
OTHERS = [" lazy  dog ", "tab\tand\nline break", "\u200f{}\\"]  # SentencePiece normalizes these
EOS = "<|endoftext|>"


def huggingface_json():
    """A byte-level BPE whose id 0 is an ordinary token, as SmolLM2's is; the end of sequence comes last."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([EOS, "<|start|>"])
    return tokenizer.to_str().encode()


def sentencepiece_model(**ids):
    """A model with byte fallback; by default padding 0, EOS 1, BOS 2 and unknown 3."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 5),
        model_writer=written,
        vocab_size=320,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3} | ids,
    )
    return written.getvalue()


@pytest.fixture(scope="module")
def contents():
    return {"huggingface": huggingface_json(), "sentencepiece": sentencepiece_model()}


def build(kind, contents):
    if kind == "bytes":
        return vocabularies.ByteTokenizer()
    if kind == "sentencepiece":
        return vocabularies.SentencePieceTokenizer(contents[kind], bos_id=2)
    eos = tokenizers.Tokenizer.from_str(contents[kind].decode()).token_to_id(EOS)
    return vocabularies.HuggingFaceTokenizer(contents[kind], eos)


each_kind = pytest.mark.parametrize("kind", ["bytes", "huggingface", "sentencepiece"])


# -------------------------------------------------------------------------------------------------- encode, decode


@each_kind
def test_encode_and_decode(kind, contents):
    tokenizer = build(kind, contents)
    assert tokenizer.kind == kind
    texts = PLAIN if kind == "sentencepiece" else PLAIN + OTHERS
    encoded = tokenizer.encode(texts)
    for text, ids in zip(texts, encoded, strict=True):
        assert all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids)
        assert not {tokenizer.eos_id, tokenizer.bos_id} & set(ids)
        assert tokenizer.encode([text]) == [ids]
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode([]) == []


@each_kind
def test_special_ids_are_left_out(kind, contents):
    tokenizer = build(kind, contents)
    (ids,) = tokenizer.encode(["the lazy dog"])
    around = [tokenizer.eos_id] if tokenizer.bos_id is None else [tokenizer.bos_id, tokenizer.eos_id]
    assert tokenizer.decode([*around, *ids, tokenizer.eos_id]) == "the lazy dog"
    assert tokenizer.decode([*ids, -1, tokenizer.vocab_size, tokenizer.vocab_size + 7]) == "the lazy dog"


@each_kind
def test_many_rows_are_decoded_as_one(kind, contents):
    tokenizer = build(kind, contents)
    rng = np.random.default_rng(0)
    rows = [rng.integers(-3, tokenizer.vocab_size + 3, length) for length in rng.integers(0, 40, 200)]
    rows += [[], [tokenizer.eos_id], [-1], *tokenizer.encode(PLAIN)]
    for given in (rows, [[], *rows], [row.tolist() if isinstance(row, np.ndarray) else row for row in rows]):
        assert tokenizer.decode_all(given) == [tokenizer.decode(row) for row in given]
    assert tokenizer.decode_all([]) == [] and tokenizer.decode_all([[], []]) == ["", ""]


def test_padding_is_left_out_where_it_is_no_token(contents):
    for kind in ("bytes", "sentencepiece"):
        tokenizer = build(kind, contents)
        (ids,) = tokenizer.encode(["the lazy dog"])
        assert tokenizer.pad_id == 0
        assert tokenizer.decode([0, *ids, 0, 0]) == "the lazy dog"


def test_id_0_is_a_token_of_huggingface(contents):
    tokenizer = build("huggingface", contents)
    reference = tokenizers.Tokenizer.from_str(contents["huggingface"].decode())
    first = reference.decode([0])
    assert first and tokenizer.encode([first]) == [[0]]
    assert tokenizer.decode([0, 0]) == 2 * first


def test_id_0_is_a_token_of_sentencepiece():
    tokenizer = vocabularies.SentencePieceTokenizer(sentencepiece_model(pad_id=-1, eos_id=2, bos_id=-1, unk_id=1))
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.content)
    assert not processor.is_control(0) and not processor.is_unknown(0)
    for text in PLAIN:
        assert tokenizer.decode(tokenizer.encode([text])[0]) == text
    assert tokenizer.decode([0, 0]) == processor.decode([0, 0]) != ""


def test_bytes_are_those_of_utf8():
    tokenizer = vocabularies.ByteTokenizer()
    assert tokenizer.encode(["é", "A"]) == [[0xC3 + 3, 0xA9 + 3], [65 + 3]]
    assert tokenizer.decode([0xC3 + 3]) == "\ufffd"  # half a character
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (259, 1, None, 0)


def test_huggingface_adds_nothing(contents):
    """A post-processor that would add BOS has no say."""
    tokenizer = tokenizers.Tokenizer.from_str(contents["huggingface"].decode())
    start, eos = tokenizer.token_to_id("<|start|>"), tokenizer.token_to_id(EOS)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<|start|> $A", None, [("<|start|>", start)])
    ours = vocabularies.HuggingFaceTokenizer(tokenizer.to_str().encode(), eos, bos_id=start)
    assert tokenizer.encode("dog").ids[0] == start
    assert ours.encode(["dog"]) == [tokenizer.encode("dog").ids[1:]]


def test_sentencepiece_takes_its_ids_from_the_model():
    tokenizer = vocabularies.SentencePieceTokenizer(sentencepiece_model(pad_id=3, eos_id=4, bos_id=5, unk_id=0))
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (4, None, 3)
    tokenizer = vocabularies.SentencePieceTokenizer(sentencepiece_model(), eos_id=7, bos_id=2, pad_id=9)
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (7, 2, 9)


# ---------------------------------------------------------------------------------------------------- load and save


@each_kind
def test_save_and_load(kind, contents, tmp_path):
    tokenizer = build(kind, contents)
    tokenizer.save(tmp_path / "model" / "vocabulary")
    loaded = vocabularies.load(tmp_path / "model" / "vocabulary")
    assert type(loaded) is type(tokenizer)
    for name in ("kind", "vocab_size", "eos_id", "bos_id", "pad_id", "fingerprint"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    assert loaded.encode(PLAIN + OTHERS) == tokenizer.encode(PLAIN + OTHERS)


def test_load_by_name_and_by_file(contents, tmp_path):
    assert vocabularies.load("bytes").fingerprint == vocabularies.ByteTokenizer().fingerprint
    (tmp_path / "spiece.model").write_bytes(contents["sentencepiece"])
    loaded = vocabularies.load(tmp_path / "spiece.model")
    assert (loaded.kind, loaded.eos_id, loaded.bos_id, loaded.pad_id) == ("sentencepiece", 1, None, 0)
    (tmp_path / "tokenizer.json").write_bytes(contents["huggingface"])
    assert vocabularies.load(str(tmp_path / "tokenizer.json")).fingerprint == build("huggingface", contents).fingerprint


def test_fingerprint_follows_content_and_ids(contents):
    of_json = contents["huggingface"]
    variants = [
        build("bytes", contents),
        build("huggingface", contents),
        build("sentencepiece", contents),
        vocabularies.HuggingFaceTokenizer(of_json, 3),
        vocabularies.HuggingFaceTokenizer(of_json, 4),
        vocabularies.HuggingFaceTokenizer(of_json, 3, bos_id=0),
        vocabularies.HuggingFaceTokenizer(of_json, 3, pad_id=3),
        vocabularies.HuggingFaceTokenizer(of_json + b" ", 3),
        vocabularies.SentencePieceTokenizer(contents["sentencepiece"]),
    ]
    assert len({v.fingerprint for v in variants}) == len(variants)


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["nothing_here", "byte", "models/none/vocabulary", "missing.model", "missing.json"])
def test_nothing_there(name, tmp_path):
    with pytest.raises(FlanError, match=f"no vocabulary at .*{name}.*give 'bytes', a checkpoint's vocabulary folder"):
        vocabularies.load(tmp_path / name)


def test_a_checkpoint_is_no_vocabulary_but_has_one(tmp_path):
    vocabularies.ByteTokenizer().save(tmp_path / "model" / "vocabulary")
    with pytest.raises(FlanError, match="model is a checkpoint: its vocabulary is .*model/vocabulary"):
        vocabularies.load(tmp_path / "model")


def test_no_end_of_sequence(tmp_path):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(FlanError, match=r"tokenizer.json: no end-of-sequence token"):
        vocabularies.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b'{"version": "1.0"}'),
        ("tokenizer.json", b"\xff\xfe"),
        ("spiece.model", b"not a model"),
        ("spiece.model", b""),
    ],
)
def test_broken_file(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FlanError, match=f"vocabulary .*{name} cannot be read") as error:
        vocabularies.load(tmp_path / name)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["huggingface", "sentencepiece"])
def test_broken_folder(kind, contents, tmp_path):
    build(kind, contents).save(tmp_path)
    settings = tmp_path / "vocabulary.json"
    (content,) = (p for p in tmp_path.iterdir() if p != settings)
    for broken in ("{", "[]", json.dumps({"eos_id": 1}), json.dumps({"kind": "other", "eos_id": 1})):
        kept = settings.read_text()
        settings.write_text(broken)
        with pytest.raises(FlanError, match="vocabulary .* cannot be read"):
            vocabularies.load(tmp_path)
        settings.write_text(kept)
    content.unlink()
    with pytest.raises(FlanError, match=f"vocabulary .* cannot be read .*{content.name}"):
        vocabularies.load(tmp_path)


# ------------------------------------------------------------------------------------------------------------ SeqIO


@pytest.mark.slow
@each_kind
def test_seqio_vocabulary(kind, contents):
    import tensorflow as tf

    from flan_jax.data.seqio_vocabulary import SeqioVocabulary

    tokenizer = build(kind, contents)
    vocabulary = SeqioVocabulary(tokenizer)
    assert vocabulary.vocab_size == tokenizer.vocab_size
    assert (vocabulary.eos_id, vocabulary.bos_id) == (tokenizer.eos_id, tokenizer.bos_id)
    expected = tokenizer.encode(PLAIN)
    for text, ids in zip(PLAIN, expected, strict=True):
        assert list(vocabulary.encode(text)) == ids
        encoded = vocabulary.encode_tf(tf.constant(text))
        assert encoded.dtype == tf.int32 and encoded.numpy().tolist() == ids
        assert vocabulary.decode(ids) == text
        assert vocabulary.decode_tf(tf.constant(ids, tf.int32)).numpy().decode() == text
        assert vocabulary.decode([*ids, tokenizer.eos_id, *ids]) == text  # nothing after the end

    ragged = vocabulary.encode_tf(tf.constant(PLAIN))
    assert ragged.to_list() == expected
    assert [t.decode() for t in vocabulary.decode_tf(ragged).numpy()] == PLAIN
    pair = tf.constant([expected[1], expected[1]])
    assert [t.decode() for t in vocabulary.decode_tf(pair).numpy()] == [PLAIN[1]] * 2

    mapped = tf.data.Dataset.from_tensor_slices(PLAIN).map(vocabulary.encode_tf)
    assert [ids.tolist() for ids in mapped.as_numpy_iterator()] == expected
    batched = tf.data.Dataset.from_tensor_slices(PLAIN).batch(4).map(vocabulary.encode_tf)
    assert [ids for batch in batched for ids in batch.to_list()] == expected


@pytest.mark.slow
def test_seqio_vocabularies_are_equal_by_content(contents):
    from flan_jax.data.seqio_vocabulary import SeqioVocabulary

    first, again, other = (SeqioVocabulary(build(k, contents)) for k in ("huggingface", "huggingface", "bytes"))
    assert first == again and hash(first) == hash(again)
    assert first != other and first != "bytes"


@pytest.mark.slow
def test_bytes_agree_with_seqio():
    import seqio

    theirs, ours = seqio.ByteVocabulary(extra_ids=0), vocabularies.ByteTokenizer()
    assert (theirs.vocab_size, theirs.eos_id, theirs.pad_id) == (ours.vocab_size, ours.eos_id, ours.pad_id)
    for text in PLAIN + OTHERS:
        assert list(theirs.encode(text)) == ours.encode([text])[0]


@pytest.mark.slow
def test_sentencepiece_agrees_with_seqio(contents, tmp_path):
    import seqio

    (tmp_path / "spiece.model").write_bytes(contents["sentencepiece"])
    theirs = seqio.SentencePieceVocabulary(str(tmp_path / "spiece.model"), extra_ids=0)
    ours = vocabularies.load(tmp_path / "spiece.model")
    assert theirs.vocab_size == ours.vocab_size
    for text in PLAIN + OTHERS:
        assert list(theirs.encode(text)) == ours.encode([text])[0]


def test_a_vocabulary_without_a_way_back_to_text_cannot_be_made():
    class OneWay(vocabularies._Stored):
        def encode(self, texts):
            return [[1] for _ in texts]

    with pytest.raises(TypeError, match="decode"):
        OneWay(b"", 1, None, 0)
