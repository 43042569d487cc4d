"""A FLAN-JAX checkpoint as a model of lm-evaluation-harness, so that its tasks run on our engine (extra `lm_eval`).

Importing this module registers the model `flan_jax`; `python -m flan_jax.lm_eval` does that and calls the harness.

The checkpoint's joint (`flan_jax.protocol`) stands between context and continuation. A model that was tuned here, and
an encoder-decoder, reads [BOS] context EOS, then the continuation with an EOS of its own. For all other models, texts
are tokenized as in the harness's Hugging Face backend: context and continuation are encoded together and split after as
many tokens as the context alone has. White space at the end of the context belongs to the continuation. A text that is
too long loses its left end. All continuations of one context are branches of one tree, so the context is computed once.
"""

from __future__ import annotations

import collections
import hashlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from flan_jax import partitioning, protocol
from flan_jax.checkpoint import adapters, arrays, choosing
from flan_jax.checkpoint.manifest import Manifest, refuse_export
from flan_jax.data.chat import DEFAULT, Chat
from flan_jax.decoding.completion import complete_tokens
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError, NotFiniteError
from flan_jax.json_lines import as_unicode
from flan_jax.scoring.scorer import ROW_LENGTHS, Scorer
from flan_jax.scoring.trees import Tree
from flan_jax.values import TOKENS, Where, Whole, checked, or_none

_ROUND = 128  # row lengths are multiples of it


Pair = tuple[tuple[int, ...], tuple[int, ...]]  # tokens of a context and of its continuation


