"""A FLAN-JAX checkpoint as a model of lm-evaluation-harness, so that its tasks run on our engine (extra `lm_eval`).

Importing this module registers the model `flan_jax`; `python -m flan_jax.lm_eval` does that and calls the harness.
Texts become tokens as in the harness's Hugging Face backend: context and continuation are encoded together and split
after as many tokens as the context alone has, white space at the context's end goes with the continuation, and what is
too long loses its left end. Continuations of one context are the branches of one tree: the context is computed once.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from flan_jax import partitioning
from flan_jax.checkpoint import arrays
from flan_jax.decoding.completion import complete_tokens
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError, NotFiniteError
from flan_jax.scoring.scorer import ROW_LENGTHS, Scorer
from flan_jax.scoring.trees import Tree

_ROUND = 128  # row lengths are multiples of it


Pair = tuple[tuple[int, ...], tuple[int, ...]]  # tokens of a context and of its continuation


@register_model("flan_jax")
class FlanJaxLM(LM):
    """The model `flan_jax` of lm-evaluation-harness.

    Args:
      checkpoint: a checkpoint folder.
      step: its step; None takes the last.
      max_length: tokens that the model reads at most.
      max_gen_toks: new tokens of a generation whose task says nothing.
      prefix_token_id: what stands before an empty context and before a document; None takes the model's BOS, or its EOS
        where it has no BOS.
      **unused: batch_size, max_batch_size and device, which the harness passes to every model; rows are filled by
        tokens, and the device is JAX's.

    Raises:
      FlanError: no such checkpoint, an unknown argument, or a prefix that is no token.
    """

    def __init__(
        self,
        checkpoint: str = "",
        step: int | None = None,
        max_length: int = 2048,
        max_gen_toks: int = 256,
        prefix_token_id: int | None = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        unknown = sorted(set(unused) - {"batch_size", "max_batch_size", "device"})
        if unknown:
            raise FlanError(
                f"--model_args has no {unknown[0]!r} for flan_jax; there are checkpoint, step, max_length, "
                "max_gen_toks and prefix_token_id."
            )
        if not checkpoint:
            raise FlanError("flan_jax needs a checkpoint: --model_args checkpoint=FOLDER.")
        mesh = partitioning.make_mesh()
        model, params, self._tokenizer, manifest = arrays.load_model(checkpoint, step=step, mesh=mesh)
        longest = -(-(max_length + 1) // _ROUND) * _ROUND
        self._scorer = Scorer(model, params, mesh=mesh, row_lengths=(*(n for n in ROW_LENGTHS if n < longest), longest))
        self._about = {"checkpoint": checkpoint, "checkpoint_digest": manifest.digest(), "tuning": manifest.tuning}
        self._generator = Generator(model, params, self._tokenizer.eos_id, mesh=mesh)
        self._max_length, self._max_gen_toks = max_length, max_gen_toks
        bos_id = self._tokenizer.bos_id
        default = self._tokenizer.eos_id if bos_id is None else bos_id
        self._prefix = default if prefix_token_id is None else int(prefix_token_id)
        if not 0 <= self._prefix < self._tokenizer.vocab_size:
            raise FlanError(
                f"prefix_token_id={self._prefix} is no token: the vocabulary has {self._tokenizer.vocab_size}."
            )

    @property
    def tokenizer_name(self) -> str:
        """Names the vocabulary in the harness's caches of requests."""
        return f"flan_jax-{self._tokenizer.fingerprint}"

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes down beside the results: which checkpoint, and what it was ever tuned on."""
        return {"flan_jax": self._about}

    # ---------------------------------------------------------------------------------------------- log-likelihoods

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(sum of log-probabilities, whether greedy decoding gives it) of each (context, continuation).

        Raises:
          FlanError: a continuation is empty or longer than `max_length`.
        """
        answers = self._score(self._pairs([request.args for request in requests]), disable_tqdm)
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Sums of the log-probabilities of whole documents, in disjoint windows of `max_length` tokens."""
        documents = self._encode([request.args[0] for request in requests])
        pairs, owners = [], []
        for number, tokens in enumerate(documents):
            for window in get_rolling_token_windows(tokens, self._prefix, self._max_length, context_len=1):
                pairs.append(self._pair(*make_disjoint_window(window)))
                owners.append(number)
        sums = [0.0] * len(documents)
        for number, (loglikelihood, _) in zip(owners, self._score(pairs, disable_tqdm), strict=True):
            sums[number] += loglikelihood
        for request, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens, with BOS once where the model wants it."""
        start = [] if self._tokenizer.bos_id is None else [self._tokenizer.bos_id]
        return [ids if ids[:1] == start else start + ids for ids in self._tokenizer.encode(texts)]

    def _pairs(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:
        for context, continuation in texts:
            if not continuation:
                raise FlanError(f"the context {context[-60:]!r} has an empty continuation; give each some text.")
        heads = list(dict.fromkeys(context.rstrip() for context, _ in texts))  # each once, with many continuations
        head_tokens = dict(zip(heads, self._encode(heads), strict=True))
        wholes = self._encode([context + continuation for context, continuation in texts])
        bos = self._tokenizer.bos_id
        pairs = []
        for (context, _), whole in zip(texts, wholes, strict=True):
            if context:
                # Where a token spans both, the context keeps its own tokens and the continuation what is left.
                head = head_tokens[context.rstrip()]
                whole = whole[len(head) :]
            else:
                head, whole = [], whole[whole[0] == bos :]  # the prefix takes the place of BOS
                if whole[0] == self._prefix and len(whole) > 1:
                    whole = whole[1:]
            pairs.append(self._pair(head or [self._prefix], whole))
        return pairs

    def _pair(self, context: Sequence[int], continuation: Sequence[int]) -> Pair:
        if not 0 < len(continuation) <= self._max_length:
            raise FlanError(
                f"a continuation has {len(continuation)} tokens of its own; there must be at least one, and at most "
                f"max_length={self._max_length} (in --model_args)."
            )
        # The last token is predicted and never read, so that both may have one token more than the model reads.
        return tuple(context)[-(self._max_length + 1 - len(continuation)) :], tuple(continuation)

    def _score(self, pairs: Sequence[Pair], quiet: bool) -> list[tuple[float, bool]]:
        """Scores pairs, one tree for each context."""
        by_context: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = collections.defaultdict(dict)
        for number, (context, continuation) in enumerate(pairs):
            by_context[context].setdefault(continuation, []).append(number)
        trees = [
            Tree(context, tuple(branches), (0,) * len(branches), (0,) * len(branches))
            for context, branches in by_context.items()
        ]
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        with tqdm(total=sum(len(tree.branches) for tree in trees), desc="flan_jax", disable=quiet) as bar:
            try:
                scores = self._scorer.score(trees, lambda done, total: bar.update(done - bar.n))
            except NotFiniteError as error:
                context = self._tokenizer.decode(trees[error.number].trunk)
                raise FlanError(f"context {context[-60:]!r}: {error}") from error
        for score, branches in zip(scores, by_context.values(), strict=True):
            for numbers, total, greedy in zip(branches.values(), score.loglikelihood, score.is_greedy, strict=True):
                for number in numbers:
                    answers[number] = (total, greedy)
        return answers

    # --------------------------------------------------------------------------------------------------- generation

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations up to a stop string.

        Raises:
          FlanError: a task asks for sampling, or for more new tokens than `max_length` leaves room for.
        """
        texts: list[str] = [""] * len(requests)
        for (limit, stop), numbers in self._by_settings(requests):
            room = self._max_length - limit
            if room < 1:
                raise FlanError(f"{limit} new tokens leave no room for a prompt in max_length={self._max_length}.")
            prompts = [ids[-room:] for ids in self._encode([requests[i].args[0] for i in numbers])]
            try:
                said = complete_tokens(self._generator, self._tokenizer, prompts, max_new_tokens=limit, stops=stop)
            except NotFiniteError as error:
                context = requests[numbers[error.number]].args[0]
                raise FlanError(f"context {context[-60:]!r}: {error}") from error
            for number, completion in zip(numbers, said, strict=True):
                texts[number] = postprocess_generated_text(completion.text, list(stop), None)
                self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
        return texts

    def _by_settings(self, requests: Sequence[Instance]) -> Iterator[tuple[tuple[int, tuple[str, ...]], list[int]]]:
        """Numbers of the requests that share (new tokens, stop strings)."""
        found: dict[tuple[int, tuple[str, ...]], list[int]] = collections.defaultdict(list)
        for number, request in enumerate(requests):
            settings = normalize_gen_kwargs(request.args[1], self._max_gen_toks)
            if settings["do_sample"] or settings.get("num_beams", 1) != 1:
                raise FlanError(f"flan_jax generates greedily in lm-evaluation-harness; the task asks for {settings}.")
            limit, stop = settings["max_gen_toks"], tuple(settings["until"])
            found[limit, stop].append(number)
        yield from found.items()
