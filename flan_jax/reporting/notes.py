"""Notes below the tables: what a reader must know to trust them, in a sentence or two each."""

from __future__ import annotations

import collections
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from flan_jax import catalog
from flan_jax.data import drafts
from flan_jax.evaluation import clusters
from flan_jax.reporting import asked, forms
from flan_jax.reporting.comparisons import Comparison, tests
from flan_jax.reporting.evidence import NOT_AT_HAND, Evidence
from flan_jax.reporting.runs import SAME, Run, baseline, baselines, common, dataset_names, metric
from flan_jax.reporting.statistics import LEVEL, MIN_PAIRS, PERMUTATIONS, REPLICATES
from flan_jax.reporting.tables import cluster_title, percent
from flan_jax.wording import counted


def notes(runs: Sequence[Run], evidence: Evidence) -> list[str]:
    """The notes of a report."""
    found = [
        "Figures in percent. Options are ranked by the sum of their tokens' log-likelihoods, ties to the first. "
        "n is the number of test examples. Mean and standard deviation are over the forward templates; best dev is the "
        "test score of the template that is best on the dev examples; random and majority are baselines for options, "
        "and copied is the one for generated text: what was given, repeated as the answer; most frequent "
        'is the share of the answer that was given most often; "constant" are templates with which it never varies.',
        "A cluster's mean is over the datasets that all runs with anything of the cluster have; every variant of a "
        "dataset counts by itself, as in the paper. Datasets that are not among the paper's 62 are in no mean.",
    ]
    if any(figures.get("shots") for run in runs for figures in run.datasets.values()):
        found.append(
            "Shots are the exemplars of a prompt, on average over examples and templates: as many as fit into the "
            "budget of the protocol, which beside long texts is few or none."
        )
    if any(run.members for run in runs):
        found.append(
            "A group's mean and standard deviation are over its runs, and not over templates. Its intervals resample "
            "examples and templates of the mean of its runs, and take the runs as given."
        )
    found += [line for over in common(runs).values() for line in _of_mean(over)]
    found += _of_copying(runs)
    found += _of_baselines(runs)
    found += _of_examples(runs, evidence)
    if any(evidence.intervals.values()):
        found.append(
            f"Intervals are bootstraps with {REPLICATES:,} resamples, the central 95 %. Over examples they hold for "
            "these templates; over examples and templates, each resampled by itself, for other templates of the same "
            "make too. With a handful of templates the latter are rough, and too narrow rather than too wide."
        )
    found += _of_certainty(evidence)
    found += _of_dependence(evidence)
    if any(c.datasets for c in evidence.comparisons):
        found.append(
            "Differences are in points, over the records that both runs have, paired by their content. p is of a "
            f"two-sided permutation test over examples ({PERMUTATIONS:,} draws of signs): of an example's mean over "
            "the templates, or, where the metric is no mean over examples, of what the example adds to the figure (its "
            f"pseudo-value by the jackknife). p (Holm) is corrected for all {tests(evidence.comparisons)} tests of "
            f"this report; a verdict stands where it is below {LEVEL}, and none below {MIN_PAIRS} independent examples."
        )
    if any(figures.get("best_dev_way") for run in runs for figures in run.datasets.values()):
        found.append(
            "Ways to score: the one that is best on the dev examples, by its mean over the templates, is named with "
            "its test figure. All other figures and tests are of the sum."
        )
    if forms.pairs(runs):
        found.append(
            "Full text or letters: the form with the higher mean over the templates on the dev examples is named with "
            "its mean on test; of equals it is the full text."
        )
    if any(evidence.calibration(run.name) for run in runs):
        found.append(
            "Probabilities are the softmax over the options of the summed log-likelihoods. ECE, the expected "
            "calibration error, is the mean distance between confidence and accuracy over ten bins of equal width, "
            "weighted by count."
        )
    for run in runs:
        found += _of_run(run, evidence)
    found += _of_weights(runs)
    for comparison in evidence.comparisons:
        found += of_comparison(comparison, runs)
    return found


