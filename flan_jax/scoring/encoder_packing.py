"""Rows of an encoder-decoder: prompts packed on the encoder's side, their options on the decoder's.

A tree's trunk is what the encoder reads, ending in EOS. On the decoder's side the tree has a trunk of one slot, id 0,
which predicts the first token of every option, as T5's decoder starts. Segments of the same number belong together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.scoring.tree_packing import Piece, Row
from flan_jax.scoring.trees import Tree

START = 0  # what stands before the decoder's first token
_OPEN_ROWS = 64  # a piece goes to one of the last so many rows
_SHARES = (0.125, 0.5, 2.0)  # lengths of the decoder's rows, as shares of the encoder's


def whole(tree: Tree) -> Tree:
    """The tree with its prefix in its trunk: an encoder looks ahead, so nothing of it can be computed before.

    Raises:
      FlanError: a branch that repeats tokens of the prompt.
    """
    if any(tree.unscored):
        raise FlanError("an encoder-decoder reads prompt and options apart: score it with the joint 'eos'.")
    return dataclasses.replace(tree, trunk=tree.prefix + tree.trunk, prefix=())


def of_decoder(tree: Tree) -> Tree:
    """What of a tree is on the decoder's side."""
    return dataclasses.replace(tree, trunk=(START,))


def decoder_share(trees: Sequence[Tree], longest: int) -> float:
    """Length of the decoder's rows as a share of the encoder's, such that both sides are about as full.

    Args:
      trees: as `whole` gives them.
      longest: of the encoder's rows.
    """
    options = sum(1 + sum(map(len, tree.branches)) for tree in trees)
    prompts = sum(len(tree.trunk) for tree in trees)
    needed = max((1 + max(map(len, tree.branches), default=0) for tree in trees), default=1)
    fitting = [share for share in _SHARES if int(share * longest) >= needed and share * prompts >= options]
    return (fitting or _SHARES[-1:])[0]


def pack(pieces: Iterable[Piece], trees: Sequence[Tree], lengths: Sequence[int], share: float) -> list[Row]:
    """The longest prompt first, into the fullest open row that takes it on both sides, else into a new one.

    Args:
      pieces: of the decoder's trees.
      trees: as `whole` gives them.
      lengths: of the encoder's rows, ascending; a new row has the first that suffices on both sides.
      share: see `decoder_share`.

    Returns:
      Rows whose length is the encoder's; what is `free` is on the encoder's side.
    """
    rows: list[Row] = []
    free: list[int] = []  # on the decoder's side
    for piece in sorted(pieces, key=lambda piece: (-len(trees[piece.tree].trunk), -piece.size)):
        size = len(trees[piece.tree].trunk)
        open_rows = range(max(0, len(rows) - _OPEN_ROWS), len(rows))
        fitting = [i for i in open_rows if rows[i].free >= size and free[i] >= piece.size]
        if fitting:
            number = min(fitting, key=lambda i: rows[i].free)
        else:
            number = len(rows)
            length = next(n for n in lengths if n >= size and int(share * n) >= piece.size)
            rows.append(Row(length, length, []))
            free.append(int(share * length))
        rows[number].pieces.append(piece)
        rows[number].free -= size
        free[number] -= piece.size
    return rows


def encoder_arrays(rows: Sequence[Row], trees: Sequence[Tree], num_rows: int, length: int) -> dict[str, np.ndarray]:
    """The encoder's tokens, positions and segments, [B, S]; segments as `tree_packing.assemble` numbers them."""
    names = ("encoder_tokens", "encoder_positions", "encoder_segments")
    tokens, positions, segments = np.zeros((3, num_rows, length), np.int32)
    for b, row in enumerate(rows):
        start = 0
        for segment, piece in enumerate(row.pieces, 1):
            trunk = trees[piece.tree].trunk
            place = slice(start, start := start + len(trunk))
            tokens[b, place], positions[b, place], segments[b, place] = trunk, range(len(trunk)), segment
    return dict(zip(names, (tokens, positions, segments), strict=True))
