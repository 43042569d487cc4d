"""Models of transformers, imported, verified on real text against transformers itself; and what of them was changed."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers
from safetensors.numpy import load_file, save_file
from tokenizers import decoders, pre_tokenizers, trainers

import flan_jax.tasks
from flan_jax import convert, prepare
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError
from flan_jax.json_lines import read_lines
from flan_jax.verification import checks
from flan_jax.verification.findings import FAILS, HOLDS, SKIPPED
from flan_jax.verification.request import Request
from flan_jax.verification.subject import Subject

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow

LENGTHS = {"inputs": 300, "targets": 60}
SPECIAL = {"eos_token": "<eos>", "bos_token": "<bos>"}


@pytest.fixture(scope="module")
def texts():
    samples = Path(flan_jax.tasks.__file__).parent / "samples"
    rows = [row for name in ("copa", "trec") for row in read_lines(samples / name / "train.jsonl")]
    return [value for row in rows for value in row.values() if isinstance(value, str)]


def _gemma(folder, texts):
    config = transformers.Gemma3TextConfig(
        vocab_size=400, num_hidden_layers=3, hidden_size=32, num_attention_heads=4, num_key_value_heads=1, head_dim=8,
        intermediate_size=48, sliding_window=24, query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<bos>", "<eos>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=400, show_progress=False, special_tokens=special, initial_alphabet=alphabet),
    )
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _t5(folder, texts):
    config = transformers.T5Config(
        vocab_size=400, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=2, num_decoder_layers=2,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="unigram", vocab_size=290,
        hard_vocab_limit=False, pad_id=0, eos_id=1, bos_id=-1, unk_id=2, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(model.getvalue())


@pytest.fixture(scope="module")
def imported(tmp_path_factory, texts):
    """By name: the folder of transformers, the checkpoint made of it, and data prepared with its vocabulary."""
    found = {}
    for name, make in (("gemma", _gemma), ("t5", _t5)):
        folder = tmp_path_factory.mktemp(name)
        (folder / "theirs").mkdir()
        make(folder / "theirs", texts)
        convert.main([f"--from={folder / 'theirs'}", f"--to={folder / 'ours'}", "--tuning=untuned"])
        data = [f"--to={folder / 'prepared'}", f"--vocabulary={folder / 'ours' / 'vocabulary'}", "--workers=1"]
        prepare.main(["--datasets=copa,trec", *data])
        found[name] = folder / "theirs", folder / "ours", folder / "prepared"
    return found


def _run(ours, prepared, names=("huggingface",), **more):
    subject = Subject(Request(str(ours), str(prepared), examples=3, lengths=LENGTHS, **more))
    found = {finding.name: finding for finding in checks.run(subject, checks.chosen(names))}
    return found if len(names) != 1 else found[names[0]]


@pytest.mark.parametrize("name", ["gemma", "t5"])
def test_all_checks_hold(imported, name):
    """Without the gradient, which takes longest and knows nothing of imports: it is in test_checks.py."""
    theirs, ours, prepared = imported[name]
    assert Manifest.load(ours).history[0]["folder"] == theirs.name  # where it lay on this machine is nobody's business
    assert str(theirs.parent) not in (ours / "manifest.json").read_text()
    found = _run(ours, prepared, [name for name in checks.CHECKS if name != "gradient"], huggingface=str(theirs))
    assert {finding.status for finding in found.values()} == {HOLDS}, [f.line() for f in found.values()]
    compared = found["huggingface"].compared
    assert compared["examples"] == 3 and compared["texts"] == 6 and compared["special tokens"] == 2
    assert found["huggingface"].difference < 0.1 * found["huggingface"].allowed


@pytest.fixture
def changed(imported, tmp_path, request):
    """A copy of the folder of transformers, to be changed, with the checkpoint and the data."""
    theirs, ours, prepared = imported[request.param]
    shutil.copytree(theirs, tmp_path / "theirs")
    return tmp_path / "theirs", ours, prepared


both = pytest.mark.parametrize("changed", ["gemma", "t5"], indirect=True)
gemma = pytest.mark.parametrize("changed", ["gemma"], indirect=True)


@both
def test_a_changed_weight_is_found(changed):
    theirs, ours, prepared = changed
    weights = load_file(theirs / "model.safetensors")
    name = next(name for name in weights if name.endswith(("o_proj.weight", "SelfAttention.o.weight")))
    weights[name] = weights[name] * np.float32(1.01)
    save_file(weights, theirs / "model.safetensors", metadata={"format": "pt"})
    found = _run(ours, prepared, huggingface=str(theirs))
    assert found.status == FAILS and "token" in found.place and "dataset" in found.place


@gemma
def test_another_tokenizer_is_found(changed):
    theirs, ours, prepared = changed
    values = json.loads((theirs / "tokenizer.json").read_text())
    values["model"]["merges"] = values["model"]["merges"][:20]
    (theirs / "tokenizer.json").write_text(json.dumps(values))
    found = _run(ours, prepared, huggingface=str(theirs))
    assert found.status == FAILS and {"dataset", "record", "text", "token"} <= set(found.place)
    assert found.place["found"] != found.place["expected"]


def _a_merge_is_missing(values):
    values["model"]["merges"].pop()


def _letters_are_composed(values):
    values["normalizer"] = {"type": "NFKC"}


@gemma
@pytest.mark.parametrize("change", [_a_merge_is_missing, _letters_are_composed])
def test_a_tokenizer_that_differs_where_no_example_goes_is_found(changed, change):
    theirs, ours, prepared = changed
    values = json.loads((theirs / "tokenizer.json").read_text())
    change(values)
    (theirs / "tokenizer.json").write_text(json.dumps(values))
    found = _run(ours, prepared, huggingface=str(theirs))
    assert found.status == FAILS and set(found.place) == {"text", "found", "expected"}


@gemma
def test_weights_that_transformers_makes_up_or_does_not_read_are_said(changed):
    theirs, ours, prepared = changed
    weights = load_file(theirs / "model.safetensors")
    name = next(name for name in weights if "layernorm" in name)  # 0, as transformers starts it
    more = {**weights, "model.layers.0.self_attn.q_proj.bias": np.zeros(32, np.float32)}
    save_file(more, theirs / "model.safetensors", metadata={"format": "pt"})
    found = _run(ours, prepared, huggingface=str(theirs))
    assert found.status == HOLDS and "does not read 1 weight of theirs" in found.line()
    save_file({k: v for k, v in weights.items() if k != name}, theirs / "model.safetensors", metadata={"format": "pt"})
    found = _run(ours, prepared, huggingface=str(theirs))
    assert found.status == FAILS and found.place == {"weights": "missing keys", "found": [name], "expected": []}


@gemma
@pytest.mark.parametrize(
    ("setting", "value", "special"), [("eos_token", "<bos>", "end of"), ("bos_token", "a", "beginning of")]
)
def test_another_special_token_is_found(changed, setting, value, special):
    theirs, ours, prepared = changed
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL, setting: value}
    (theirs / "tokenizer_config.json").write_text(json.dumps(settings))
    found = _run(ours, prepared, huggingface=str(theirs))
    assert found.status == FAILS and found.place["special token"] == f"{special} sequence"


@gemma
def test_a_larger_vocabulary_is_found(changed):
    theirs, ours, prepared = changed
    model = transformers.AutoModelForCausalLM.from_pretrained(theirs)
    model.resize_token_embeddings(408)
    model.save_pretrained(theirs)
    found = _run(ours, prepared, huggingface=str(theirs))
    assert found.status == FAILS and found.place == {"figure": "embeddings", "found": 400, "expected": 408}


def test_what_is_no_such_model_is_refused(imported, tmp_path):
    _, ours, prepared = imported["gemma"]
    with pytest.raises(FlanError, match="there is no config.json"):
        _run(ours, prepared, huggingface=str(tmp_path))
    with pytest.raises(FlanError, match="transformers cannot load .*theirs"):  # an encoder-decoder
        _run(ours, prepared, huggingface=str(imported["t5"][0]))


def test_no_folder_and_a_model_that_was_tuned(imported, tmp_path):
    theirs, ours, prepared = imported["gemma"]
    manifest = Manifest.load(ours)
    shutil.copytree(ours, tmp_path / "tuned")
    manifest.inherit(["copa"], ["commonsense"], "eos", {"tuned on": "flan"}).save(tmp_path / "tuned")
    found = _run(tmp_path / "tuned", prepared, huggingface=str(theirs))
    assert found.status == HOLDS and "examples" not in found.compared and found.compared["texts"] == 6
    assert "logits left out: the checkpoint was tuned after theirs was imported" in found.line()
    found = _run(tmp_path / "tuned", prepared)
    assert found.status == SKIPPED and "from a folder theirs of them: give one with --huggingface" in found.reason