def of_comparison(comparison: Comparison, runs: Sequence[Run]) -> Iterable[str]:
    """What a reader must know of a comparison: what is not compared, and what was asked in other words."""
    pair = f"{comparison.other} beside {comparison.first}"
    for why, names in _by_reason(comparison.apart).items():
        yield f"{pair}: {', '.join(names)} not compared: {why}."
    if comparison.reworded:
        yield (
            f"{pair}: {', '.join(comparison.reworded)} asked in other words, or with other templates. There the "
            "difference is of model and wording together."
        )
    if comparison.other_exemplars:
        yield (
            f"{pair}: {', '.join(comparison.other_exemplars)} asked with other exemplars. There the difference is of "
            "model and exemplars together."
        )
    both = [set(run.datasets) for run in runs if run.name in (comparison.first, comparison.other)]
    compared = [run for run in runs if run.name in (comparison.first, comparison.other)]
    reworded = {(asked.PROTOCOL, name) for name in comparison.reworded}  # of which it is said already
    for one, names in _unlike(compared, comparison.datasets, reworded).items():
        yield f"{pair}: {', '.join(names)} {one.said}. There the difference is of model and {one.of} together."
    if not set.intersection(*both):
        yield f"{pair}: nothing is compared, as they have no dataset in common."


def _unlike(
    runs: Sequence[Run], datasets: Iterable[str], known: Collection[tuple[str, str]] = ()
) -> dict[asked.Unlike, list[str]]:
    """In what runs were not asked alike, with the datasets; without what is known by (key, dataset)."""
    found: dict[asked.Unlike, list[str]] = {}
    for name in datasets:
        for one in asked.differences(runs, name):
            if (one.key, name) not in known:
                found.setdefault(one, []).append(name)
    return found


def _of_group(group: Run) -> Iterable[str]:
    """What the runs of a group do not share, besides models and seeds."""
    seeds = {(key, name) for key in asked.SEEDS for name in group.datasets}
    for one, names in _unlike(group.members, group.datasets, seeds).items():
        yield (
            f"{group.name}: its runs were {one.said} on {', '.join(names)}. Their mean and spread are of models and "
            f"{one.of} together."
        )
    each = {name: [figures for run in group.members if (figures := run.figures(name))] for name in group.datasets}
    if other := [name for name, figures in each.items() if not asked.same_dev(figures)]:
        yield f"{group.name}: its runs have other dev examples of {', '.join(other)}, so nothing is best on dev there."


def _of_examples(runs: Sequence[Run], evidence: Evidence) -> Iterable[str]:
    """Names datasets whose examples differ between runs."""
    found = []
    for name in dataset_names(runs):
        counts = {run.name: figures["examples"] for run in runs if (figures := run.figures(name))}
        shared = [c.datasets[name].examples for c in evidence.comparisons if name in c.datasets]
        if len(set(counts.values())) > 1 or min(shared, default=max(counts.values())) < max(counts.values()):
            found.append(f"{name} ({', '.join(f'{run} {count}' for run, count in counts.items())})")
    if found:
        yield (
            f"The runs have other examples of {', '.join(found)}: their figures and means stand side by side, and are "
            "not of the same examples; only the differences are."
        )


def _of_copying(runs: Sequence[Run]) -> Iterable[str]:
    """Names datasets on which repeating the given text has more than a model."""
    found = []
    for name in dataset_names(runs):
        of_runs = {run.name: figures for run in runs if (figures := run.figures(name))}
        below: dict[str, list[str]] = {}
        for run, figures in of_runs.items():
            alike = [one for one in of_runs.values() if one["examples"] == figures["examples"]]
            copied = baseline([figures, *alike], "copied")
            if copied is not None and figures["mean"] < copied:
                below.setdefault(percent(copied), []).append(run)
        for copied_, who in below.items():
            models = "every model" if len(who) == len(of_runs) > 1 else ", ".join(who)
            found.append(f"{name} ({copied_}, more than {models})")
    if found:
        yield (
            f"Repeating the given text as the answer has {', '.join(found)}: there the metric rewards shared words, "
            "and a gain may be of copying."
        )


