"""Tokenizes texts line by line, each distinct line once. The tokens are the same as for the whole text, with less work.

Prompts of an evaluation share most of their lines: all options of a prompt share the prompt, few-shot prompts share
exemplars, and templates share records. If a vocabulary never joins text before a line break with text after it, the
tokens of a text are those of its lines, and a line that was seen before needs no tokenizer.

That only holds at some places and for some vocabularies; `cuts_after_line_breaks` says which. A text is cut between a
line break and a printable ASCII character that is neither a digit nor the first character of an added token. (Added
tokens may be taken out before the text is split, and white space before them is split as at the end of a text.) A line
is tokenized with a line break before it and a letter after it, whose tokens are known. So it is never at a start or end
where it was not. Texts of unigram models are never cut: these models compare float32 sums over the whole text, which
round differently for a part of it. They are remembered as a whole.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from flan_jax.data.vocabularies import ByteTokenizer, HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer

_AFTER = frozenset(map(chr, range(33, 127))) - frozenset("0123456789")  # what may come after a cut
_BEFORE, _NEXT, _OTHER = "\n", "A", "B"  # what is put around a line that is tokenized, and another letter
_WHOLE, _FIRST, _INNER, _LAST = range(4)
_TOKENS = 2_000_000  # tokens that are remembered: about 100 MB

# Known ways to split a text before BPE. None looks back, or joins a line break with something else than white space.
_PATTERNS = frozenset(
    (
        # GPT-2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Llama 3 and others
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        # Qwen 2
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    )
)
_NORMALIZERS = frozenset(("NFC", "NFD", "NFKC", "NFKD"))  # a line break composes with nothing

# A case in which a rule that follows from the settings would at once be refuted by the library.
_TRIED: tuple[str, ...] = (
    "A\n\nB",
    " a\n \n  b\n-c",
    "\n\n\nA",
    "a \nb\t\n'll\n\n",
    "1\n2\nc\r\nd\n",
    "é\n\u0301x\n\U0001f98a\n\n-",
    "",
)
_TRIED += tuple(f"a {run}{after}" for run in ("\r\n", "\n\n", " \n") for after in sorted(_AFTER))


def cuts_after_line_breaks(tokenizer: Tokenizer) -> frozenset[str]:
    """The characters before which a text can be cut after a line break.

    The line break always ends a token there. Only what is certain counts. Empty for a vocabulary whose texts must not
    be cut.
    """
    if isinstance(tokenizer, SentencePieceTokenizer) and _sentencepiece_cuts(tokenizer.content):
        return _AFTER
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return _huggingface_cuts(tokenizer.content)
    return _AFTER if type(tokenizer) is ByteTokenizer else frozenset()


@functools.lru_cache(4)  # a vocabulary of 262,144 pieces takes a moment to read
def _sentencepiece_cuts(content: bytes) -> bool:
    """Whether it is BPE that keeps white space, without a piece that has a line break beside something else."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(content)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if trainer.model_type != trainer.BPE or trainer.treat_whitespace_as_suffix:
        return False
    if normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces:
        return False
    unused = sentencepiece_model_pb2.ModelProto.SentencePiece.UNUSED
    if any(p.type == unused or ("\n" in p.piece and p.piece.strip("\n")) for p in model.pieces):
        return False
    return trainer.byte_fallback or any(p.piece == "\n" for p in model.pieces)  # unknown neighbours become one token


@functools.lru_cache(4)
def _huggingface_cuts(content: bytes) -> frozenset[str]:
    """The characters for byte-level BPE over parts with a known pattern.

    None if an added token reaches over a line's end.
    """
    nowhere: frozenset[str] = frozenset()
    settings = json.loads(content)
    model, normalizer = settings["model"], settings.get("normalizer")
    if model.get("type") != "BPE" or model.get("dropout"):
        return nowhere
    if normalizer is not None and normalizer.get("type") not in _NORMALIZERS:
        return nowhere
    added = settings.get("added_tokens") or ()
    if any(token.get("lstrip") or token.get("single_word") or not token["content"] for token in added):
        return nowhere
    splitter = settings.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers", ()) if splitter.get("type") == "Sequence" else (splitter,)
    *before, last = steps or ({},)
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return nowhere
    patterns = [step for step in before if step.get("type") == "Split"]
    if len(patterns) > 1 or bool(last.get("use_regex", True)) == bool(patterns) or not all(map(_is_known, patterns)):
        return nowhere
    if any(step.get("type") not in ("Digits", "Split") for step in before):
        return nowhere
    # NFKC and the like turn some characters into ASCII, so a token may begin with such a character.
    texts = [unicodedata.normalize("NFKC", token["content"]) for token in added] + [t["content"] for t in added]
    after = _AFTER - {text[:1] for text in texts}
    reaching = any(text[i : i + 1] == "\n" and text[i + 1] in after for text in texts for i in range(len(text) - 1))
    return nowhere if reaching or not {_NEXT, _OTHER} <= after else after


