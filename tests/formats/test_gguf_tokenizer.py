"""Vocabularies of GGUF files by llama.cpp's rules; where transformers reads them too, its pipeline is the reference."""

import json

import pytest
from test_gguf import TEXTS, _arrays, _bpe, _sentencepiece, _write

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats import gguf as reader
from flan_jax.formats import gguf_tokenizer

HOSTILE = [
    *TEXTS,
    "",
    " ",
    "a   b<think>c</think>  d",
    "<|endoftext|>x<|im_end|>",
    "12345 67 8a",
    "I'M DON'T we'LL it's 'Sſ",
    "e\u0301 É ﬁ ½",
    "tab\t\n\n \n  x",
]


class Meta(dict):
    def __missing__(self, name):
        raise FlanError(f"lacks the field {name}")


def spm(more=(), drop=(), **changed):
    """Fields of a SentencePiece vocabulary; `more` are (text, type)."""
    model = _sentencepiece()
    kinds = [
        2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
        for i in range(model.vocab_size())
    ]
    texts = [model.id_to_piece(i) for i in range(model.vocab_size())]
    for i, text in enumerate(texts):
        if text in ("\n", "\n\n", "▁▁", "▁▁▁"):
            kinds[i], texts[i] = 4, text.replace("▁", " ")
    scores = [model.get_score(i) for i in range(model.vocab_size())]
    fields = {
        "model": "llama",
        "tokens": [*texts, *(text for text, _ in more)],
        "scores": [*scores, *[0.0 for _ in more]],
        "token_type": [*kinds, *(kind for _, kind in more)],
        "padding_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "unknown_token_id": 3,
    }
    fields = {name: value for name, value in {**fields, **changed}.items() if name not in drop}
    return Meta({f"tokenizer.ggml.{name}": value for name, value in fields.items()})


