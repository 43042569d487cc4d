"""Evaluates datasets with every forward template (paper, section 2.2).

Figures are the mean and spread over templates, and the template that is best on dev.

Datasets with options are scored by rank, the others by the text that the model generates. The work is divided into
units (dataset, split, template). After an interruption, finished units are not computed again.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax import catalog, distributed, own_data, protocol, styles, ways
from flan_jax.checkpoint import digests
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.line_tokens import LineTokenizer
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.decoding.generator import VERSION as generator_version
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import copying, generation, labels, prompt_store, provenance, ranking
from flan_jax.evaluation.clusters import cluster_means
from flan_jax.evaluation.figures import FILES, summarize
from flan_jax.evaluation.units import InvalidError, Left, Predictions, Unit, rows_digest
from flan_jax.files import AnyPath, user_path, write_atomic
from flan_jax.json_lines import to_json
from flan_jax.overlap import evaluated as overlap
from flan_jax.scoring.scorer import VERSION as scorer_version
from flan_jax.scoring.scorer import Scorer
from flan_jax.splits import DEV_SIZE

ENGINES = {"scorer": scorer_version, "generator": generator_version}  # what made the numbers, by version
_TREES_AT_ONCE = 256  # prompts that are scored together, so that batches are full; a killed job loses at most these


class NoResultError(FlanError):
    """The model's numbers are finite for none of the datasets.

    Attributes:
      results: results as `evaluate` returns them, with `invalid` and `skipped` but without datasets.
    """

    def __init__(self, message: str, results: dict[str, Any]) -> None:
        super().__init__(message)
        self.results = results


class BrokenOffError(FlanError):
    """An evaluation was told to end."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a result depends on besides checkpoint, templates, vocabulary and examples.

    Attributes:
      max_examples: how many test examples of each dataset and of each variant are used, the first ones; None for all.
        Every turn of a conversation is one.
      max_dev_examples: dev examples of each dataset, which choose the best template; with 0 none is chosen.
      max_input_tokens: most tokens of a prompt with its exemplars; None takes the protocol's limit. Fields of longer
        prompts are cut.
      joint: what stands between prompt and answer; "auto" takes the protocol's, another value overrides it
        (`flan_jax.protocol`).
      style: how records become prompts, for example "instructions", "gpt3", "5_shots" or "5_shared_shots"
        (`flan_jax.styles`). Shared exemplars are the same for all examples of a template, and are computed once.
      max_new_tokens: most tokens of a generated answer; None takes the limit of the dataset's metric.
      ways: names of further ways to score options, such as "pmi" and "channel" (`flan_jax.ways`), which cost more. Ways
        that cost nothing are always computed.
      computation: fields of `models.config.COMPUTATION` that differ from the model's own, for example its dtype.
      seed: the seed of exemplars and shuffled options.
    """

    max_examples: int | None = None
    max_dev_examples: int = DEV_SIZE
    max_input_tokens: int | None = None
    joint: str = protocol.AUTO
    style: str = "instructions"
    max_new_tokens: int | None = None
    ways: tuple[str, ...] = ()
    computation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def protocol_of(self, record: catalog.Dataset) -> protocol.Protocol:
        """The protocol of a dataset with these limits.

        Raises:
          FlanError: an unknown style, or a limit that is not a number of tokens.
        """
        own = protocol.of(record, styles.parse(self.style))
        return own.limited(self.max_input_tokens, max_new_tokens=self.max_new_tokens)


def select(names: Sequence[str]) -> list[catalog.Dataset]:
    """The datasets for a list of names of clusters, datasets and variants, in the catalog's order, each once.

    A dataset with variants, such as the directions of a translation, gives all its variants.

    Raises:
      FlanError: an unknown name; the message has near matches.
    """
    chosen = {one for name in names for record in catalog.named(name) for one in catalog.variants(record)}
    return [record for record in catalog.evaluated() if record in chosen]


def held_out(manifest: Manifest) -> list[catalog.Dataset]:
    """What the paper would evaluate with a checkpoint: all datasets that are held out from what it was tuned on."""
    tuned_on = frozenset(manifest.tuning["clusters"])
    return [record for record in catalog.evaluated() if catalog.is_held_out(record, tuned_on)]


def evaluate(
    scorer: Scorer,
    tokenizer: Tokenizer,
    manifest: Manifest,
    checkpoint: str,
    datasets: Sequence[catalog.Dataset],
    prepared_dir: str | AnyPath,
    output_dir: str | AnyPath,
    settings: Settings,
    *,
    weights: str | None = None,
    generator: Generator | None = None,
    allow_seen: bool = True,
    read: Callable[[protocol.Protocol], prompt_store.Records] | None = None,
    split: str = example_files.TEST,
    vocabulary: str = "",
    ending: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Evaluates datasets, and writes predictions and results.json under `output_dir`.

    Args:
      scorer: the scorer with the checkpoint's parameters.
      tokenizer: the checkpoint's vocabulary.
      manifest: the checkpoint's manifest, which says what is held out.
      checkpoint: its folder and step, for the results.
      datasets: what to evaluate, from `select`.
      prepared_dir: where `flan_jax.prepare` wrote dev and test examples.
      output_dir: EVAL_OUTPUT_DIR.
      settings: limits and style.
      weights: a digest of the parameters, which predictions are bound to; None computes it.
      generator: generates with the checkpoint's parameters; None skips the datasets without options.
      allow_seen: if False, a dataset that is not held out is refused.
      read: returns the records of a dataset; None reads test and dev records from `prepared_dir`.
      split: which records the figures are of. With "test", dev chooses the best template. With "dev" there is no best
        template, and results go to dev.json.
      vocabulary: where the vocabulary lies, which what a user is to do about a skipped dataset names.
      ending: whether to stop. It is called before each unit; in a pod, by all processes together.
      progress: called with (unit, done, total).

    Returns:
      The results, as in results.json. A dataset for which the model's numbers are not finite has no figures. `invalid`
      says where that happened, `skipped` lists the dataset, and its cluster's mean says that it is left out.

    Raises:
      FlanError: a dataset was seen and `allow_seen` is False, no dataset can be evaluated, or a way is unknown.
      NoResultError: the model's numbers are finite for none of the datasets; nothing is written.
      BrokenOffError: `ending` said so; finished predictions stay.
    """
    output = user_path(output_dir)
    own_data.use(prepared_dir)
    style = styles.parse(settings.style)
    readings = ways.readings(settings.ways)
    ways_kept = [ways.VERSION, *(reading.key for reading in readings)]
    tokenizer = LineTokenizer(tokenizer)
    store = prompt_store.PromptStore(prepared_dir, tokenizer)
    weights = weights or digests.combined(digests.of_tree(scorer.params))
    how = {record: settings.protocol_of(record) for record in datasets}
    joints = {record: how[record].joint(manifest.separator, scorer.has_encoder, settings.joint) for record in datasets}
    results: dict[str, Any] = {
        "checkpoint": checkpoint,
        "model_digest": manifest.digest(),
        "model": manifest.model,
        "engines": ENGINES,
        "tuning": manifest.tuning,
        "settings": {**dataclasses.asdict(settings), "ways": list(settings.ways)},
        # It depends only on style and model, except for what a chat template wrote.
        "joint": next((joint for _, joint in sorted(joints.items(), key=lambda one: bool(one[0].written))), None),
        "weights": weights,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "provenance": provenance.of_run(seed=settings.seed),
        **({} if split == example_files.TEST else {"split": split}),
        "datasets": {},
        "skipped": [],
        "invalid": [],
    }
    limits = (settings.max_examples, settings.max_dev_examples, settings.seed)
    read = read or (lambda asked: prompt_store.read_records(prepared_dir, asked, tokenizer, *limits))
    units: list[Unit] = []
    for record in datasets:
        status = labels.status(record, manifest.tuning)
        if status != labels.HELD_OUT and not allow_seen:
            raise FlanError(
                f"dataset {record.name} is {status} for {checkpoint}, not held out; "
                "add --allow_seen to score it all the same (it is labelled so)."
            )
        asked = how[record]
        if not asked.ranked and generator is None:
            results["skipped"].append(
                {"dataset": record.name, "reason": "a generation dataset, and this job ranks options"}
            )
            continue
        try:
            records = read(asked)
            if not dict(records.splits)[split]:
                raise FlanError(f"no {split} example of {record.name} in {prepared_dir} can be used.")
        except FlanError as error:
            prepared = example_files.has(prepared_dir, record.name, split)
            reason = str(error)
            if vocabulary and "flan_jax.prepare" in reason and "--vocabulary" not in reason:
                reason = reason.replace(" --to=", f" --vocabulary={vocabulary} --to=", 1)
            results["skipped"].append({"dataset": record.name, "reason": reason, "prepared": prepared})
            continue
        # What else predictions depend on. Each engine has its own version, because the same weights may come to give
        # other numbers.
        bound = [weights, results["model_digest"], checkpoint, tokenizer.fingerprint, joints[record]]
        bound += [["scorer", scorer_version, ways_kept] if asked.ranked else ["generator", generator_version]]
        bound += [sorted(settings.computation.items())]
        for name, rows in records.splits:
            shared = (rows, output, bound, rows_digest(rows))
            units += [Unit.create(records.builder, name, number, *shared) for number in (asked.forward if rows else ())]
    if not units:
        reasons = "; ".join(f"{s['dataset']}: {s['reason']}" for s in results["skipped"]) or "no dataset given"
        raise FlanError(f"nothing to evaluate: {reasons.rstrip('.')}.")

    found: dict[tuple[str, str, int], Predictions] = {}
    invalid: dict[str, InvalidError] = {}  # the first error of each dataset
    waiting: list[ranking.Rendered] = []
    known: ranking.Known = {}
    costs = provenance.Costs()

    def rank_waiting() -> None:
        with costs.over([rendered.unit.name[0] for rendered in waiting]):
            ranked = ranking.rank(scorer, waiting, known)
        for rendered, predictions in zip(waiting, ranked, strict=True):
            costs.trees(rendered.unit.name[0], [*rendered.trees, *rendered.of_readings])
            if isinstance(predictions, InvalidError):
                invalid.setdefault(rendered.unit.name[0], predictions)
            else:
                found[rendered.unit.name] = predictions.without_prompts()
        waiting.clear()

    for done, unit in enumerate(units):
        name, of_split, number = unit.name
        if ending():
            raise BrokenOffError(f"the evaluation of {checkpoint} was broken off after {done} of {len(units)} units.")
        progress(f"{name} {of_split} template {number}", done, len(units))
        if name in invalid:
            continue
        kept = unit.kept()
        if distributed.everywhere(kept is not None):  # processes that disagreed would wait for each other forever
            found[unit.name] = kept.without_prompts()
            costs.reused(name)
        elif unit.builder.protocol.ranked:
            with costs.over([name]):
                joint = joints[unit.builder.record]
                waiting.append(store.rendered(unit, joint, scorer.max_length, settings.ways))
            if sum(len(rendered.trees) for rendered in waiting) >= _TREES_AT_ONCE:
                rank_waiting()
        else:
            try:
                with costs.over([name]):
                    said, tokens = generation.generate(generator, tokenizer, unit, joints[unit.builder.record])
                costs.texts(name, tokens)
                found[unit.name] = said.without_prompts()
            except InvalidError as error:
                invalid[name] = error
    if waiting and ending():
        raise BrokenOffError(f"the evaluation of {checkpoint} was broken off before its last units.")
    rank_waiting()
    progress("done", len(units), len(units))

    for one in invalid.values():
        results["invalid"].append(one.entry)
        results["skipped"].append({"dataset": one.entry["dataset"], "reason": one.entry["reason"]})
    _leave_out_everywhere(units, found)
    evaluated = dict.fromkeys(unit.builder.record for unit in units)
    if all(record.name in invalid for record in evaluated):
        _remove_results(output, split)
        raise NoResultError(
            f"no result is valid for {checkpoint}: {next(iter(invalid.values()))}; look for NaN or infinite numbers in "
            "its weights, or compute in float32.",
            results | {"clusters": {}},
        )
    rows = {(unit.builder.record, unit.split): unit.rows for unit in units}
    keys = {unit.name: unit.key for unit in units}
    overlaps: dict[str, Any] = {}
    if distributed.is_primary():  # only one process writes the results
        tests = {record: rows[record, "test"] for record in evaluated if (record, "test") in rows}
        overlaps = overlap.check(manifest.tuning, tokenizer, prepared_dir, tests, progress=progress) if tests else {}
    for record in evaluated:
        if record.name in invalid:
            continue
        by_split = {
            name: {n: found[key] for n in how[record].forward if (key := (record.name, name, n)) in found}
            for name in example_files.EVALUATED
        }
        left = {name: next(iter(of.values())).left if of else () for name, of in by_split.items()}
        lines = {name: {n: one.lines for n, one in of.items() if one.lines} for name, of in by_split.items()}
        if not lines[split]:
            first = left[split][0].reason.rstrip(".")
            reason = f"no {split} example of {len(left[split])} can be asked (first: {first})"
            results["skipped"].append({"dataset": record.name, "reason": reason})
            continue
        results["datasets"][record.name] = {
            "cluster": record.cluster,
            "paper_dataset": record.paper_dataset,
            **({"variant": record.variant} if record.variant else {}),
            "status": labels.status(record, manifest.tuning),
            "label": labels.label(style, labels.status(record, manifest.tuning)),
            "protocol": how[record].digest,
            **({"shots": _shots(style.shots, lines[split])} if style.shots else {}),
            "skipped_examples": len(left[split]),
            "left_out": [{"split": name, **dataclasses.asdict(one)} for name, some in left.items() for one in some],
            "overlap": overlaps.get(record.name),
            "data": provenance.of_data({name: rows.get((record, name), ()) for name in by_split})
            | (_exemplars(prepared_dir, record) if style.shots else {}),
            "cost": costs.of(record.name),
            **provenance.with_templates(
                summarize(
                    record,
                    lines[split],
                    lines["dev"] if split != "dev" else {},
                    None
                    if how[record].ranked
                    else {row["id"]: copying.given(record, row["fields"]) for row in rows[record, split]},
                ),
                how[record].templates,
                {number: keys[record.name, split, number] for number in lines[split]},
            ),
        }
    if not results["datasets"]:
        reasons = "; ".join(f"{s['dataset']}: {s['reason'].rstrip('.')}" for s in results["skipped"])
        _remove_results(output, split)
        raise NoResultError(f"there is no result for {checkpoint}: {reasons}.", results | {"clusters": {}})
    results["clusters"] = cluster_means(results["datasets"], invalid)
    write_results(results, output)
    return results


