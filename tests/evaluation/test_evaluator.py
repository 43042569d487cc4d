import dataclasses
import re

import jax
import pytest
import sacrebleu

from flan_jax import catalog, configuration, content, models, protocol
from flan_jax.checkpoint.manifest import DECLARED, UNTUNED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator
from flan_jax.json_lines import read_lines
from flan_jax.scoring.scorer import Scorer

WMT14 = catalog.dataset("wmt14_enfr")
BYTES = ByteTokenizer()
CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
)
SETTINGS = evaluator.Settings(max_examples=3, max_dev_examples=2, max_new_tokens=4)


def test_unknown_dataset_names_the_near_one():
    with pytest.raises(FlanError, match="did you mean 'nli'"):
        evaluator.select(["nlii"])
    with pytest.raises(FlanError, match="did you mean 'wmt14_enfr/fr-en'"):
        evaluator.select(["wmt14_enfr/fren"])
    assert [d.cluster for d in evaluator.select(["nli"])] == ["nli"] * len(catalog.datasets("nli"))


def test_a_dataset_is_all_its_variants():
    names = [d.name for d in evaluator.select(["wmt14_enfr"])]
    assert names == ["wmt14_enfr/en-fr", "wmt14_enfr/fr-en"]
    assert [d.name for d in evaluator.select(["wmt14_enfr/fr-en", "rte"])] == ["rte", "wmt14_enfr/fr-en"]
    assert [d.name for d in evaluator.select(["wmt14_enfr/fr-en", "wmt14_enfr"])] == names
    assert len(evaluator.select(["translation"])) == 2 * len(catalog.datasets("translation"))


# ------------------------------------------------------------------------------------------------------ directions


def both(identity, english, french):
    """The examples of a pair, as they are prepared."""
    out_of = {"variant": "en-fr", "source": english, "answer": french}
    out_of |= {"source_language": "English", "target_language": "French"}
    into = {"variant": "fr-en", "source": french, "answer": english}
    into |= {"source_language": "French", "target_language": "English"}
    return [(f"{identity}#en-fr", out_of), (f"{identity}#fr-en", into)]


