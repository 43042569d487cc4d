"""A checkpoint folder and its manifest, which says what the model was ever tuned on.

MODEL_DIR/{config.gin, manifest.json, checkpoints/<step>/, vocabulary/, metrics.jsonl, tensorboard/}
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import models
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, user_path, write_atomic
from flan_jax.values import shown

UNTUNED = "declared untuned"  # its importer says that it never saw an instruction-tuning mixture
DECLARED = "declared"  # its importer lists the clusters
TUNED = "tuned"  # tuned here, from a known start
UNKNOWN = "unknown"

_OWN = "digest"  # the key in the file for the digest of the other entries
_CONTENT = "content"  # the key in the vocabulary's entry for its own digest


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint is and where it comes from.

    Attributes:
      model: the fields of `DecoderConfig`.
      vocabulary: kind and fingerprint, and a digest of the folder's content, which earlier versions lack.
      tuning: {"status", "datasets", "clusters", "text"}: all that was ever in its tuning mixtures, inherited. "text"
        says which records these were; each entry is {"dataset", "style", "vocabulary", "digest", "records",
        "records_digest", "wording"} from `data.stream.Stream.text`. Manifests of earlier versions lack it, or its
        "wording".
      separator: the joint between input and target in tuning, "eos" or "newline"; the one of most draws if there were
        several. None for a model that was never tuned here.
      history: one entry for each import, conversion and tuning.
    """

    model: dict[str, Any]
    vocabulary: dict[str, Any]
    tuning: dict[str, Any]
    separator: str | None = None
    history: tuple[dict[str, Any], ...] = ()

    @classmethod
    def create(
        cls,
        config: models.DecoderConfig,
        tokenizer: vocabularies.Tokenizer,
        status: str,
        clusters: Sequence[str] = (),
        record: dict[str, Any] | None = None,
    ) -> Manifest:
        """The manifest of a new checkpoint.

        Args:
          config: its shape.
          tokenizer: its vocabulary.
          status: "declared untuned", "declared" or "unknown".
          clusters: with "declared", the clusters of its tuning mixture.
          record: what was done, for the history.
        """
        return cls(
            model=config.to_dict(),
            vocabulary=_of_vocabulary(tokenizer),
            tuning={"status": status, "datasets": [], "clusters": sorted(clusters), "text": []},
            history=(_dated(record or {}),),
        )

    @classmethod
    def load(cls, model_dir: str | AnyPath) -> Manifest:
        """Reads MODEL_DIR/manifest.json.

        Raises:
          FlanError: it is missing, broken, or was changed.
        """
        path = user_path(model_dir) / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"))
            own = values.pop(_OWN, None)  # manifests of earlier versions have none
            is_whole = own is None or own == _digest(values)
            manifest = cls(**(values | {"history": tuple(values["history"])}))
            _check_entries(manifest)
        except (FileNotFoundError, NotADirectoryError) as error:
            if (path.parent / "config.json").exists() and any(True for _ in path.parent.glob("*.safetensors")):
                raise _of_transformers(model_dir) from error
            raise FlanError(
                f"no checkpoint at {model_dir}: manifest.json is missing; "
                "make one with python -m flan_jax.convert or python -m flan_jax.train."
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FlanError(f"{path} is broken ({error}); restore it or convert the checkpoint again.") from error
        if not is_whole:
            raise FlanError(
                f"{path} is damaged: it does not fit its own digest; restore it, or, where it was edited on purpose, "
                f'delete its entry "{_OWN}".'
            )
        return manifest

    def save(self, model_dir: str | AnyPath) -> None:
        """Writes MODEL_DIR/manifest.json, whole or not at all."""
        text = json.dumps(dataclasses.asdict(self) | {_OWN: self.digest()}, indent=1)
        write_atomic(user_path(model_dir) / "manifest.json", text + "\n")

    def load_vocabulary(self, model_dir: str | AnyPath) -> vocabularies.Tokenizer:
        """Reads MODEL_DIR/vocabulary.

        Raises:
          FlanError: it is missing or broken, has more ids than the model has embeddings, or is not the one in the
            manifest; or the folder is an export for transformers.
        """
        refuse_export(model_dir)
        folder = user_path(model_dir) / "vocabulary"
        tokenizer = vocabularies.load(folder)
        vocabularies.check_fits(tokenizer, self.model["vocab_size"], str(model_dir))
        wanted = self.vocabulary.get("fingerprint", tokenizer.fingerprint)
        if tokenizer.fingerprint != wanted:
            raise FlanError(
                f"{folder} is not the vocabulary of {model_dir}: its fingerprint is {tokenizer.fingerprint[:12]}, and "
                f"manifest.json has {wanted[:12]}; copy the checkpoint anew."
            )
        content = vocabularies.digest(tokenizer)
        if content != self.vocabulary.get(_CONTENT, content):
            raise FlanError(
                f"{folder} is damaged: its chat templates or its end tokens are not those that were saved; copy the "
                f'checkpoint anew, or, where they were edited on purpose, delete the entries "{_CONTENT}" of the '
                f'vocabulary and "{_OWN}" from manifest.json.'
            )
        return tokenizer

    @property
    def trained_clusters(self) -> frozenset[str] | None:
        """The clusters that the model was ever tuned on; None if nobody knows."""
        return trained_clusters(self.tuning)

    def inherit(
        self,
        datasets: Sequence[str],
        clusters: Sequence[str],
        separator: str,
        record: dict[str, Any],
        text: Sequence[dict[str, Any]] = (),
    ) -> Manifest:
        """The manifest after tuning on `datasets` of `clusters`. What was unknown stays unknown."""
        status = UNKNOWN if self.tuning["status"] == UNKNOWN else TUNED
        tuning = {
            "status": status,
            "datasets": sorted({*self.tuning["datasets"], *datasets}),
            "clusters": sorted({*self.tuning["clusters"], *clusters}),
            "text": [*(before := self.tuning.get("text", [])), *(one for one in text if one not in before)],
        }
        return dataclasses.replace(
            self, tuning=tuning, separator=separator, history=(*self.history, _dated(record | {"clusters": clusters}))
        )

    def recorded(self, record: dict[str, Any], tokenizer: vocabularies.Tokenizer) -> Manifest:
        """The manifest after a conversion, with the vocabulary that comes with it."""
        return dataclasses.replace(self, vocabulary=_of_vocabulary(tokenizer), history=(*self.history, _dated(record)))

    def digest(self) -> str:
        """Identifies the checkpoint: its history with dates, its shape and its vocabulary."""
        return _digest(dataclasses.asdict(self))

    def tuning_digest(self) -> str:
        """Identifies what it was ever tuned on: the same however often a model was converted."""
        return _digest(self.tuning)


def _check_entries(manifest: Manifest) -> None:
    """Raises a TypeError or a KeyError where entries are not what every reader takes them for."""

    def has(name: str, value: Any, kinds: type | tuple[type, ...]) -> None:
        if not isinstance(value, kinds):
            raise TypeError(f"{name} is {shown(value)}")

    for name in ("model", "vocabulary", "tuning"):
        has(name, getattr(manifest, name), dict)
    has("separator", manifest.separator, (str, type(None)))
    for name in ("kind", "fingerprint", _CONTENT):
        has(f"vocabulary.{name}", manifest.vocabulary.get(name, ""), str)
    if missing := sorted({"status", "datasets", "clusters"} - manifest.tuning.keys()):
        raise KeyError(f"tuning.{missing[0]}")
    has("tuning.status", manifest.tuning["status"], str)
    for name in ("datasets", "clusters"):
        has(f"tuning.{name}", manifest.tuning[name], list)
        for one in manifest.tuning[name]:
            has(f"an entry of tuning.{name}", one, str)
    has("tuning.text", manifest.tuning.get("text", []), list)
    for one in (*manifest.tuning.get("text", ()), *manifest.history):
        has("an entry of tuning.text or history", one, dict)


def _of_vocabulary(tokenizer: vocabularies.Tokenizer) -> dict[str, Any]:
    return {
        "kind": tokenizer.kind,
        "fingerprint": tokenizer.fingerprint,
        _CONTENT: vocabularies.digest(tokenizer),
    }


def refuse_export(model_dir: str | AnyPath) -> None:
    """Refuses a folder in the format of transformers, beside whose weights a manifest of ours lies.

    Raises:
      FlanError: it is one.
    """
    folder = user_path(model_dir)
    if (folder / "config.json").exists() and not (folder / "vocabulary").exists():
        raise _of_transformers(model_dir)


def _of_transformers(model_dir: str | AnyPath) -> FlanError:
    return FlanError(
        f"{model_dir} is in the format of transformers: take it in first, with python -m flan_jax.convert "
        f"--from={model_dir} --to=FOLDER."
    )


def trained_clusters(tuning: Mapping[str, Any]) -> frozenset[str] | None:
    """The clusters in the entry `tuning` of a manifest; None if nobody knows them all."""
    return None if tuning["status"] == UNKNOWN else frozenset(tuning["clusters"])


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _dated(record: dict[str, Any]) -> dict[str, Any]:
    return {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **record}
