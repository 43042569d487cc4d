"""Scoring trees: an option's score must be that of prompt and option alone, computed without a tree."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flan_jax import catalog, protocol, templates
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import NotFiniteError
from flan_jax.protocol import EOS, JOINED, NEWLINE, SPACE
from flan_jax.scoring.scorer import ROW_LENGTHS, OptionScores, Scorer
from flan_jax.scoring.trees import Tree, build_tree, share_prefix
from flan_jax.verification import tolerances
from flan_jax.verification.findings import Place, Skip, Tally
from flan_jax.verification.plain import START, log_likelihoods
from flan_jax.verification.subject import Question, Subject

SAYS = "trees of options give the scores of one option at a time"

_SIBLINGS = "an option that sees the one before it (a model or datasets whose scores depend on it would show it)"
_JOINTS = (EOS, NEWLINE, SPACE, JOINED)
_TRIED = 20  # records that are tried for each example, because some are too long
_MOST_OPTIONS = 8
_A_ROW = 4  # how many of the longest prompts with their options fit in a row


class Asked(NamedTuple):
    """A prompt with its options as text, and their tree."""

    prompt: str
    options: list[str]
    joint: str
    tree: Tree
    place: Place


def check(subject: Subject, tally: Tally) -> None:
    """Scores records with options together, and each of their options alone; see `SAYS`."""
    asked = _asked(subject, sum(subject.request.lengths.values()))
    if not asked:
        raise Skip(
            "the prepared datasets have no test, dev or training records with options that fit a row: "
            "prepare a dataset of classification"
        )
    # Long rows, so that several prompts share each. A few prompts alone would get short rows.
    wanted = _A_ROW * max(one.tree.longest for one in asked)
    length = next((length for length in ROW_LENGTHS if length >= wanted), ROW_LENGTHS[-1])
    scorer = Scorer(subject.model, subject.params, mesh=subject.mesh, row_lengths=(length,))
    shared = _with_an_exemplar(subject, asked, length)
    every = [*asked, *shared]
    try:
        scored = scorer.score([one.tree for one in every])
    except NotFiniteError as error:
        tally.see(math.nan, 0.0, {**every[error.number].place, "scores that are": "not finite"})
        return
    tally.control(_SIBLINGS)
    for one, scores in zip(every, scored, strict=True):
        _compare(tally, subject, one, scores)


def _asked(subject: Subject, longest: int) -> list[Asked]:
    """As many records with options as are asked for, with each joint in turn."""
    found: list[Asked] = []
    joints = _JOINTS[:1] if subject.plain.has_encoder else _JOINTS
    for tried, question in enumerate(subject.questions(with_options=True)):
        if len(found) == subject.request.examples or tried == _TRIED * subject.request.examples:
            break
        joint = joints[len(found) % len(joints)]
        options = list(question.example.fields[templates.OPTIONS])[:_MOST_OPTIONS]
        one = _one(subject.tokenizer, question, question.example.inputs, options, joint)
        if one.tree.longest <= longest:
            found.append(one)
    return found


def _one(tokenizer: Tokenizer, question: Question, prompt: str, options: list[str], joint: str) -> Asked:
    tree = build_tree(tokenizer, prompt, options, joint=joint)
    return Asked(prompt, options, joint, tree, {**question.place, "joint": joint})


def _with_an_exemplar(subject: Subject, asked: list[Asked], longest: int) -> list[Asked]:
    """The two shortest prompts again, behind the same exemplar, which the scorer computes once for both."""
    if len(asked) < 2 or subject.plain.has_encoder:
        return []
    first, second = sorted(asked, key=lambda one: one.tree.longest)[:2]
    how = protocol.of(catalog.dataset(first.place["dataset"]))
    text = first.prompt + how.exemplar_joint + first.options[0] + how.exemplar_end
    again = []
    for one in (first, second):
        tree = build_tree(subject.tokenizer, text + one.prompt, one.options, joint=one.joint)
        again.append(one._replace(prompt=text + one.prompt, tree=tree, place={**one.place, "behind": "an exemplar"}))
    trees = share_prefix([one.tree for one in again], at_least=2)
    if any(tree.longest > longest for tree in trees):
        return []
    return [one._replace(tree=tree) for one, tree in zip(again, trees, strict=True)]


def spelled_out(tokenizer: Tokenizer, prompt: str, option: str, joint: str) -> tuple[list[int], list[int]]:
    """The context and the scored tokens of one option: what a tree with this joint stands for."""
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode([text])[0])

    if joint == EOS:
        return [*start, *encode(prompt), tokenizer.eos_id], [*encode(option), tokenizer.eos_id]
    context = prompt + "\n" if joint == NEWLINE else prompt.rstrip()
    between = {NEWLINE: "", SPACE: " "}.get(joint, prompt[len(context) :])
    whole = encode(context + between + option)
    split = min(len(encode(context)), len(whole) - 1)
    if not start + whole[:split]:
        start = [tokenizer.eos_id]
    return [*start, *whole[:split]], whole[split:]


def _compare(tally: Tally, subject: Subject, one: Asked, scores: OptionScores) -> None:
    for number, option in enumerate(one.options):
        place = {**one.place, "option": number}
        context, answer = spelled_out(subject.tokenizer, one.prompt, option, one.joint)
        logits_NxV = subject.plain.logits(context, answer)
        scale = float(np.abs(logits_NxV).max())
        expected = float(log_likelihoods(logits_NxV, answer).sum())
        allowed = tolerances.log_likelihood(scale, len(answer))
        if number and tally.could_miss(_SIBLINGS):
            sibling = list(subject.tokenizer.encode([one.options[number - 1]])[0])
            if subject.plain.has_encoder:
                leaked_NxV = subject.plain.logits(context, [*sibling, START, *answer])[len(sibling) + 1 :]
            else:
                leaked_NxV = subject.plain.logits([*context[:-1], *sibling, *context[-1:]], answer)
            change = abs(float(log_likelihoods(leaked_NxV, answer).sum()) - expected)
            tally.control(_SIBLINGS, change, allowed)
        tally.see(abs(scores.loglikelihood[number] - expected), allowed, place)
        tally.same(scores.tokens[number], len(answer), {**place, "figure": "tokens"})
        tally.same(scores.num_bytes[number], len(option.encode("utf-8")), {**place, "figure": "bytes"})
        # How far the option's tokens lead all others, at the place where they lead least.
        chosen_N = logits_NxV[np.arange(len(answer)), answer]
        logits_NxV[np.arange(len(answer)), answer] = -np.inf
        lead = float((chosen_N - logits_NxV.max(axis=-1)).min())
        behind = -lead if scores.is_greedy[number] else lead
        tally.see(max(behind, 0.0), tolerances.logits(scale), {**place, "figure": "is_greedy"})
        tally.count(options=1, scored_tokens=len(answer))
    tally.count(prompts=1)
