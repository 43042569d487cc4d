"""Greedy generation with a cache: each token must be the likeliest by a full forward pass over the text before it."""

from __future__ import annotations

import math

import numpy as np

from flan_jax.decoding.generator import Generator
from flan_jax.errors import NotFiniteError
from flan_jax.verification import tolerances
from flan_jax.verification.findings import Tally
from flan_jax.verification.subject import Subject

SAYS = "greedy generation with a cache takes the likeliest token of a full forward pass"

_NEW_TOKENS = 16
_PROMPTS = "an answer that ignores its prompt (a model whose logits depend on it would show it)"


def check(subject: Subject, tally: Tally) -> None:
    """Continues the inputs of the stream's first examples; see `SAYS`."""
    generator = Generator(
        subject.model, subject.params, subject.tokenizer.eos_id, mesh=subject.mesh, new_tokens=(_NEW_TOKENS,)
    )
    drawn = [one for one in subject.some_drawn() if len(one.prompt) <= generator.max_prompt]
    # A model that was never tuned here takes EOS for the end of a document.
    keeps_joint = generator.has_encoder or subject.manifest.separator is not None
    prompts = [one.prompt if keeps_joint or len(one.prompt) < 2 else one.prompt[:-1] for one in drawn]
    try:
        generations = generator.generate(prompts, _NEW_TOKENS)
    except NotFiniteError as error:
        tally.see(math.nan, 0.0, {**drawn[error.number].place, "logits that are": "not finite"})
        return
    tally.control(_PROMPTS)
    for one, prompt, made in zip(drawn, prompts, generations, strict=True):
        said = [*made.tokens, *([made.end] if made.ended else [])]
        if not made.ended or len(said) > _NEW_TOKENS:
            tally.same(len(said), _NEW_TOKENS, {**one.place, "figure": "tokens of an answer that did not end"})
        if not said:
            continue
        logits_NxV = subject.plain.logits(prompt, said)
        # How far the chosen token is behind the likeliest one. If two are almost equal, either may be chosen.
        behind_N = logits_NxV.max(axis=-1) - logits_NxV[np.arange(len(said)), said]
        at = int(behind_N.argmax())
        allowed = tolerances.logits(float(np.abs(logits_NxV).max()))
        tally.see(behind_N[at], allowed, {**one.place, "generated token": at})
        if tally.could_miss(_PROMPTS):
            without_NxV = subject.plain.logits(prompt[-1:], said)
            tally.control(_PROMPTS, float(np.abs(without_NxV - logits_NxV).max()), allowed)
        tally.count(prompts=1, generated_tokens=len(said))
