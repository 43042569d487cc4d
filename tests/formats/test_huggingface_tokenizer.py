"""Every setting of a tokenizer's files, against transformers' own AutoTokenizer of the same folder."""

import io
import json

import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors, trainers

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats import huggingface_tokenizer as formats
from flan_jax.formats.huggingface_pipelines import merges_of

transformers = pytest.importorskip("transformers")

CORPUS = [
    "The ferry left the harbour at half past six, and nobody on the pier waved.",
    "Is the second sentence true?\nOPTIONS:\n- yes\n- it is not possible to tell\n- no",
    "naïve café “quoted” – 10,240 €! 日本語 Привет",
    "  two spaces,   three,\ttabs\t\tand\n\n\nblank lines  ",
]
HOSTILE = [
    *CORPUS,
    "",
    " ",
    "   ",
    "\n",
    "a</s>b <s>c  </s> d<unk>e<pad>",
    "x <tool> y<tool>z  <tool>",
    "{a: {b}} } {",
    "<|im_end|>\n<|im_start|>user",
    "NAÏVE ﬁn ½ ㎏ e\u0301 É",
    "tool toolbox <mask> <mask>",
    "1234567 12 3a 4",
    " don't I'm we'll it's , . ? ! n't",
    "😀👩‍👩‍👧 ℵ \u200b\ufeff\u0000",
    "▁a▁ b",
    "<extra_id_0> <extra_id_99> <extra_id_3>",
]


def byte_level(cuts=None, normalizer=None, special=("<s>", "</s>", "<unk>", "<pad>"), **model):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(**model))
    tokenizer.pre_tokenizer = cuts or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def pieces(kind, **changed):
    model = io.BytesIO()
    unigram = kind == "unigram"
    settings = {
        "model_type": kind,
        "vocab_size": 120 if unigram else 360,
        "byte_fallback": not unigram,
        "normalization_rule_name": "nmt_nfkc" if unigram else "identity",
        "remove_extra_whitespaces": unigram,
        "pad_id": 0 if unigram else -1,
        "eos_id": 1 if unigram else 2,
        "unk_id": 2 if unigram else 0,
        "bos_id": -1 if unigram else 1,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_writer=model, **settings | changed
    )
    return model.getvalue()


def unigram_json(**more):
    proto = sentencepiece_model_pb2.ModelProto.FromString(pieces("unigram"))
    vocabulary = [(p.piece, p.score) for p in proto.pieces]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, 2, False))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    cuts = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(cuts), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return tokenizer