@register_model("flan_jax")
class FlanJaxLM(LM):
    """The model `flan_jax` of lm-evaluation-harness.

    Args:
      checkpoint: a checkpoint folder.
      step: its step; None takes the last.
      max_length: most tokens that the model reads.
      joint: what stands between context and continuation. "auto" takes the checkpoint's; "joined", "eos", "newline" and
        "space" override it. With a chat template, "auto" is "joined", because the template writes what stands there.
        Joints other than "joined" replace the white space between the two.
      max_gen_toks: new tokens of a generation whose task sets no limit.
      prefix_token_id: the token before an empty context and before a document; None takes the model's BOS, or its EOS
        if it has no BOS.
      **unused: batch_size, max_batch_size and device, which the harness passes to every model. Rows are filled by
        tokens, and JAX chooses the device.

    Raises:
      FlanError: no such checkpoint, an unknown argument, or a prefix that is not a token.
    """

    def __init__(
        self,
        checkpoint: str = "",
        step: int | None = None,
        joint: str = protocol.AUTO,
        max_length: int = 2048,
        max_gen_toks: int = 256,
        prefix_token_id: int | None = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        unknown = sorted(set(unused) - {"batch_size", "max_batch_size", "device"})
        if unknown:
            raise FlanError(
                f"--model_args has no {unknown[0]!r} for flan_jax; there are checkpoint, step, joint, max_length, "
                "max_gen_toks and prefix_token_id."
            )
        if not checkpoint:
            raise FlanError("flan_jax needs a checkpoint: --model_args checkpoint=FOLDER.")
        checkpoint = checked("checkpoint in --model_args", Where(), checkpoint)
        step = checked("step in --model_args", or_none(Whole(), "the last"), step)
        max_length = checked("max_length in --model_args", TOKENS, max_length)
        max_gen_toks = checked("max_gen_toks in --model_args", Whole(1, 2**20), max_gen_toks)
        prefix_token_id = checked("prefix_token_id in --model_args", or_none(Whole(), "BOS"), prefix_token_id)
        protocol.joint(None, False, joint)  # before the model is read, so that a wrong name is found at once
        mesh = partitioning.make_mesh()
        Manifest.load(checkpoint)  # first, because they say best what is no checkpoint
        refuse_export(checkpoint)
        step = choosing.chosen_step(checkpoint, step)  # once, because a run that goes on may add a later one
        model, params, self._tokenizer, manifest = arrays.load_model(checkpoint, step=step, mesh=mesh)
        longest = -(-(max_length + 1) // _ROUND) * _ROUND
        self._scorer = Scorer(model, params, mesh=mesh, row_lengths=(*(n for n in ROW_LENGTHS if n < longest), longest))
        self._setting = joint
        self._joint = protocol.joint(manifest.separator, self._scorer.has_encoder, joint, otherwise=protocol.JOINED)
        print(protocol.joint_line(self._joint, joint), file=sys.stderr, flush=True)
        self._about = {
            "checkpoint": checkpoint,
            "checkpoint_digest": manifest.digest(),
            "step": step,  # all steps of a run have its manifest
            "weights": adapters.weights(checkpoint, step),
            "tuning": manifest.tuning,
            "joint": self._joint,
        }
        self._generator = Generator(model, params, self._tokenizer.stop_ids, mesh=mesh)
        self._max_length, self._max_gen_toks = max_length, max_gen_toks
        self._template: str | None = None  # the name of the chat template, if it is not the default one
        bos_id = self._tokenizer.bos_id
        default = self._tokenizer.eos_id if bos_id is None else bos_id
        self._prefix = default if prefix_token_id is None else prefix_token_id
        if not 0 <= self._prefix < self._tokenizer.vocab_size:
            raise FlanError(
                f"prefix_token_id={self._prefix} is no token: the vocabulary has {self._tokenizer.vocab_size}."
            )

    @property
    def tokenizer_name(self) -> str:
        """The name of vocabulary and chat template in the harness's caches of requests."""
        chat = self._tokenizer.chat
        if chat is None or (self._template is None and DEFAULT not in chat.templates):
            return f"flan_jax-{self._tokenizer.fingerprint}"
        digest = hashlib.sha256(chat.template(self._template).encode()).hexdigest()
        return f"flan_jax-{self._tokenizer.fingerprint}-{digest[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Chooses the chat template that the harness applies, and returns its text.

        Args:
          chat_template: True takes the default; a text names another one; False takes none.

        Raises:
          FlanError: the model has no chat template, or none with that name.
        """
        if chat_template is False or chat_template is None:
            return None
        name = None if chat_template is True else chat_template
        text = self._chat.template(name)
        self._template = name
        if self._setting == protocol.AUTO and not self._scorer.has_encoder:
            self._joint = self._about["joint"] = protocol.JOINED  # the template writes what stands there
            print(f"{protocol.joint_line(self._joint)}, since a chat template is applied", file=sys.stderr, flush=True)
        return text

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation.

        If a template refuses a system message, the conversation is written without it, as in the harness's Hugging Face
        backend.

        Args:
          chat_history: messages, each with a role and a content.
          add_generation_prompt: whether an answer comes next. Otherwise the last message continues.

        Raises:
          FlanError: the model has no template, or it refuses these messages.
        """
        try:
            return self._chat.render(chat_history, self._template, add_generation_prompt=add_generation_prompt)
        except FlanError:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history):
                raise
            return self._chat.render(others, self._template, add_generation_prompt=add_generation_prompt)

    @property
    def _chat(self) -> Chat:
        if self._tokenizer.chat is None:
            raise FlanError(f"{self._about['checkpoint']} has no chat template: leave --apply_chat_template out.")
        return self._tokenizer.chat

    def get_model_info(self) -> dict[str, Any]:
        """What the harness records beside its results: the checkpoint, and everything it was tuned on."""
        return {"flan_jax": self._about}

    # ---------------------------------------------------------------------------------------------- log-likelihoods

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Scores each (context, continuation).

        Returns:
          For each, the sum of log-probabilities, and whether greedy decoding gives the same tokens.

        Raises:
          FlanError: a continuation is empty or longer than `max_length`.
        """
        answers = self._score(self._pairs([request.args for request in requests]), disable_tqdm)
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The sums of the log-probabilities of whole documents, in disjoint windows of `max_length` tokens."""
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
        """Tokens, with one BOS if the model wants it; a chat template may have written it already.

        A lone surrogate becomes U+FFFD.
        """
        start = [] if self._tokenizer.bos_id is None else [self._tokenizer.bos_id]
        every = self._tokenizer.encode_written([as_unicode(text) for text in texts])
        return [ids if ids[:1] == start else start + ids for ids in every]

    def _pairs(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:
        for context, continuation in texts:
            if not continuation:
                raise FlanError(f"the context {context[-60:]!r} has an empty continuation; give each some text.")
        if self._joint == protocol.EOS:
            return self._pairs_with_eos(texts)
        texts = [self._joined(context, continuation) for context, continuation in texts]
        # Each context once, even if it has many continuations.
        heads = list(dict.fromkeys(self._head(context) for context, _ in texts))
        head_tokens = dict(zip(heads, self._encode(heads), strict=True))
        wholes = self._encode([context + continuation for context, continuation in texts])
        bos = self._tokenizer.bos_id
        pairs = []
        for (context, _), whole in zip(texts, wholes, strict=True):
            if context:
                # If a token spans both, the context keeps its own tokens and the continuation gets the rest.
                head = head_tokens[self._head(context)]
                whole = whole[len(head) :]
            else:
                head, whole = [], whole[whole[0] == bos :]  # the prefix replaces BOS
                if whole[0] == self._prefix and len(whole) > 1:
                    whole = whole[1:]
            pairs.append(self._pair(head or [self._prefix], whole))
        return pairs

    def _joined(self, context: str, continuation: str) -> tuple[str, str]:
        """Context and continuation with the joint between them."""
        if self._joint == protocol.JOINED:
            return context, continuation
        between = {protocol.NEWLINE: ("\n", ""), protocol.SPACE: ("", " ")}[self._joint]
        return context.rstrip() + between[0], between[1] + continuation.lstrip()

    def _head(self, context: str) -> str:
        """The part of a context that is tokenized alone.

        A line break belongs to it; other white space belongs to what follows.
        """
        return context if self._joint == protocol.NEWLINE else context.rstrip()

    def _pairs_with_eos(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:
        eos = self._tokenizer.eos_id
        heads = list(dict.fromkeys(context.rstrip() for context, _ in texts))
        head_tokens = dict(zip(heads, self._prompts(heads), strict=True))
        plain = self._tokenizer.encode([as_unicode(continuation.lstrip()) for _, continuation in texts])
        return [
            self._pair(head_tokens[context.rstrip()], [*ids, eos])
            for (context, _), ids in zip(texts, plain, strict=True)
        ]

    def _prompts(self, contexts: Sequence[str]) -> list[list[int]]:
        """The tokens of contexts that the model is to continue."""
        if self._joint == protocol.EOS:
            ends = [self._tokenizer.eos_id]
            start = [] if self._scorer.has_encoder or self._tokenizer.bos_id is None else [self._tokenizer.bos_id]
            every = self._tokenizer.encode_written([as_unicode(context.rstrip()) for context in contexts])
            every = [ids if ids[-1:] == ends else ids + ends for ids in every]
            return [ids if start and ids[:1] == start else start + ids for ids in every]
        if self._joint == protocol.NEWLINE:
            contexts = [context.rstrip() + "\n" for context in contexts]
        elif self._joint == protocol.SPACE:
            contexts = [context.rstrip() for context in contexts]
        return self._encode(contexts)

    def _pair(self, context: Sequence[int], continuation: Sequence[int]) -> Pair:
        if not 0 < len(continuation) <= self._max_length:
            raise FlanError(
                f"a continuation has {len(continuation)} tokens of its own; there must be at least one, and at most "
                f"max_length={self._max_length} (in --model_args)."
            )
        # The last token is predicted but never read, so both together may have one token more than the model reads.
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
                text = self._tokenizer.decode(trees[error.number].trunk)
                raise FlanError(f"context {text[-60:]!r}: {error}") from error
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
            prompts = [ids[-room:] for ids in self._prompts([requests[i].args[0] for i in numbers])]
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
        """The numbers of the requests that share (new tokens, stop strings)."""
        found: dict[tuple[int, tuple[str, ...]], list[int]] = collections.defaultdict(list)
        for number, request in enumerate(requests):
            settings = normalize_gen_kwargs(request.args[1], self._max_gen_toks)
            if settings["do_sample"] or settings.get("num_beams", 1) != 1:
                raise FlanError(f"flan_jax generates greedily in lm-evaluation-harness; the task asks for {settings}.")
            limit, stop = settings["max_gen_toks"], tuple(settings["until"])
            found[limit, stop].append(number)
        yield from found.items()
