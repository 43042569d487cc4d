"""E1: an imported encoder-decoder is asked as T5 was trained, against `transformers` computed by hand."""

import io
import json

import jax
import numpy as np
import pytest
import sentencepiece

from flan_jax import catalog, convert, partitioning, protocol
from flan_jax import eval as eval_binary
from flan_jax.checkpoint import arrays
from flan_jax.data import examples as example_files
from flan_jax.decoding.generator import Generator
from flan_jax.evaluation import evaluator
from flan_jax.json_lines import read_lines
from flan_jax.scoring.scorer import Scorer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = [
    "Grass is green and the sky is blue.",
    "Who wrote the book? Nobody knows, yes or no.",
    "OPTIONS: - yes - no A B",
]
SHAPE = {"vocab_size": 128, "d_model": 48, "d_kv": 12, "d_ff": 80, "num_heads": 4, "num_layers": 2}
SHAPE |= {"num_decoder_layers": 2, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0}
RTE = [
    {"premise": "Grass is green.", "hypothesis": "It is blue.", "relation": "x", "options": ["yes", "no"], "answer": a}
    for a in ("no", "yes")
]
NQ = [{"question": "who wrote the book?", "answer": "nobody", "references": ["nobody"]}]
SETTINGS = evaluator.Settings(max_dev_examples=0, max_new_tokens=6)


@pytest.fixture(scope="module", params=["tied", "v1.1"])
def imported(request, tmp_path_factory):
    """(transformers' model, its vocabulary, the folder of our import, the style that it is asked in)."""
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    config = transformers.T5Config(**SHAPE, tie_word_embeddings=request.param == "tied", decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape) * (0.3 if weight.ndim == 1 else 2 * weight.shape[1] ** -0.5))
    model.save_pretrained(folder / "theirs")
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=pieces,
        vocab_size=100,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "theirs" / "spiece.model").write_bytes(pieces.getvalue())
    convert.main([f"--from={folder / 'theirs'}", f"--to={folder / 'ours'}", "--tuning=all"])
    style = "instructions" if request.param == "tied" else "gpt3"
    return model, sentencepiece.SentencePieceProcessor(model_proto=pieces.getvalue()), folder / "ours", style


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for dataset, rows in (("rte", RTE), ("natural_questions", NQ)):
        test = [(f"{n}", row) for n, row in enumerate(rows)]
        example_files.write_folder(folder / "examples" / dataset, {"test": test, "dev": []})
    return folder


def by_hand(model, pieces, prompt, option):
    """Encoder: prompt EOS. Decoder: 0 option EOS, of which option and EOS are scored."""
    answer = [*pieces.encode(option), 1]
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor([[*pieces.encode(prompt), 1]])}
        logits = model(**inputs, decoder_input_ids=torch.tensor([[0, *answer[:-1]]])).logits[0].double()
    return float(torch.log_softmax(logits, -1)[torch.arange(len(answer)), torch.tensor(answer)].sum())


@pytest.fixture(scope="module")
def evaluated(imported, prepared, tmp_path_factory):
    output, style = tmp_path_factory.mktemp("out"), imported[3]
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    network, params, tokenizer, manifest = arrays.load_model(imported[2], mesh=mesh)
    assert manifest.separator is None  # it was never tuned here
    results = evaluator.evaluate(
        Scorer(network, params, mesh=mesh),
        tokenizer,
        manifest,
        "t5 step 0",
        evaluator.select(["rte", "natural_questions"]),
        prepared,
        output,
        evaluator.Settings(style=style, max_dev_examples=0, max_new_tokens=6, ways=("pmi", "channel")),
        generator=Generator(network, params, tokenizer.stop_ids, mesh=mesh),
    )
    return output, results


def test_options_are_scored_as_transformers_scores_them(imported, evaluated):
    model, pieces, _, style = imported
    output, results = evaluated
    assert results["joint"] == "eos"
    record, checked, spread = catalog.dataset("rte"), 0, []
    numbers = record.forward_templates if style == "instructions" else (0,)
    for number in numbers:
        for line in read_lines(output / "predictions" / "rte" / f"test_t{number}.jsonl")[1:]:
            expected = [by_hand(model, pieces, line["prompt"], option) for option in line["options"]]
            np.testing.assert_allclose(line["loglikelihood"], expected, atol=1e-4)
            assert line["tokens"] == [len(pieces.encode(option)) + 1 for option in line["options"]]
            tail = "Is the statement true or false?\nAnswer:" if style == "gpt3" else ""
            if style == "gpt3" or protocol.of(record).premise(number) == "":
                alone = [by_hand(model, pieces, tail, option) for option in line["options"]]
                np.testing.assert_allclose(line["unconditional"], alone, atol=1e-4)
            # The encoder reads the option, and the decoder says the record's bare input.
            row = RTE[int(line["id"])]
            bare = f"{row['premise']}\n{row['hypothesis']}"
            channel = [by_hand(model, pieces, option, bare) for option in line["options"]]
            np.testing.assert_allclose(line["channel"], channel, atol=2e-4)
            spread += line["loglikelihood"]
            checked += 1
    assert checked == 2 * len(numbers) and np.std(spread) > 0.1


def test_answers_are_generated_as_transformers_generates_them(imported, evaluated):
    model, pieces, *_ = imported
    for line in read_lines(evaluated[0] / "predictions" / "natural_questions" / "test_t0.jsonl")[1:]:
        ids = torch.tensor([[*pieces.encode(line["prompt"]), 1]])
        said = model.generate(ids, max_new_tokens=6, do_sample=False)[0].tolist()[1:]
        ended = 1 in said
        said = said[: said.index(1)] if ended else said
        assert line["prediction"] == pieces.decode([i for i in said if i < pieces.get_piece_size()]).strip()
        assert line["finish"] == ("eos" if ended else "length")


def test_items_have_eos_too(imported, tmp_path, capsys):
    model, pieces, folder, _ = imported
    (tmp_path / "in.jsonl").write_text(
        json.dumps({"id": 1, "prompt": "Who wrote the book?", "options": [" A B", "no"]})
    )
    arguments = [f"--items={tmp_path / 'in.jsonl'}", f"--checkpoint={folder}", f"--output={tmp_path / 'out.jsonl'}"]
    eval_binary.main(arguments)
    assert "joint eos: prompt and answer each end with EOS, as in tuning (by the checkpoint)" in capsys.readouterr().out
    line = json.loads((tmp_path / "out.jsonl").read_text())
    expected = [by_hand(model, pieces, "Who wrote the book?", option) for option in ("A B", "no")]
    np.testing.assert_allclose(line["loglikelihood"], expected, atol=1e-4)
    with pytest.raises(SystemExit):
        eval_binary.main([*arguments, "--joint=newline"])
    assert "this model has an encoder" in capsys.readouterr().err