def _of_baselines(runs: Sequence[Run]) -> Iterable[str]:
    """Names baselines that differ between runs, or those of a group, which have no column then."""
    found = []
    single = [one for run in runs for one in run.members or (run,)]
    for name in dataset_names(runs):
        of_runs = {run.name: figures for run in single if (figures := run.figures(name))}
        for key in clusters.BASELINES:
            there = baselines(of_runs.values(), key)
            if there and max(there) - min(there) >= SAME:
                said = [f"{percent(f[key])} in {run}" for run, f in of_runs.items() if f.get(key) is not None]
                found.append(f"{key} of {name} ({', '.join(said)})")
    if found:
        yield f"Baselines that differ between runs stand here alone: {'; '.join(found)}."


def _of_certainty(evidence: Evidence) -> Iterable[str]:
    """Names intervals that have no width."""
    found = {
        run: [name for name, (over_examples, _) in of.items() if over_examples.has_no_width]
        for run, of in evidence.intervals.items()
    }
    if any(found.values()):
        listed = "; ".join(f"{run}: {', '.join(names)}" for run, names in found.items() if names)
        yield (
            "An interval of no width is no certainty: where all examples have the same value, every resample has it "
            f"too, and n examples do not rule out a true figure some 3/n away ({listed})."
        )


def _of_dependence(evidence: Evidence) -> Iterable[str]:
    """Says what intervals and tests draw, if it is not single examples with a value each."""
    together: dict[str, str] = {}
    summed: dict[str, str] = {}
    for values in evidence.values.values():
        for name, value in values.items():
            if (groups := value.sample().size) < len(value.ids):
                together.setdefault(name, f"{name} ({groups} of {len(value.ids)})")
            if value.values_ExT is None:
                summed.setdefault(name, f"{name} ({value.metric})")
    if together:
        yield (
            "Examples that share a passage are not independent, such as the turns of a conversation: intervals and "
            f"tests draw each passage with all its examples. Passages of examples: {', '.join(together.values())}."
        )
    if summed:
        yield (
            "Metrics of a whole set, without a value of a single example: their intervals compute the metric for every "
            f"resample of the examples. {', '.join(summed.values())}."
        )


def _of_mean(over: Any) -> Iterable[str]:
    title = cluster_title(over.cluster)
    if over.partial and over.datasets:
        yield f"{title}: the mean is over {over.count} datasets of the cluster: {', '.join(over.datasets)}."
    if over.not_shared:
        yield f"{title}: {', '.join(over.not_shared)}, which not all runs have, in no mean."
    if over.other_metric:
        yield f"{title}: {', '.join(over.other_metric)} in no mean: the runs measure by different metrics."
    mixed = [name for name in over.apart if catalog.exists(name) and catalog.dataset(name).variants]
    if mixed:
        yield f"{title}: {', '.join(mixed)} of an earlier version, variants in one figure, in no mean: evaluate again."
    if over.of and (extras := [name for name in over.apart if name not in mixed]):
        yield f"{title}: {', '.join(extras)} not of the paper, in no mean."


def _of_run(run: Run, evidence: Evidence) -> Iterable[str]:
    results = run.results
    yield _what(run)
    if run.members:
        yield from _of_group(run)
    if draft := drafts.said_of(results):
        yield f"{run.name} was tuned on {draft}."
    yield from of_unusable(run.name, evidence)
    left = {
        name: figures["skipped_examples"] for name, figures in run.datasets.items() if figures.get("skipped_examples")
    }
    if left:
        listed = ", ".join(f"{count} of {name}" for name, count in left.items())
        yield f"{run.name} left out test examples that could not be asked: {listed}. Its results say which and why."
    if unfinished := list(_answers(run, "unfinished")):
        yield (
            f"{run.name} has answers that ended at the most tokens that were allowed, and might have gone on: "
            f"{', '.join(unfinished)}."
        )
    if lower := [
        f"{name} ({metric(figures)})" for name, figures in run.datasets.items() if figures.get("lower_is_better")
    ]:
        yield f"{run.name}: lower is better for {', '.join(lower)}."
    if unread := [name for name, figures in run.datasets.items() if not figures.get("options_read", True)]:
        yield (
            f"{run.name}: which option is right cannot be read from the log of {', '.join(unread)}: the figure is the "
            "harness's own, and there is no calibration."
        )
    if copies := list(_answers(run, "copies")):
        yield f"{run.name} has answers that are the given words and no others: {', '.join(copies)}."
    yield from (f"{run.name}: {line}" for line in _undefined(results["datasets"]))
    yield from (f"{run.name} skipped {line}" for line in skipped(results.get("skipped", ())))