PAIRS = [
    ("Paris 2012, Tokyo 2021", "Paris 2012, Tokyo 2021"),
    ("a dog", "un chien"),
    ("a cat", "un chat"),
    ("a cat", "le chat"),
    ("yes", "oui"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rows = {
        split: [row for n, pair in enumerate(PAIRS) for row in both(f"{split}-{n}", *pair)]
        for split in ("test", "dev", "exemplars")
    }
    rows["exemplars"] = [row for n in range(6) for row in both(f"train-{n}", f"hill {n}", f"mont {n}")]
    example_files.write_folder(folder / "examples" / "wmt14_enfr", rows)
    return folder


@pytest.fixture(scope="module")
def network():
    model = models.build(CONFIG)
    return model, jax.jit(model.init)(jax.random.key(0))


def evaluate(network, prepared, output, names=("wmt14_enfr",), manifest=None, **changes):
    manifest = manifest or Manifest.create(CONFIG, BYTES, UNTUNED, [])
    return evaluator.evaluate(
        Scorer(*network, row_lengths=(1024,)),
        BYTES,
        manifest,
        "small step 0",
        evaluator.select(names),
        prepared,
        output,
        dataclasses.replace(SETTINGS, **changes),
        generator=Generator(*network, 1),
    )


@pytest.fixture(scope="module")
def finished(network, prepared, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated")
    return evaluate(network, prepared, output), output


def test_each_direction_is_a_result_of_its_own(finished, prepared):
    results, output = finished
    assert list(results["datasets"]) == ["wmt14_enfr/en-fr", "wmt14_enfr/fr-en"]
    hashes = {}
    for name, figures in results["datasets"].items():
        variant = name.partition("/")[2]
        assert (figures["variant"], figures["paper_dataset"], figures["cluster"]) == (
            variant,
            "wmt14_enfr",
            "translation",
        )
        assert (figures["examples"], figures["dev_examples"]) == (3, 2)  # of each direction what was asked for
        asked = [row["hash"] for row in example_files.read(prepared, name, "test", 3)]
        assert figures["data"]["test"] == {"records": 3, "digest": content.digest(asked)}
        assert figures["best_dev_template"] in WMT14.forward_templates
        for template in figures["templates"]:
            _, *lines = read_lines(output / "predictions" / name / f"test_t{template['template']}.jsonl")
            assert [line["hash"] for line in lines] == asked
            assert {(line["dataset"], line["variant"]) for line in lines} == {(name, variant)}
            french = [pair[1] for pair in PAIRS[:3]]
            english = [pair[0] for pair in PAIRS[:3]]
            assert [line["references"][0] for line in lines] == (french if variant == "en-fr" else english)
            said, wanted = [line["prediction"] for line in lines], [line["references"][0] for line in lines]
            bleu = sacrebleu.corpus_bleu(said, [wanted], tokenize="intl").score
            assert 100 * template["value"] == pytest.approx(bleu, abs=1e-6)
            assert template["copies"] == 0  # a random model repeats nothing
        source = [pair[variant != "en-fr"] for pair in PAIRS[:3]]
        copied = sacrebleu.corpus_bleu(source, [wanted], tokenize="intl").score
        assert 100 * figures["copied"] == pytest.approx(copied, abs=1e-6) and copied > 0  # a name is in both
        hashes[variant] = set(asked)
    assert not hashes["en-fr"] & hashes["fr-en"]
    mean = results["clusters"]["translation"]
    assert (mean["datasets"], mean["of"], mean["partial"]) == (list(results["datasets"]), 16, True)


def test_one_direction_can_be_evaluated_alone(network, prepared, finished, tmp_path):
    results = evaluate(network, prepared, tmp_path, ("wmt14_enfr/fr-en",))
    assert list(results["datasets"]) == ["wmt14_enfr/fr-en"]
    assert results["clusters"]["translation"]["datasets"] == ["wmt14_enfr/fr-en"]
    alone, before = (dict(of["datasets"]["wmt14_enfr/fr-en"]) for of in (results, finished[0]))
    for figures in (alone, before):
        del figures["cost"]
        figures["templates"] = [{k: v for k, v in t.items() if k != "key"} for t in figures["templates"]]  # of the job
    assert alone == before


@pytest.mark.parametrize("style", ["2_shots", "2_shared_shots", "gpt3_2_shots"])
def test_exemplars_are_of_the_same_direction(network, prepared, tmp_path, style):
    evaluate(network, prepared, tmp_path, style=style, max_examples=2, max_dev_examples=0, max_new_tokens=1)
    for one in catalog.variants(WMT14):
        sides = ["hill", "mont"] if one.variant == "en-fr" else ["mont", "hill"]
        files = sorted((tmp_path / "predictions" / one.name).glob("test_*.jsonl"))
        assert files
        for path in files:
            for line in read_lines(path)[1:]:
                assert re.findall(r"hill|mont", line["prompt"]) == sides * 2 and line["shots"] == 2


def test_what_was_tuned_on_is_seen_in_both_directions(network, prepared, tmp_path):
    tuned = Manifest.create(CONFIG, BYTES, DECLARED, []).inherit(["wmt14_enfr"], ["translation"], "eos", {})
    results = evaluate(network, prepared, tmp_path, manifest=tuned, max_dev_examples=0, max_new_tokens=1)
    assert [f["status"] for f in results["datasets"].values()] == ["seen", "seen"]


def test_a_folder_with_one_direction_has_no_result_for_the_other(network, tmp_path):
    rows = [row for n, pair in enumerate(PAIRS) for row in both(f"test-{n}", *pair) if row[1]["variant"] == "en-fr"]
    example_files.write_folder(tmp_path / "examples" / "wmt14_enfr", {"test": rows})
    results = evaluate(network, tmp_path, tmp_path / "out", max_new_tokens=1)
    assert list(results["datasets"]) == ["wmt14_enfr/en-fr"]
    (skipped,) = results["skipped"]
    assert skipped["dataset"] == "wmt14_enfr/fr-en" and "no test example" in skipped["reason"]


def test_the_protocol_has_a_record_for_each_variant():
    own = protocol.of(WMT14)
    assert [one.record for one in own.variants] == list(catalog.variants(WMT14))
    assert len({one.digest for one in (own, *own.variants)}) == 3
    assert own.variants[1] == protocol.of(catalog.dataset("wmt14_enfr/fr-en"))
    coqa, rte = protocol.of(catalog.dataset("coqa")), protocol.of(catalog.dataset("rte"))
    assert coqa.variants == (coqa,) and coqa.asks_all and not rte.asks_all and not own.asks_all
