"""The samples of a log of lm-evaluation-harness as predictions: what was asked, what was scored, and what is right."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.files import AnyPath

TOLERANCE = 1e-6  # between a mean of the samples and the harness's own figure

Sample = Mapping[str, Any]


def problem_of(sample: Any) -> str:
    """What is wrong with a line of samples; empty if nothing is."""
    if not isinstance(sample, dict) or not isinstance(sample.get("doc_hash"), str) or "doc_id" not in sample:
        return "it has no doc_hash"
    if not isinstance(sample.get("metrics", []), list):
        return "its metrics are no list of names"
    if not isinstance(sample.get("doc", {}), dict):
        return "its doc is no object"
    if not isinstance(sample.get("filtered_resps", []), list):
        return "its filtered_resps are no list"
    arguments = sample.get("arguments", {})
    values = arguments.values() if isinstance(arguments, dict) else arguments if isinstance(arguments, list) else [None]
    return "" if all(isinstance(one, dict | list) for one in values) else "its arguments are neither names nor lists"


def as_today(sample: dict[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """A sample in the form that harnesses since 0.4.8 write.

    Earlier ones list its arguments and do not name its metrics.
    """
    sample.setdefault("metrics", [name for key in results if (name := key.partition(",")[0]) in sample])
    arguments = sample.get("arguments", {})
    listed = arguments if isinstance(arguments, list) else list(arguments.values())
    sample["arguments"] = {
        f"gen_args_{i}": one if isinstance(one, dict) else {f"arg_{j}": part for j, part in enumerate(one)}
        for i, one in enumerate(listed)
    }
    return sample


def is_share(value: Any) -> bool:
    """Whether a value is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def count_of(value: Any) -> int | None:
    """A whole number from 0 as a log may write it: 5, 5.0 or "5"; None of anything else."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.0+)?", value):
        return int(value.partition(".")[0])
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value < 1e9 and value == int(value)):
        return None
    return int(value)


def is_mean(metric: str, samples: Sequence[Sample], shown: Mapping[str, Any]) -> bool:
    """Whether a metric has a share for each example, whose mean the harness reports."""
    values: list[Any] = [sample.get(metric) for sample in samples]
    if not all(is_share(v) or isinstance(v, bool) for v in values) or not is_share(shown.get(metric)):
        return False
    return abs(float(np.mean(values)) - shown[metric]) <= TOLERANCE


def ranked(sample: Sample, path: AnyPath) -> dict[str, Any] | None:
    """A prediction with ranked options; None if the sample's accuracy is not that of the likeliest option."""
    arguments = list(sample.get("arguments", {}).values())
    scores = _scores(sample.get("filtered_resps", ()))
    if not all(map(math.isfinite, scores)):
        raise FlanError(f"{path}: the scores of document {sample['doc_id']} are not finite: no option is the highest.")
    if len(arguments) < len(scores):
        return None
    half = len(scores) // 2
    if half and len(scores) == 2 * half and _are_without_context(arguments[half : len(scores)]):
        scores, arguments = scores[:half], arguments[:half]  # what acc_mutual_info subtracts is no option
    if len(scores) < 2 or not re.fullmatch(r"[0-9]{1,6}", str(sample.get("target", ""))):
        return None
    answer = int(sample["target"])
    if answer >= len(scores) or float(np.argmax(scores) == answer) != sample.get("acc"):
        return None
    contexts, options = ([_text(a.get(key, "")) for a in arguments] for key in ("arg_0", "arg_1"))
    if len(set(options)) == 1:  # the contexts differ, as in Winogrande
        contexts, options = options, contexts
    return _line(sample, contexts[0]) | {
        "options": [option.strip() for option in options[: len(scores)]],
        "answer": answer,
        "loglikelihood": scores,
    }


def _scores(responses: Sequence[Any]) -> list[float]:
    """The log-likelihoods in pairs with whether a text is the greedy answer; none if these are no such pairs."""
    pairs = [one for one in responses if isinstance(one, list) and one and _is_number(one[0])]
    return [float(pair[0]) for pair in pairs] if len(pairs) == len(responses) else []


def has_options(sample: Sample) -> bool:
    """Whether several texts were scored for one document."""
    return len(_scores(sample.get("filtered_resps", ()))) > 1


def _are_without_context(arguments: Sequence[Mapping[str, Any]]) -> bool:
    return all(argument.get("arg_0") == "" for argument in arguments)


def _text(value: Any) -> str:
    """An argument as text; a chat's messages are a list, and settings of a generation names and values in any order."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def scored(sample: Sample, value: float) -> dict[str, Any]:
    """A prediction that has a value, with what was scored or generated.

    Args:
      sample: a line of the log.
      value: of the metric, 0 to 1.
    """
    arguments = list(sample.get("arguments", {}).values()) or [{}]
    said = sample.get("filtered_resps") or [""]
    text = said[0] if isinstance(said[0], str) else json.dumps(said[0], ensure_ascii=False)
    if len(scores := _scores(said)) > 1:  # of options that cannot be read
        text = f"option {int(np.argmax(scores)) + 1}"
    references = {"prediction": text, "references": [str(sample.get("target", ""))]}
    of_scores = {"scores": scores, "scored": [_text(one.get("arg_1", "")) for one in arguments[: len(scores)]]}
    line = _line(sample, _text(arguments[0].get("arg_0", ""))) | references | {"score": value}
    return line | (of_scores if scores else {})


def shown(sample: Sample, config: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """A digest of what a few-shot log showed of a document, without the exemplars before it.

    The harness writes description, exemplars and document as one text. So this takes what its results say of the
    description and the templates, the text after the last exemplar, and the continuations. Where a chat template
    stands around all of it, the text does not show where the document begins: there the results alone count.

    Args:
      sample: a line of the log.
      config: the results' configuration of the task; empty if they have none.
      whole: the results.
    """
    frame = [config.get(key) for key in _FRAME]
    frame += [whole.get(key) for key in ("system_instruction", "chat_template_sha")]
    end = config.get("fewshot_delimiter")
    end = end if isinstance(end, str) and end else _EXEMPLAR_END
    last = "" if whole.get("chat_template_sha") else end
    asked = [[text.rpartition(last)[2] if last else "", more] for text, more in _asked(sample)]
    return _digest([frame, asked])


_FRAME = ("description", "doc_to_text", "doc_to_choice", "target_delimiter", "fewshot_delimiter")
_EXEMPLAR_END = "\n\n"  # the harness's own


def _asked(sample: Sample) -> list[list[str]]:
    """The context and the continuation of each request."""
    return [[_text(one.get(key, "")) for key in ("arg_0", "arg_1")] for one in sample.get("arguments", {}).values()]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode(errors="surrogatepass")).hexdigest()


def _line(sample: Sample, prompt: str) -> dict[str, Any]:
    target = sample.get("target", sample.get("target_hash"))
    return {
        "id": str(sample["doc_id"]),
        "hash": str(sample["doc_hash"]),
        "template": 0,
        "prompt": prompt,
        "asked": _digest(_asked(sample)),
        "doc": sample.get("doc", {}),
    } | ({} if target is None else {"target": _text(target)})
