"""Packs trees for an encoder-decoder: prompts into rows of the encoder, their options into rows of the decoder.

The encoder reads a tree's trunk, which ends in EOS. In the decoder, the tree has a trunk of one slot, token id 0, as
T5's decoder starts. That slot predicts the first token of every option. Segments with the same number belong together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.scoring.tree_packing import Piece, Row
from flan_jax.scoring.trees import Tree

START = 0  # the token before the decoder's first token
_OPEN_ROWS = 64  # a piece goes to one of the last so many rows
_SHARES = (0.125, 0.5, 2.0)  # lengths of the decoder's rows, as shares of the encoder's


def whole(tree: Tree) -> Tree:
    """Moves a tree's prefix into its trunk. An encoder looks ahead, so it cannot compute a prefix alone.

    Raises:
      FlanError: a branch repeats tokens of the prompt.
    """
    if any(tree.unscored):
        raise FlanError("an encoder-decoder reads prompt and options separately: score it with the joint 'eos'.")
    return dataclasses.replace(tree, trunk=tree.prefix + tree.trunk, prefix=())


def of_decoder(tree: Tree) -> Tree:
    """The decoder's part of a tree."""
    return dataclasses.replace(tree, trunk=(START,))


def decoder_share(trees: Sequence[Tree], longest: int) -> float:
    """The length of the decoder's rows as a share of the encoder's. Both sides should be about equally full.

    Args:
      trees: trees that `whole` gave.
      longest: length of the encoder's longest rows.
    """
    options = sum(1 + sum(map(len, tree.branches)) for tree in trees)
    prompts = sum(len(tree.trunk) for tree in trees)
    needed = max((1 + max(map(len, tree.branches), default=0) for tree in trees), default=1)
    fitting = [share for share in _SHARES if int(share * longest) >= needed and share * prompts >= options]
    return (fitting or _SHARES[-1:])[0]


def pack(pieces: Iterable[Piece], trees: Sequence[Tree], lengths: Sequence[int], share: float) -> list[Row]:
    """Packs the longest prompt first, into the fullest open row that has room on both sides, or else into a new row.

    Args:
      pieces: pieces of the decoder's trees.
      trees: trees that `whole` gave.
      lengths: lengths of the encoder's rows, ascending. A new row has the first one that is long enough on both sides.
      share: see `decoder_share`.

    Returns:
      Rows with the encoder's length; `free` counts slots of the encoder.
    """
    rows: list[Row] = []
    free: list[int] = []  # free slots of the decoder
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
    """The encoder's tokens, positions and segments, each [B, S].

    `tree_packing.assemble` numbers segments in the same way.
    """
    names = ("encoder_tokens", "encoder_positions", "encoder_segments")
    tokens, positions, segments = np.zeros((3, num_rows, length), np.int32)
    for b, row in enumerate(rows):
        start = 0
        for segment, piece in enumerate(row.pieces, 1):
            trunk = trees[piece.tree].trunk
            place = slice(start, start := start + len(trunk))
            tokens[b, place], positions[b, place], segments[b, place] = trunk, range(len(trunk)), segment
    return dict(zip(names, (tokens, positions, segments), strict=True))