def _is_known(split: dict[str, Any]) -> bool:
    pattern = split.get("pattern") or {}
    return pattern.get("Regex") in _PATTERNS and split.get("behavior") == "Isolated" and not split.get("invert")


class LineTokenizer:
    """A vocabulary that tokenizes each line once. Its tokens are those of the vocabulary itself.

    Everything except `encode` is the vocabulary's own.
    """

    def __init__(self, tokenizer: Tokenizer, at_most: int = _TOKENS) -> None:
        """Wraps a vocabulary.

        Args:
          tokenizer: the vocabulary.
          at_most: how many tokens are remembered.
        """
        self._tokenizer, self._at_most = tokenizer, at_most
        # Two generations: what was not asked for while one filled up is forgotten.
        self._young: tuple[dict[str, list[int]], ...] = ({}, {}, {}, {})
        self._old: tuple[dict[str, list[int]], ...] = ({}, {}, {}, {})
        self._size = 0
        after = cuts_after_line_breaks(tokenizer)
        self._cut = re.compile(rf"(?<=\n)(?=[{re.escape(''.join(sorted(after)))}])") if after else re.compile("(?!)")
        self._by_lines, self._after, self._same_start = bool(after), after, False
        if self._by_lines:
            one, other = tokenizer.encode([_BEFORE + _NEXT, _BEFORE + _OTHER])
            same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
            self._head, self._tail = one[:same], one[same:]
            self._same_start = tokenizer.encode([_NEXT]) == [self._tail]  # no space is put before a text
            self._by_lines = self.encode(_TRIED) == tokenizer.encode(_TRIED)
            if not self._by_lines:
                self._forget()
                self._forget()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    @property
    def by_lines(self) -> bool:
        """Whether texts are cut. Otherwise they are remembered as a whole."""
        return self._by_lines

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        parts = [self._parts(text) for text in texts]
        known: dict[tuple[int, str], list[int]] = {}
        missing = []
        for part in dict.fromkeys(part for of_text in parts for part in of_text):
            if (ids := self._remembered(*part)) is None:
                missing.append(part)
            else:
                known[part] = ids
        if missing:
            for part, ids in zip(missing, self._tokenizer.encode([_around(*part) for part in missing]), strict=True):
                kind, text = part
                start = len(self._head) if kind in (_INNER, _LAST) else 0
                end = len(ids) - (len(self._tail) if kind in (_FIRST, _INNER) else 0)
                known[part] = self._remember(kind, text, ids[start:end])
        found = []
        for of_text in parts:
            if len(of_text) == 1:
                found.append(list(known[of_text[0]]))
            else:
                whole: list[int] = []
                for part in of_text:
                    whole += known[part]
                found.append(whole)
        return found

    def _parts(self, text: str) -> list[tuple[int, str]]:
        lines = self._cut.split(text) if self._by_lines and "\n" in text else [text]
        as_after_a_break = self._same_start and text[:1] in self._after
        if len(lines) == 1:
            return [(_LAST if as_after_a_break else _WHOLE, text)]
        first, *inner, last = lines
        first_kind = _INNER if as_after_a_break else _FIRST
        return [(first_kind, first), *((_INNER, line) for line in inner), (_LAST, last)]

    def _remembered(self, kind: int, text: str) -> list[int] | None:
        if (ids := self._young[kind].get(text)) is not None:
            return ids
        if (ids := self._old[kind].get(text)) is not None:
            self._remember(kind, text, ids)
        return ids

    def _remember(self, kind: int, text: str, ids: list[int]) -> list[int]:
        self._size += len(ids) + 8  # with the memory for the entry itself
        if 2 * self._size > self._at_most:
            self._forget()
        self._young[kind][text] = ids
        return ids

    def _forget(self) -> None:
        self._old, self._young, self._size = self._young, ({}, {}, {}, {}), 0


def _around(kind: int, text: str) -> str:
    """A line in the form that is given to the vocabulary."""
    return (_BEFORE if kind in (_INNER, _LAST) else "") + text + (_NEXT if kind in (_FIRST, _INNER) else "")
