"""What exactly a mixture consists of: examples, rates, and how often a run draws from each part. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from flan_jax import parts
from flan_jax.errors import FlanError
from flan_jax.parts import kinds
from flan_jax.protocol import EOS
from flan_jax.styles import INSTRUCTIONS
from flan_jax.wording import counted


@dataclasses.dataclass(frozen=True)
class Member:
    """A part of a mixture whose dataset is prepared.

    Attributes:
      part: the part's name.
      dataset: the name of its dataset.
      style: the name of its style.
      cluster: the cluster of its dataset.
      examples: the number of training records that are drawn from, after the cap.
      rate: its mixing rate, by default min(examples, 3000) (paper, section 2.4), times its weight.
      share: its share of the mixture's draws.
      loss_weight: multiplies the loss of its target tokens.
      joint: what stands between input and target.
      draws: expected number of draws in the run; None without a run.
      epochs: draws divided by examples; None without a run.
    """

    part: str
    dataset: str
    style: str
    cluster: str
    examples: int
    rate: int | float
    share: float
    loss_weight: float = 1.0
    joint: str = EOS
    draws: float | None = None
    epochs: float | None = None


@dataclasses.dataclass(frozen=True)
class Composition:
    """A mixture's members.

    Attributes:
      mixture: its title: its name with its style, and the macros that change it.
      members: its prepared parts, in order.
      absent: its datasets that are not prepared.
      draws: expected number of draws in the run; None without a run.
    """

    mixture: str
    members: tuple[Member, ...]
    absent: tuple[str, ...]
    draws: float | None = None

    @property
    def rates(self) -> dict[str, float]:
        """The mixing rate of each part."""
        return {m.part: float(m.rate) for m in self.members}

    @property
    def loss_weights(self) -> dict[str, float]:
        """The loss weight of each part."""
        return {m.part: m.loss_weight for m in self.members}

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the prepared datasets."""
        return tuple(dict.fromkeys(m.dataset for m in self.members))

    @property
    def joint(self) -> str:
        """What stands between input and target in most of the draws."""
        shares = {joint: sum(m.share for m in self.members if m.joint == joint) for joint in kinds.TRAINED_JOINTS}
        return max(shares, key=lambda joint: shares[joint])

    @property
    def cluster_shares(self) -> dict[str, float]:
        """The share of the draws by cluster, in the catalog's order."""
        shares: dict[str, float] = {}
        for m in self.members:
            shares[m.cluster] = shares.get(m.cluster, 0.0) + m.share
        return shares

    def over(self, draws: float) -> Composition:
        """The composition for a run with so many draws."""
        members = tuple(
            dataclasses.replace(m, draws=m.share * draws, epochs=m.share * draws / m.examples) for m in self.members
        )
        return dataclasses.replace(self, members=members, draws=draws)

    def to_dict(self) -> dict[str, Any]:
        """The composition as values that JSON can hold. The manifest keeps it."""
        return dataclasses.asdict(self)

    def table(self) -> Table:
        """A table with one line for each part, and the sums. Columns with the same value for all parts are left out."""
        table = Table(box=None, header_style="bold", title=Text(self.mixture), title_justify="left", show_footer=True)
        draws = "" if self.draws is None else f"{self.draws:,.0f}"
        has_styles = any(m.style != INSTRUCTIONS for m in self.members)
        has_weights = any(m.loss_weight != 1 for m in self.members)
        has_joints = any(m.joint != EOS for m in self.members)
        table.add_column("dataset", counted(len(self.datasets), "datasets"))
        if has_styles:
            table.add_column("style", counted(len({m.style for m in self.members}), "styles"))
        table.add_column("cluster", counted(len(self.cluster_shares), "clusters"))
        examples = {m.dataset: m.examples for m in self.members}
        table.add_column("examples", f"{sum(examples.values()):,}", justify="right")
        table.add_column("rate", _rate(sum(m.rate for m in self.members)), justify="right")
        table.add_column("share", "100.00%", justify="right")
        for head in ["loss weight"] * has_weights + ["joint"] * has_joints:
            table.add_column(head, "", justify="right")
        table.add_column("expected draws", draws, justify="right")
        table.add_column("epochs", "", justify="right")
        for m in self.members:
            run = ("", "") if m.draws is None else (f"{m.draws:,.0f}", f"{m.epochs:.2f}")
            more = [f"{m.loss_weight:g}"] * has_weights + [m.joint] * has_joints
            start = (m.dataset, *[m.style] * has_styles, m.cluster)
            table.add_row(*start, f"{m.examples:,}", _rate(m.rate), f"{m.share:.2%}", *more, *run)
        if self.absent:
            table.caption, table.caption_justify = f"not there: {', '.join(self.absent)}", "left"
        return table


def _rate(rate: int | float) -> str:
    return f"{rate:,}" if isinstance(rate, int) else f"{rate:,.2f}" if rate >= 1 else f"{rate:.3g}"


def composition(mixture: str | parts.Mixture, examples: Mapping[str, int]) -> Composition:
    """Composes a mixture from the prepared datasets.

    Args:
      mixture: see `parts.of`.
      examples: number of training records of each dataset, after the cap; a dataset that is not in it is absent.

    Raises:
      FlanError: an unknown mixture, or none of its datasets is prepared.
    """
    mixture = parts.of(mixture)
    if mixture.examples is not None:
        examples = {name: min(count, mixture.examples) for name, count in examples.items()}
    there = [part for part in mixture.parts if examples.get(part.dataset)]
    if not there:
        raise FlanError(f"mixture {mixture.name!r}: no dataset of its {len(mixture.datasets)} is there.")
    rates = {part.name: mixture.rate(part, examples[part.dataset]) for part in there}
    total = sum(rates.values())
    members = tuple(
        Member(
            part=part.name,
            dataset=part.dataset,
            style=part.style,
            cluster=part.cluster,
            examples=examples[part.dataset],
            rate=rates[part.name],
            share=rates[part.name] / total,
            loss_weight=part.loss_weight,
            joint=part.joint,
        )
        for part in there
    )
    absent = tuple(record.name for record in mixture.datasets if not examples.get(record.name))
    return Composition(mixture.title, members, absent)