def _of_weights(runs: Sequence[Run]) -> Iterable[str]:
    """Names runs of the same weights whose records of the tuning differ: one of the two is wrong."""
    seen: dict[str, Run] = {}
    for run in runs:
        weights, said = str(run.results.get("weights") or ""), tuned_on(run.results.get("tuning") or {})
        other = seen.setdefault(weights, run) if weights else run
        if said != (before := tuned_on(other.results.get("tuning") or {})):
            yield (
                f"{other.name} and {run.name} are of the same weights, and their records of the tuning differ "
                f"({before}; {said}): one of the two is wrong, and so may be its labels."
            )


def of_unusable(run: str, evidence: Evidence) -> Iterable[str]:
    """Which predictions of a run give no values, and why."""
    for why, names in _by_reason(evidence.unusable[run]).items():
        what = "no predictions of single examples" if why == NOT_AT_HAND else f"no values of single examples ({why})"
        yield (
            f"{run} has {what} for {', '.join(names)}: left out of differences, intervals, calibration and clean "
            "subsets."
        )


def _answers(run: Run, kind: str) -> Iterable[str]:
    """How many answers of each dataset are of a kind that its templates count: "30 of 120 of xsum"."""
    for name, figures in run.datasets.items():
        counts = [t[kind] for t in figures["templates"] if kind in t]  # of an earlier version, not all are counted
        count, of = sum(counts), figures["examples"] * len(counts) * max(1, len(run.members))
        if count:
            yield f"{count} of {of} of {name}"


def _what(run: Run) -> str:
    results = run.results
    what = f"{run.title}: {results['checkpoint']}"
    if run.members:
        what = f"{run.title}: {', '.join(one.name for one in run.members)}; {results['checkpoint']}"
    tunings = results.get("tunings") or {}
    if tunings:
        what += "".join(f"; {name}: {tuned_on(tuned)}" for name, tuned in tunings.items())
    elif results.get("tuning"):
        what += f", {tuned_on(results['tuning'])}"
    if joint := results.get("joint") or results.get("separator"):
        what += f"; prompt and option joined by {joint}"
    cut = sum(t.get("cut_prompts", 0) for d in results["datasets"].values() for t in d["templates"])
    return what + (f"; {cut} prompts shortened to fit." if cut else ".")


def tuned_on(tuning: Mapping[str, Any]) -> str:
    """What a checkpoint was tuned on, such as "tuned; its tuning mixtures held sentiment"."""
    what = str(tuning.get("status", "unknown"))
    return what + (f"; its tuning mixtures held {', '.join(tuning['clusters'])}" if tuning.get("clusters") else "")


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in reasons.items():
        found.setdefault(why, []).append(name)
    return found


def _undefined(datasets: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """A line for each metric that counts as 0 because its answers never vary."""
    for name, figures in datasets.items():
        counts = collections.Counter(m for t in figures["templates"] for m in t.get("undefined", ()))
        for value, count in counts.items():
            which = f"{count} of {counted(len(figures['templates']), 'templates')}"
            yield f"{value} of {name} is undefined with {which}, where all answers are the same, and counts as 0 there."


def skipped(entries: Iterable[Mapping[str, str]]) -> list[str]:
    """A line for each reason. Reasons that differ only in the dataset's name become one line with all names.

    Args:
      entries: {"dataset", "reason"} of each dataset without a result.
    """
    names_by_reason: dict[str, list[str]] = {}
    for one in entries:
        reason = re.sub(rf"\b{re.escape(one['dataset'])}\b", "\0", one["reason"])
        names_by_reason.setdefault(reason, []).append(one["dataset"])
    return [
        f"{', '.join(names)}: {reason.replace(chr(0), ','.join(names))}" for reason, names in names_by_reason.items()
    ]