def _shots(wanted: int, lines: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """How many exemplars the prompts of all templates have. Fewer fit beside a long text, perhaps none."""
    found = [line["shots"] for of_template in lines.values() for line in of_template]
    return {"wanted": wanted, "mean": sum(found) / len(found), "without": found.count(0), "of": len(found)}


def _exemplars(prepared_dir: str | AnyPath, record: catalog.Dataset) -> dict[str, Any]:
    """The records that exemplars are drawn from, in the form of `provenance.of_data`; empty if it is not known."""
    identity = example_files.identity(prepared_dir, record.name, example_files.EXEMPLARS)
    return {} if identity is None else {example_files.EXEMPLARS: identity}


def _leave_out_everywhere(units: Sequence[Unit], found: dict[tuple[str, str, int], Predictions]) -> None:
    """Leaves out of all templates an example that cannot be asked with one, so that templates stay comparable."""
    left: dict[tuple[str, str], list[Left]] = {}
    for (name, split, _), predictions in found.items():
        left.setdefault((name, split), []).extend(predictions.left)
    for unit in units:
        if unit.name not in found:
            continue
        before = found[unit.name]
        after = before.without(left[unit.name[:2]])
        if len(after.left) > len(before.left):
            if (whole := unit.kept()) is not None:
                unit.write(whole.without(left[unit.name[:2]]))
            found[unit.name] = after


def _remove_results(output_dir: AnyPath, split: str) -> None:
    """Removes the results of an earlier evaluation, because its predictions are being replaced."""
    if distributed.is_primary():
        (output_dir / FILES[split]).unlink(missing_ok=True)


def write_results(results: dict[str, Any], output_dir: AnyPath) -> None:
    """Writes results.json, or dev.json for dev examples. Only one process writes."""
    if distributed.is_primary():
        name = FILES[results.get("split", example_files.TEST)]
        write_atomic(output_dir / name, to_json(results, indent=1, what=name))