def bpe(more=(), drop=(), **changed):
    tokenizer = _bpe()
    texts = [text for text, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    merges = [" ".join(m) if isinstance(m, list) else m for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": [*texts, *(text for text, _ in more)],
        "token_type": [*(3 if text.startswith("<|") else 1 for text in texts), *(kind for _, kind in more)],
        "merges": merges,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    fields = {name: value for name, value in {**fields, **changed}.items() if name not in drop}
    return Meta({f"tokenizer.ggml.{name}": value for name, value in fields.items()})


@pytest.mark.parametrize(
    ("meta", "bos"),
    [
        (lambda: spm(), 2),
        (lambda: spm(add_bos_token=True), 2),
        (lambda: spm(add_bos_token=False), None),
        (lambda: spm(drop=["bos_token_id"]), 1),
        (lambda: bpe(), None),
        (lambda: bpe(add_bos_token=True), 0),
        (lambda: bpe(pre="llama-bpe"), 0),
        (lambda: bpe(pre="tekken"), 0),
        (lambda: bpe(pre="llama-bpe", add_bos_token=False), None),
        (lambda: bpe(pre="qwen2"), None),
        (lambda: bpe(pre="dbrx", drop=["bos_token_id"]), None),
    ],
)
def test_texts_begin_as_in_llama_cpp(meta, bos):
    assert gguf_tokenizer.read(meta(), "a.gguf").bos_id == bos


def test_a_file_without_add_bos_token(tmp_path):
    pieces = _sentencepiece()
    path = _write(tmp_path / "small.gguf", "gemma3", pieces, _arrays("gemma3", pieces.vocab_size()))
    content = path.read_bytes().replace(b"tokenizer.ggml.add_bos_token", b"tokenizer.ggml.add_bos_other")
    path.write_bytes(content)
    assert reader.read(path).tokenizer.bos_id == 2


@pytest.mark.parametrize("make", [spm, bpe], ids=["llama", "gpt2"])
def test_only_control_tokens_vanish(make, tmp_path):
    more = [("    ", 4), ("<think>", 4), ("</think>", 4), ("<tool>", 3), ("[\n]", 4)]
    ours = gguf_tokenizer.read(make(more), "a.gguf")
    count = ours.vocab_size - len(more)
    text = "a    b<think>c</think>\n[\n]"
    (ids,) = ours.encode([text])
    assert {count, count + 1, count + 2, count + 4} <= set(ids)
    assert ours.decode(ids) == text
    assert ours.decode([*ids, count + 3, ours.eos_id]) == text
    assert ours.encode_written(["a<tool>b"])[0][1] == count + 3
    assert ours.decode_written(ours.encode_written(["a<tool>b"])[0]) == "a<tool>b"
    if make is spm:  # the unknown token can be written out, where a text is a template's
        assert 3 in ours.encode_written(["a<unk>b"])[0] and 3 not in ours.encode(["a<unk>b"])[0]
    ours.save(tmp_path)
    assert vocabularies.load(tmp_path).decode(ids) == text


@pytest.mark.parametrize(
    ("meta", "stops"),
    [
        (lambda: bpe(), {0, 1}),  # both texts are among those that end a turn
        (lambda: bpe([("<|eot_id|>", 3), ("</s>", 3), ("<s>", 3)]), {0, 1, "<|eot_id|>", "</s>"}),
        (lambda: bpe([("<done>", 3)], eot_token_id=400, drop=["nothing"]), {0, 1, "<done>"}),
        (lambda: bpe([("<eos>", 1)]), {0, 1}),  # a word that looks like one
        (lambda: bpe([("<|end|>", 1), ("<|eot_id|>", 4)]), {0, 1, "<|end|>", "<|eot_id|>"}),  # whatever its type
        (lambda: spm([("<|im_end|>", 4)]), {1, "<|im_end|>"}),
        (lambda: spm(), {1}),
        (lambda: spm([("<end_of_turn>", 3)]), {1, "<end_of_turn>"}),
        (lambda: spm(eom_token_id=2), {1, 2}),
    ],
)
def test_what_ends_a_generation(meta, stops):
    fields = meta()
    texts = fields["tokenizer.ggml.tokens"]
    if "tokenizer.ggml.eot_token_id" in fields:
        fields["tokenizer.ggml.eot_token_id"] = texts.index("<done>")
    ours = gguf_tokenizer.read(fields, "a.gguf")
    expected = {texts.index(stop) if isinstance(stop, str) else stop for stop in stops}
    if "</s>" in texts and fields["tokenizer.ggml.model"] == "llama":
        expected.add(texts.index("</s>"))
    assert set(ours.stop_ids) == expected and ours.stop_ids[0] == ours.eos_id == 1
    for stop in (stop for stop in stops if isinstance(stop, str)):
        (ids,) = ours.encode_written([f"a{stop}b"])
        assert texts.index(stop) in ids and stop not in ours.decode(ids)


@pytest.mark.parametrize("pre", ["llama-bpe", "tekken", "qwen2", "dbrx", "deepseek-r1-qwen"])
def test_text_is_cut_as_transformers_cuts_it(pre):
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    fields = bpe([("<think>", 4)], pre=pre)
    names = {"model": "tokenizer_type", "pre": "pre_tokenizer_type", "tokens": "tokens", "token_type": "token_type"}
    names |= {"merges": "merges", "bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id"}
    theirs, _ = mapping.convert_gguf_tokenizer(
        "llama", {new: fields[f"tokenizer.ggml.{n}"] for n, new in names.items()}
    )
    ours = gguf_tokenizer.read(fields, "a.gguf")
    for text in HOSTILE:
        text = text.replace("ſ", "")  # a long s is an s to a pattern that ignores case, which llama.cpp's does not
        assert ours.encode([text])[0] == theirs.encode(text, add_special_tokens=False).ids, text


def test_words_that_are_tokens_need_no_merges():
    """Llama 3's merges do not make all of its tokens."""
    more = [("Ġzebra", 1)]
    whole = gguf_tokenizer.read(bpe(more, pre="llama-bpe"), "a.gguf")
    assert whole.encode([" zebra"]) == [[whole.vocab_size - 1]]
    assert len(gguf_tokenizer.read(bpe(more, pre="qwen2"), "a.gguf").encode([" zebra"])[0]) > 1


def test_chat_templates_travel(tmp_path):
    fields = bpe()
    fields |= {"tokenizer.chat_template": "{{ eos_token }}é", "tokenizer.chat_template.tool_use": "t"}
    fields["tokenizer.chat_templates"] = ["tool_use"]
    ours = gguf_tokenizer.read(fields, "a.gguf")
    ours.save(tmp_path)
    found = vocabularies.load(tmp_path).chat
    assert found.render([{"role": "user", "content": ""}]) == "<|im_end|>é"
    assert set(found.templates) == {"default", "tool_use"}


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (lambda: spm(add_eos_token=True), "add_eos_token is set"),
        (lambda: bpe(add_eos_token=True), "add_eos_token is set"),
        (lambda: spm(eos_token_id=4000), "eos_token_id is 4000, which is none of its"),
        (lambda: bpe(eot_token_id=4000), "eot_token_id is 4000"),
        (lambda: bpe(drop=["eos_token_id"]), "lacks the field tokenizer.ggml.eos_token_id"),
        (lambda: bpe(add_bos_token=True, drop=["bos_token_id"]), "lacks the field tokenizer.ggml.bos_token_id"),
        (lambda: bpe(drop=["pre"]), "cuts text as None"),
        (lambda: bpe(pre="default"), "cuts text as 'default'"),
        (lambda: bpe(model="t5"), "kind 't5'"),
        (lambda: bpe([("Ġthe", 1), ("Ġthe", 1)]), "'Ġthe' twice"),
        (lambda: bpe(token_type=[1, 2]), "and 2 token types"),
        (lambda: bpe(drop=["token_type"]), "lacks the field"),
        (lambda: spm(drop=["scores"]), "lacks the field"),
    ],
)
def test_what_is_not_covered_is_refused(meta, message):
    with pytest.raises(FlanError, match=message) as caught:
        gguf_tokenizer.read(meta(), "a.gguf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_more_ids_than_embeddings(tmp_path, architecture):
    tokenizer = _bpe() if architecture == "llama" else _sentencepiece()
    size = tokenizer.get_vocab_size() if architecture == "llama" else tokenizer.vocab_size()
    path = _write(tmp_path / "small.gguf", architecture, tokenizer, _arrays(architecture, size - 1))
    with pytest.raises(FlanError, match=f"the tokenizer has {size} ids and the model {size - 1} embeddings"):
        reader.read(path)
    assert (
        reader.read(
            _write(tmp_path / "more.gguf", architecture, tokenizer, _arrays(architecture, size + 3))
        ).config.vocab_size
        == size + 3
    )