def llama_json(scheme="first"):
    proto = sentencepiece_model_pb2.ModelProto.FromString(pieces("bpe"))
    vocabulary = {p.piece: i for i, p in enumerate(proto.pieces)}
    model = tokenizers.models.BPE(vocabulary, merges_of(vocabulary), fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def with_added(tokenizer, *tokens):
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def other(kind):
    unk = {"unk_token": "<unk>"}
    model = {"wordpiece": tokenizers.models.WordPiece, "wordlevel": tokenizers.models.WordLevel}[kind](**unk)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece() if kind == "wordpiece" else None
    trainer = {"wordpiece": trainers.WordPieceTrainer, "wordlevel": trainers.WordLevelTrainer}[kind]
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(CORPUS, trainer(vocab_size=200, special_tokens=special, show_progress=False))
    return tokenizer


FAST = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": "<s>"}
OBJECT = {"__type": "AddedToken", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


def truncated():
    tokenizer = byte_level()
    tokenizer.enable_truncation(max_length=8, stride=2)
    return tokenizer


def padded():
    tokenizer = byte_level()
    tokenizer.enable_padding(pad_id=3, pad_token="<pad>")
    return tokenizer


def begun(*around):
    tokenizer = byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(" ".join(around), None, [("<s>", 0), ("</s>", 1)])
    return tokenizer


TOOL = AddedToken("<tool>", special=False, normalized=False)
FLAGS = [
    AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False),
    AddedToken("tool", single_word=True),
    AddedToken("<mask>", lstrip=True, special=True),
    AddedToken("naïve", normalized=True),
]
DECODER = {"0": OBJECT | {"content": "<unk>", "special": True}, "360": OBJECT | {"content": "<tool>", "special": False}}

# name: (config.json, files)
FOLDERS = {
    "as it is": ({"model_type": "llama"}, {"tokenizer.json": byte_level, "tokenizer_config.json": FAST}),
    "truncation": ({"model_type": "llama"}, {"tokenizer.json": truncated, "tokenizer_config.json": FAST}),
    "padding": ({"model_type": "llama"}, {"tokenizer.json": padded, "tokenizer_config.json": FAST}),
    "no class": (
        {"model_type": "llama"},
        {"tokenizer.json": byte_level, "tokenizer_config.json": {"eos_token": "</s>"}},
    ),
    "llama class, byte level": (
        {"model_type": "llama"},
        {"tokenizer.json": byte_level, "tokenizer_config.json": FAST | {"tokenizer_class": "LlamaTokenizerFast"}},
    ),
    "bos by post-processor": (
        {"model_type": "llama"},
        {"tokenizer.json": lambda: begun("<s>", "$A"), "tokenizer_config.json": FAST | {"add_bos_token": False}},
    ),
    "no bos, though add_bos_token": (
        {"model_type": "llama"},
        {"tokenizer.json": byte_level, "tokenizer_config.json": FAST | {"add_bos_token": True}},
    ),
    "flags of added tokens": (
        {"model_type": "llama"},
        {"tokenizer.json": lambda: with_added(byte_level(), *FLAGS), "tokenizer_config.json": FAST},
    ),
    "other flags in tokenizer_config": (
        {"model_type": "llama"},
        {
            "tokenizer.json": lambda: with_added(byte_level(), TOOL),
            "tokenizer_config.json": FAST
            | {"added_tokens_decoder": {"330": OBJECT | {"content": "<tool>", "special": True, "lstrip": True}}},
        },
    ),
    "special tokens that are new": (
        {"model_type": "llama"},
        {
            "tokenizer.json": byte_level,
            "tokenizer_config.json": FAST
            | {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"], "image_token": "<mask>"},
        },
    ),
    "eos in special_tokens_map": (
        {"model_type": "llama", "eos_token_id": 1},
        {
            "tokenizer.json": lambda: with_added(byte_level(), AddedToken("<|im_end|>", special=True)),
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
            "special_tokens_map.json": {"eos_token": OBJECT | {"content": "<|im_end|>"}, "bos_token": "<s>"},
        },
    ),
    "eos as an object": (
        {"model_type": "llama"},
        {
            "tokenizer.json": byte_level,
            "tokenizer_config.json": FAST | {"eos_token": OBJECT | {"content": "</s>", "special": True}},
        },
    ),
    "split special tokens": (
        {"model_type": "llama"},
        {"tokenizer.json": byte_level, "tokenizer_config.json": FAST | {"split_special_tokens": True}},
    ),
    "clean up, byte level": (
        {"model_type": "llama"},
        {"tokenizer.json": byte_level, "tokenizer_config.json": FAST | {"clean_up_tokenization_spaces": True}},
    ),
    "lower case and accents": (
        {"model_type": "llama"},
        {
            "tokenizer.json": lambda: byte_level(
                normalizer=normalizers.Sequence(
                    [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
                )
            ),
            "tokenizer_config.json": FAST,
        },
    ),
    "digits and punctuation": (
        {"model_type": "llama"},
        {
            "tokenizer.json": lambda: byte_level(
                pre_tokenizers.Sequence(
                    [
                        pre_tokenizers.Digits(True),
                        pre_tokenizers.Punctuation("contiguous"),
                        pre_tokenizers.ByteLevel(add_prefix_space=True),
                    ]
                )
            ),
            "tokenizer_config.json": FAST,
        },
    ),
    "word pieces": (
        {"model_type": "llama"},
        {
            "tokenizer.json": lambda: other("wordpiece"),
            "tokenizer_config.json": FAST | {"clean_up_tokenization_spaces": True},
        },
    ),
    "words": (
        {"model_type": "llama"},
        {"tokenizer.json": lambda: other("wordlevel"), "tokenizer_config.json": FAST | {"unk_token": "<unk>"}},
    ),
    "gpt 2": (
        {"model_type": "llama"},
        {
            "tokenizer.json": byte_level,
            "tokenizer_config.json": FAST | {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
        },
    ),
    "olmo 2": (
        {"model_type": "olmo2"},
        {
            "tokenizer.json": lambda: byte_level(
                pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
            ),
            "tokenizer_config.json": FAST | {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<unk>"},
        },
    ),
    "gpt neox": (
        {"model_type": "llama"},
        {
            "tokenizer.json": lambda: begun("<s>", "$A"),
            "tokenizer_config.json": FAST | {"tokenizer_class": "GPTNeoXTokenizerFast", "unk_token": "<unk>"},
        },
    ),
    "qwen 2": (
        {"model_type": "qwen2"},
        {"tokenizer.json": byte_level, "tokenizer_config.json": FAST | {"tokenizer_class": "Qwen2Tokenizer"}},
    ),
    "qwen 2, whatever is said": (
        {"model_type": "qwen2"},
        {"tokenizer.json": byte_level, "tokenizer_config.json": FAST},
    ),
    "qwen 3, slow": (
        {"model_type": "qwen3"},
        {
            "vocab.json": lambda: json.loads(byte_level(special=()).to_str())["model"]["vocab"],
            "merges.txt": lambda: (
                "#version: 0.2\n"
                + "\n".join(" ".join(m) for m in json.loads(byte_level(special=()).to_str())["model"]["merges"])
            ),
            "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"},
            "added_tokens.json": {"<|endoftext|>": 330, "<|im_start|>": 331, "<|im_end|>": 332},
        },
    ),
    "mistral 3": (
        {"model_type": "mistral"},
        {
            "tokenizer.json": lambda: with_added(llama_json("first"), TOOL),
            "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "eos_token": "</s>"},
        },
    ),
    "llama": (
        {"model_type": "llama"},
        {"tokenizer.json": llama_json, "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}},
    ),
    "llama as it was": (
        {"model_type": "llama"},
        {
            "tokenizer.json": lambda: llama_json("normalizer"),
            "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_eos_token": True},
        },
    ),
    "llama as it was, fast": (
        {"model_type": "llama"},
        {"tokenizer.json": lambda: llama_json("normalizer"), "tokenizer_config.json": FAST},
    ),
    "llama without prefix": (
        {"model_type": "llama"},
        {
            "tokenizer.json": llama_json,
            "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False, "legacy": None},
        },
    ),
    "llama, slow": (
        {"model_type": "llama"},
        {
            "tokenizer.model": lambda: pieces("bpe"),
            "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False},
        },
    ),
    "llama, slow, with added tokens and another eos": (
        {"model_type": "llama", "eos_token_id": 2},
        {
            "tokenizer.model": lambda: pieces("bpe"),
            "added_tokens.json": {"<tool>": 360, "<|im_end|>": 361},
            "special_tokens_map.json": {"eos_token": "<|im_end|>", "additional_special_tokens": ["<tool>"]},
            "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": True},
        },
    ),
    "llama, slow, with added_tokens_decoder": (
        {"model_type": "llama"},
        {
            "tokenizer.model": lambda: pieces("bpe"),
            "tokenizer_config.json": {
                "tokenizer_class": "LlamaTokenizer",
                "added_tokens_decoder": DECODER,
                "eos_token": "</s>",
                "add_bos_token": False,
            },
        },
    ),
    "llama, slow, with user-defined pieces": (
        {"model_type": "llama"},
        {
            "tokenizer.model": lambda: pieces("bpe", user_defined_symbols=["<tool>", "{"], control_symbols=["<mask>"]),
            "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"},
        },
    ),
    "no class, slow": ({"model_type": "llama"}, {"tokenizer.model": lambda: pieces("bpe")}),
    "mistral, slow": (
        {"model_type": "mistral"},
        {
            "tokenizer.model": lambda: pieces("bpe"),
            "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True},
        },
    ),
    "gemma 2, slow": (
        {"model_type": "gemma2"},
        {
            "tokenizer.model": lambda: pieces("bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3, add_dummy_prefix=False),
            "tokenizer_config.json": {"add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>"},
        },
    ),
    "ids from nought are text": (  # as in Llama 3 and Qwen, which have no padding token: 0 is "!"
        {"model_type": "llama"},
        {
            "tokenizer.json": lambda: with_added(byte_level(special=()), AddedToken("</s>", special=True)),
            "tokenizer_config.json": FAST | {"bos_token": None},
        },
    ),
    "further special tokens in two files": (
        {"model_type": "llama"},
        {
            "tokenizer.json": byte_level,
            "tokenizer_config.json": FAST | {"extra_special_tokens": ["<mask>", "<tool>"]},
            "special_tokens_map.json": {
                "extra_special_tokens": ["<|im_start|>", {"content": "<|im_end|>", "normalized": False}, "<mask>"]
            },
        },
    ),
    "further special tokens in two files, by name and as a list": (
        {"model_type": "mistral"},
        {
            "tokenizer.json": lambda: with_added(byte_level(), TOOL),
            "tokenizer_config.json": FAST | {"extra_special_tokens": {"tool": "<tool>"}},
            "special_tokens_map.json": {"extra_special_tokens": ["<|im_start|>", "<tool>"], "eos_token": "</s>"},
        },
    ),
    "objects beside added_tokens": (
        {"model_type": "llama"},
        {
            "tokenizer.json": byte_level,
            "added_tokens.json": {"<|im_end|>": 330, "<tool>": 331},
            "tokenizer_config.json": FAST
            | {
                "extra_special_tokens": [OBJECT | {"content": "<|im_end|>", "lstrip": True}, "<tool>"],
                "image_token": {"content": "<mask>", "lstrip": True},
            },
        },
    ),
    "t5, slow, no further tokens": (
        {"model_type": "t5"},
        {
            "spiece.model": lambda: pieces("unigram", user_defined_symbols=["<tool>"]),
            "tokenizer_config.json": {"extra_special_tokens": None},
        },
    ),
    "t5, slow": ({"model_type": "t5"}, {"spiece.model": lambda: pieces("unigram")}),
    "t5, slow, as saved": (
        {"model_type": "t5"},
        {
            "spiece.model": lambda: pieces("unigram"),
            "special_tokens_map.json": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
            "tokenizer_config.json": {
                "tokenizer_class": "T5Tokenizer",
                "extra_ids": 4,
                "clean_up_tokenization_spaces": True,
                "additional_special_tokens": [f"<extra_id_{i}>" for i in range(4)],
            },
        },
    ),
    "t5, fast": ({"model_type": "t5"}, {"tokenizer.json": unigram_json}),
    "t5, both, with braces": (
        {"model_type": "t5"},
        {
            "spiece.model": lambda: pieces("unigram"),
            "tokenizer.json": lambda: with_added(unigram_json(), AddedToken("{", normalized=False), "}"),
            "tokenizer_config.json": {
                "tokenizer_class": "T5Tokenizer",
                "extra_ids": 0,
                "additional_special_tokens": [],
            },
        },
    ),
    "t5, run as it is": (
        {"model_type": "t5"},
        {
            "tokenizer.json": lambda: with_added(unigram_json(), "{"),
            "tokenizer_config.json": FAST | {"bos_token": None, "clean_up_tokenization_spaces": True},
        },
    ),
}


def fill(folder, config, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": config, **files}.items():
        content = content() if callable(content) else content
        if isinstance(content, tokenizers.Tokenizer):
            content = content.to_str()
        elif not isinstance(content, str | bytes):
            content = json.dumps(content)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(folder):
    config = json.loads((folder / "config.json").read_text())
    return formats.read(folder, config["model_type"], config)


@pytest.mark.parametrize("changed", [{}, {"remove_extra_whitespaces": True}, {"add_dummy_prefix": False}])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_model_without_a_class_is_split_as_by_sentencepiece(kind, changed, tmp_path):
    """The space before a text was left out, as transformers did before 5.24."""
    content = pieces(kind, **changed)
    ours = read(fill(tmp_path / "model", {"model_type": "llama"}, {"tokenizer.model": lambda: content}))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    plain = [text for text in HOSTILE if not any(piece in text for piece in ("<s>", "</s>", "<unk>", "<pad>"))]
    assert len(plain) > 12
    for text in plain:
        ids = theirs.encode(text)
        assert ours.encode([text])[0] == ids, text
        if theirs.unk_id() not in ids and "▁" not in text:  # SentencePiece writes a sign for what is unknown
            assert ours.decode(ids) == theirs.decode(ids), text


@pytest.mark.parametrize("name", FOLDERS)
def test_tokens_and_texts_are_those_of_transformers(name, tmp_path):
    config, files = FOLDERS[name]
    folder = fill(tmp_path / "model", config, files)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), read(folder)
    assert ours.vocab_size == max(theirs.get_vocab().values()) + 1
    if theirs.eos_token_id is not None:
        assert ours.eos_id == theirs.eos_token_id
    encoder = "t5" in name
    for text in HOSTILE:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode([text])[0] == ids, text
        start = [] if ours.bos_id is None else [ours.bos_id]
        assert theirs(text)["input_ids"] == start + ids + ([ours.eos_id] if encoder else []), text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
        assert ours.decode([*start, *ids, ours.eos_id]) == ours.decode(ids)

    ours.save(tmp_path / "vocabulary")
    again = vocabularies.load(tmp_path / "vocabulary")
    assert again.fingerprint == ours.fingerprint and again.stop_ids == ours.stop_ids
    assert again.encode(HOSTILE) == ours.encode(HOSTILE)
    assert [again.decode(i) for i in again.encode(HOSTILE)] == [ours.decode(i) for i in ours.encode(HOSTILE)]


@pytest.mark.parametrize("name", FOLDERS)
def test_an_export_is_read_as_the_same_by_transformers(name, tmp_path):
    config, files = FOLDERS[name]
    ours = read(fill(tmp_path / "model", config, files))
    back = fill(tmp_path / "back", config, {})
    formats.write(ours, back, config["model_type"])
    theirs, again = transformers.AutoTokenizer.from_pretrained(back), read(back)
    assert again.fingerprint == ours.fingerprint
    for text in HOSTILE:
        ids = ours.encode([text])[0]
        start = [] if ours.bos_id is None else [ours.bos_id]
        assert theirs(text)["input_ids"] == start + ids + ([ours.eos_id] if "t5" in name else []), text
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids), text
    assert theirs.eos_token_id == ours.eos_id


def test_an_end_that_is_normalized_is_exported_under_its_own_name(tmp_path):
    end = AddedToken("<|im_end|>", normalized=True, special=True)
    files = {"tokenizer.json": lambda: with_added(llama_json("normalizer"), end)}
    files["tokenizer_config.json"] = FAST | {"eos_token": "<|im_end|>"}
    ours = read(fill(tmp_path / "model", {"model_type": "llama"}, files))
    assert ours.control_ids["<|im_end|>"] == ours.eos_id and "▁<|im_end|>" not in ours.control_ids
    back = fill(tmp_path / "back", {"model_type": "llama"}, {})
    formats.write(ours, back, "llama")
    theirs = transformers.AutoTokenizer.from_pretrained(back)
    assert (theirs.eos_token, theirs.eos_token_id, len(theirs)) == ("<|im_end|>", ours.eos_id, ours.vocab_size)


# ------------------------------------------------------------------------------------------------------- what ends


@pytest.mark.parametrize(
    ("in_config", "generation", "stops"),
    [
        (1, None, (1,)),
        ([1, 7], None, (1, 7)),
        (1, {"eos_token_id": [1, 200]}, (1, 200)),
        (7, {"eos_token_id": 9}, (1, 9)),  # transformers asks config.json only where the other is silent
        (None, {"eos_token_id": [9, 1, 9]}, (1, 9)),
        ([7, -1], {"eos_token_id": None}, (1, 7)),
        ([7], {"eos_token_id": -1}, (1, 7)),
        (-1, {}, (1,)),
    ],
)
def test_every_end_of_sequence_is_kept(tmp_path, in_config, generation, stops):
    config = {"model_type": "llama"} | ({} if in_config is None else {"eos_token_id": in_config})
    files = {"tokenizer.json": byte_level, "tokenizer_config.json": FAST}
    files |= {} if generation is None else {"generation_config.json": generation}
    ours = read(fill(tmp_path / "model", config, files))
    assert ours.stop_ids == stops and ours.eos_id == 1
    ours.save(tmp_path / "vocabulary")
    assert vocabularies.load(tmp_path / "vocabulary").stop_ids == stops
    back = fill(tmp_path / "back", {"model_type": "llama"}, {})
    formats.write(ours, back, "llama")
    assert read(back).stop_ids == stops
    written = transformers.GenerationConfig.from_pretrained(back) if len(stops) > 1 else None
    assert written is None or tuple(written.eos_token_id) == stops
    assert read(back).fingerprint == ours.fingerprint  # texts become the same ids


@pytest.mark.parametrize("value", ["2", 2.0, True, [1, None], {"a": 1}])
def test_an_end_that_is_no_id(tmp_path, value):
    files = {"tokenizer.json": byte_level, "tokenizer_config.json": FAST}
    folder = fill(tmp_path, {"model_type": "llama"}, files | {"generation_config.json": {"eos_token_id": value}})
    with pytest.raises(FlanError, match="generation_config.json: eos_token_id is"):
        read(folder)


# ------------------------------------------------------------------------------------------------------------ chats

TURN = [{"role": "user", "content": "Is it? </s>"}]
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}{{ eos_token }}{{ image_token }}"
NAMED = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "tools {{ pad_token }}"}]


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": FAST | {"chat_template": TEMPLATE, "image_token": "<s>"}},
        {"tokenizer_config.json": FAST | {"chat_template": NAMED}},
        {"tokenizer_config.json": FAST | {"chat_template": "other"}, "chat_template.jinja": TEMPLATE},
        {
            "tokenizer_config.json": FAST | {"chat_template": "other", "pad_token": "<pad>"},
            "chat_template.jinja": TEMPLATE,
            "additional_chat_templates/tool_use.jinja": "tools {{ pad_token }}\n",
        },
    ],
)
def test_chat_templates_are_those_of_transformers(tmp_path, files):
    folder = tmp_path / "model"
    (folder / "additional_chat_templates").mkdir(parents=True)
    fill(folder, {"model_type": "llama"}, {"tokenizer.json": lambda: begun("<s>", "$A"), **files})
    ours = read(folder)
    ours.save(tmp_path / "vocabulary")
    back = fill(tmp_path / "back", {"model_type": "llama"}, {})
    formats.write(ours, back, "llama")
    for place in (folder, back):
        theirs = transformers.AutoTokenizer.from_pretrained(place)
        names = [None, *(theirs.chat_template if isinstance(theirs.chat_template, dict) else ())]
        for tokenizer in (ours, vocabularies.load(tmp_path / "vocabulary"), read(back)):
            for name in names:
                asked = {"conversation": TURN, "chat_template": name, "add_generation_prompt": True}
                expected = theirs.apply_chat_template(**asked, tokenize=False)
                assert tokenizer.chat.render(TURN, name) == expected
                ids = theirs.apply_chat_template(**asked, return_dict=False)
                assert tokenizer.encode_written([expected]) == [ids]
    assert ours.fingerprint == read(back).fingerprint


