"""Writes a small random model and prepared examples of two NLI datasets: small_model.py FOLDER."""

import dataclasses
import sys
from pathlib import Path

import jax

from flan_jax import catalog, configuration, models
from flan_jax.checkpoint import saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import examples
from flan_jax.data.vocabularies import ByteTokenizer


def write(folder: Path) -> None:
    config = dataclasses.replace(
        configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
    )
    vocabulary = ByteTokenizer()
    with saving.Saver(folder / "small") as saver:
        saver.save(1, models.build(config).init(jax.random.key(0)))
    Manifest.create(config, vocabulary, UNTUNED, ()).save(folder / "small")
    vocabulary.save(folder / "small" / "vocabulary")
    for dataset, names in (("rte", ("premise", "hypothesis")), ("qnli", ("question", "sentence"))):
        words = [word for _, word in catalog.dataset(dataset).labels]
        found = {}
        for split in ("test", "dev"):
            texts = [{name: f"The {name} number {n} is short." for name in names} for n in range(2)]
            found[split] = [
                (f"{split}-{n}", {**text, "relation": "fits", "options": words, "answer": words[n]})
                for n, text in enumerate(texts)
            ]
        examples.write_folder(folder / "prepared" / "examples" / dataset, found)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
