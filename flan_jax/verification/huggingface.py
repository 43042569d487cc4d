"""The same model in transformers: its tokens for the same texts, and its logits for the same tokens."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.files import local
from flan_jax.verification import tolerances
from flan_jax.verification.findings import Skip, Tally
from flan_jax.verification.plain import START
from flan_jax.verification.subject import Subject
from flan_jax.wording import counted

# Variants of one letter, spaces, line ends, digits, scripts and signs that normalizers and splitters treat differently.
_ODD = [
    "caf\u00e9 cafe\u0301 \ufb01n \uff21\u00bd \u2122", "a  b   c", "tab\there", "one\ntwo\r\nthree", "1234567 3.14",
    "I'll don't WE'RE", "\u4f60\u597d\u4e16\u754c", "\u043f\u0440\u0438\u0432\u0435\u0442", "\U0001f44b\U0001f3fd",
    "a\u00a0b\u200bc",
]  # fmt: skip

SAYS = "tokens and logits are those of transformers"


def check(subject: Subject, tally: Tally) -> None:
    """Compares with the model's folder of transformers; see `SAYS`."""
    folder, same_weights = _folder(subject)
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise Skip(f"{error.name} is not installed: pip install torch transformers") from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    theirs = _loaded(transformers.AutoTokenizer, folder)
    _tokens(subject, tally, theirs)
    _vocabulary(subject, tally, theirs)
    if not same_weights:
        tally.left_out.append(f"logits left out: the checkpoint was tuned after {folder.name} was imported")
        return
    kind = transformers.AutoModelForSeq2SeqLM if subject.plain.has_encoder else transformers.AutoModelForCausalLM
    how = {"dtype": torch.float32, "attn_implementation": "eager", "output_loading_info": True}
    model, loading = _loaded(kind, folder, **how)
    model.eval()
    # Transformers makes up what a file lacks, and only warns.
    for what in ("missing_keys", "mismatched_keys"):
        tally.same(sorted(map(str, loading.get(what) or ())), [], {"weights": what.replace("_", " ")})
    if unread := sorted(map(str, loading.get("unexpected_keys") or ())):
        tally.left_out.append(
            f"transformers does not read {counted(len(unread), 'weights')} of {folder.name}: {unread[0]}, ..."
        )
    with torch.no_grad():
        _logits(subject, tally, model, torch)


def _folder(subject: Subject) -> tuple[Path, bool]:
    """The folder of transformers, and whether its weights should be those of the checkpoint."""
    history = subject.manifest.history
    at = max((i for i, entry in enumerate(history) if "folder" in entry), default=None)
    name = None if at is None else Path(history[at]["folder"]).name
    if subject.request.huggingface:
        folder = local(subject.request.huggingface)
        if not (folder / "config.json").is_file():
            raise FlanError(f"--huggingface={folder}: there is no config.json; give a folder that transformers loads.")
    else:
        came = "the model came from no folder of them" if at is None else f"the model came from a folder {name} of them"
        raise Skip(f"{came}: give one with --huggingface=FOLDER (python -m flan_jax.convert --format=huggingface)")
    return folder, folder.absolute().name != name or not any("tuned on" in entry for entry in history[at:])


def _loaded(kind: Any, folder: Path, **how: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **how)
    except Exception as error:  # the libraries of transformers can raise anything
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise FlanError(f"transformers cannot load {folder} ({reason.rstrip('.')}); give another folder.") from error


def _tokens(subject: Subject, tally: Tally, theirs: Any) -> None:
    """Compares the tokens of the examples' texts, and the tokens at their beginning and end."""
    ours = subject.tokenizer
    tally.same(ours.eos_id, theirs.eos_token_id, {"special token": "end of sequence"})
    adds_bos = theirs.bos_token_id is not None and theirs("a")["input_ids"][:1] == [theirs.bos_token_id]
    begins = theirs.bos_token_id if adds_bos else None
    tally.same(ours.bos_id, begins, {"special token": "beginning of sequence"})
    tally.count(special_tokens=2)
    for question in itertools.islice(subject.questions(with_options=False), subject.request.examples):
        for kind, text in (("inputs", question.example.inputs), ("targets", question.example.targets)):
            found, expected = ours.encode([text])[0], theirs(text, add_special_tokens=False)["input_ids"]
            tally.count(texts=1, tokens=len(expected))
            if list(found) != list(expected):
                pairs = itertools.zip_longest(found, expected)
                at, (mine, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
                tally.same(mine, other, {**question.place, "text": kind, "token": at})


def _vocabulary(subject: Subject, tally: Tally, theirs: Any) -> None:
    """Compares the tokens of every entry of the vocabulary, and of odd texts. A few examples use few tokens."""
    special = {*theirs.all_special_ids, *theirs.added_tokens_decoder}
    ids = [i for i in range(len(theirs)) if i not in special]
    texts = list(
        dict.fromkeys(text for text in theirs.batch_decode([[i] for i in ids]) if text and "\ufffd" not in text)
    )
    texts += _ODD
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    tally.count(entries=len(texts))
    for text, mine, other in zip(texts, subject.tokenizer.encode(texts), expected, strict=True):
        if not tally.same(list(mine), list(other), {"text": repr(text)}):
            return


def _logits(subject: Subject, tally: Tally, model: Any, torch: Any) -> None:
    """Compares the logits at every token of the stream's first examples."""
    size = subject.plain.model.config.vocab_size
    for one in subject.some_drawn():
        if subject.plain.has_encoder:
            prompt, answer = one.prompt, one.answer
            arrays = {"input_ids": [prompt], "decoder_input_ids": [[START, *answer[:-1]]]}
        else:
            ids = [*one.prompt, *one.answer]
            prompt, answer = ids[:1], ids[1:]
            arrays = {"input_ids": [ids[:-1]]}
        if max(map(max, (prompt, answer))) >= model.config.get_text_config().vocab_size:
            tally.same(size, model.config.get_text_config().vocab_size, {"figure": "embeddings"})
            return
        theirs_NxV = model(**{name: torch.tensor(x) for name, x in arrays.items()}).logits[0].float().numpy()
        if not tally.same(size, theirs_NxV.shape[-1], {"figure": "embeddings"}):
            return
        differences_N = np.abs(subject.plain.logits(prompt, answer) - theirs_NxV).max(axis=-1)
        at = int(differences_N.argmax())
        allowed = tolerances.logits(float(np.abs(theirs_NxV).max()))
        tally.see(differences_N[at], allowed, {**one.place, "token": at})
        tally.count(examples=1, positions=len(answer))