def test_the_template_of_a_processor(tmp_path):
    files = {"tokenizer.json": byte_level, "tokenizer_config.json": FAST, "chat_template.json": {"chat_template": "a"}}
    assert read(fill(tmp_path, {"model_type": "llama"}, files)).chat.render(TURN) == "a"


@pytest.mark.parametrize("value", [3, [1], [{"name": "a"}], [{"name": 1, "template": "a"}], {"a": 1}])
def test_a_template_that_is_none(tmp_path, value):
    settings = FAST | {"chat_template": value}
    with pytest.raises(FlanError, match="tokenizer_config.json"):
        read(fill(tmp_path, {"model_type": "llama"}, {"tokenizer.json": byte_level, "tokenizer_config.json": settings}))


# ---------------------------------------------------------------------------------------------------------- refused


def with_dropout():
    tokenizer = byte_level()
    tokenizer.model.dropout = 0.1
    return tokenizer


REFUSED = {
    "a class that is not covered": ({"tokenizer_class": "AlbertTokenizer"}, byte_level, "tokenizer_class is 'Albert"),
    "an end after every text": ({}, lambda: begun("$A", "</s>"), "adds </s> around every text"),
    "two before every text": ({}, lambda: begun("<s>", "</s>", "$A"), "adds <s>, </s> around"),
    "dropout": ({}, with_dropout, "dropout is 0.1"),
    "a file for other versions": (
        {"fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.0.json"]},
        byte_level,
        "fast",
    ),
    "a pattern to be mended": ({"fix_mistral_regex": True}, byte_level, "fix_mistral_regex"),
    "code of its own": (
        {"auto_map": {"AutoTokenizer": ["tokenization.Theirs", None]}},
        byte_level,
        "auto_map names code",
    ),
    "a vocabulary in the settings": ({"vocab": {}}, byte_level, "tokenizer_config.json: vocab is not covered"),
    "ids that differ": (
        {"added_tokens_decoder": {"400": OBJECT | {"content": "<tool>", "special": True}}},
        byte_level,
        "'<tool>' has the id 400 in one file and 330",
    ),
    "words in a class of bytes": ({"tokenizer_class": "GPT2Tokenizer"}, lambda: other("wordpiece"), "kind WordPiece"),
    "no end": ({"eos_token": None}, byte_level, "neither tokenizer_config.json nor config.json names an end"),
    "no word for the unknown": (
        {},
        lambda: tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "a": 2})),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_is_refused_by_name(tmp_path, name):
    settings, make, message = REFUSED[name]
    folder = fill(tmp_path, {"model_type": "llama"}, {"tokenizer.json": make, "tokenizer_config.json": FAST | settings})
    with pytest.raises(FlanError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


BROKEN = {
    "no JSON": ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n", "tokenizer.json is no JSON"),
    "nothing": ("tokenizer.json", "", "tokenizer.json is no JSON"),
    "a list of settings": ("tokenizer_config.json", [], "tokenizer_config.json holds no JSON object"),
    "a list for generation": ("generation_config.json", [1], "generation_config.json holds no JSON object"),
    "an end that is a number": ("tokenizer_config.json", FAST | {"eos_token": 1}, "eos_token must be a text"),
    "an end that is a list": ("tokenizer_config.json", FAST | {"eos_token": ["</s>"]}, "eos_token must be a text"),
    "a beginning without content": ("tokenizer_config.json", FAST | {"bos_token": {}}, "bos_token must be a text"),
    "one further token": ("tokenizer_config.json", FAST | {"extra_special_tokens": "<tool>"}, "must be a list of"),
    "added tokens without ids": (
        "tokenizer_config.json",
        FAST | {"added_tokens_decoder": ["<tool>"]},
        "added_tokens_decoder must be an object of tokens by id",
    ),
    "no added tokens": ("tokenizer_config.json", FAST | {"added_tokens_decoder": None}, "must be an object of tokens"),
    "an id that is a word": (
        "tokenizer_config.json",
        FAST | {"added_tokens_decoder": {"x": {"content": "a"}}},
        "by id",
    ),
    "an id that is a text": ("added_tokens.json", {"<tool>": "330"}, "added_tokens.json: <tool> must be a token id"),
    "half a character": (
        "tokenizer_config.json",
        json.dumps(FAST | {"chat_template": "\ud800{{ messages }}"}),
        "'default' holds half a character",
    ),
    "tiktoken's vocabulary": ("tokenizer.model", "IQ== 0\nIg== 1\n", "tokenizer.model is no SentencePiece model"),
    "a pointer to a vocabulary": ("spiece.model", "version https://git-lfs", "spiece.model is no SentencePiece model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(tmp_path, name):
    file, content, message = BROKEN[name]
    files = {"tokenizer.json": byte_level, "tokenizer_config.json": FAST, file: content}
    if file.endswith(".model"):
        del files["tokenizer.json"]
    folder = fill(tmp_path, {"model_type": "llama", "eos_token_id": 1}, files)
    with pytest.raises(FlanError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_token_for_pictures_without_an_embedding(tmp_path):
    """Gemma 3's text models have none for it."""
    spm = {"tokenizer.model": lambda: pieces("bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3)}
    plain = read(fill(tmp_path / "plain", {"model_type": "gemma3_text"}, spm))
    fast = tokenizers.Tokenizer.from_str(plain.content.decode())
    size = fast.get_vocab_size()
    fast.add_tokens([AddedToken("<image_soft_token>", special=True, normalized=False)])
    for embeddings, expected in ((size, size), (size + 1, size + 1)):
        config = {"model_type": "gemma3_text", "vocab_size": embeddings}
        ours = read(fill(tmp_path / str(embeddings), config, {"tokenizer.json": fast}))
        assert ours.vocab_size == expected
        assert max(ours.encode(["a <image_soft_token>"])[0]) < expected


def test_ids_with_gaps_count_to_the_last():
    vocabulary = {"<s>": 0, "</s>": 1, "a": 1000}
    content = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a")).to_str().encode()
    tokenizer = vocabularies.HuggingFaceTokenizer(content, 1)
    assert tokenizer.vocab_size == 1001
    with pytest.raises(FlanError, match="here: the tokenizer has 1001 ids and the model 900 embeddings"):
        vocabularies.check_fits(tokenizer, 900, "here")
    vocabularies.check_fits(tokenizer, 1001, "here")


def test_a_vocabulary_that_transformers_would_run_otherwise(tmp_path):
    ours = vocabularies.HuggingFaceTokenizer(byte_level().to_str().encode(), 1)
    with pytest.raises(FlanError, match="transformers cuts text for qwen2 in its own way"):
        formats.write(ours, fill(tmp_path / "back", {"model_type": "qwen2"}, {}), "qwen2")
