"""What exactly a mixture consists of: examples, rates, and how often a run draws from each dataset. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from flan_jax import catalog, styles
from flan_jax.errors import FlanError
from flan_jax.wording import counted


@dataclasses.dataclass(frozen=True)
class Member:
    """A dataset in a mixture.

    Attributes:
      dataset: its name.
      cluster: its cluster's.
      examples: its training records, after the cap.
      rate: min(examples, 3000) (paper, section 2.4).
      share: of the mixture's draws.
      draws: expected number of draws in the run; None without a run.
      epochs: draws by examples; None without a run.
    """

    dataset: str
    cluster: str
    examples: int
    rate: int
    share: float
    draws: float | None = None
    epochs: float | None = None


@dataclasses.dataclass(frozen=True)
class Composition:
    """A mixture's members.

    Attributes:
      mixture: its name, with its style.
      members: those that are there, in the catalog's order.
      absent: datasets of the mixture that are not there.
      draws: expected number of draws in the run; None without a run.
    """

    mixture: str
    members: tuple[Member, ...]
    absent: tuple[str, ...]
    draws: float | None = None

    @property
    def rates(self) -> dict[str, float]:
        """The mixing rate of each dataset."""
        return {m.dataset: float(m.rate) for m in self.members}

    @property
    def cluster_shares(self) -> dict[str, float]:
        """Share of the draws by cluster, in the catalog's order."""
        shares: dict[str, float] = {}
        for m in self.members:
            shares[m.cluster] = shares.get(m.cluster, 0.0) + m.share
        return shares

    def over(self, draws: float) -> Composition:
        """The composition of a run of so many draws."""
        members = tuple(
            dataclasses.replace(m, draws=m.share * draws, epochs=m.share * draws / m.examples) for m in self.members
        )
        return dataclasses.replace(self, members=members, draws=draws)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; what the manifest keeps."""
        return dataclasses.asdict(self)

    def table(self) -> Table:
        """One line a dataset and a last one with the sums, for printing."""
        table = Table(box=None, header_style="bold", title=self.mixture, title_justify="left", show_footer=True)
        draws = "" if self.draws is None else f"{self.draws:,.0f}"
        table.add_column("dataset", counted(len(self.members), "datasets"))
        table.add_column("cluster", counted(len(self.cluster_shares), "clusters"))
        table.add_column("examples", f"{sum(m.examples for m in self.members):,}", justify="right")
        table.add_column("rate", f"{sum(m.rate for m in self.members):,}", justify="right")
        table.add_column("share", "100.00%", justify="right")
        table.add_column("expected draws", draws, justify="right")
        table.add_column("epochs", "", justify="right")
        for m in self.members:
            run = ("", "") if m.draws is None else (f"{m.draws:,.0f}", f"{m.epochs:.2f}")
            table.add_row(m.dataset, m.cluster, f"{m.examples:,}", f"{m.rate:,}", f"{m.share:.2%}", *run)
        if self.absent:
            table.caption, table.caption_justify = f"not there: {', '.join(self.absent)}", "left"
        return table


def composition(mixture: str, examples: Mapping[str, int]) -> Composition:
    """Composes a mixture of the datasets that are there.

    Args:
      mixture: a name of `catalog.mixture`, with or without a style at its end.
      examples: number of training records by dataset, after the cap; a dataset that is not named is absent.

    Raises:
      FlanError: an unknown mixture, or none of its datasets is there.
    """
    wanted = catalog.mixture(styles.split_name(mixture)[0])
    there = [d for d in wanted if examples.get(d.name)]
    if not there:
        raise FlanError(f"mixture {mixture!r}: no dataset of its {len(wanted)} is there.")
    rates = {d.name: catalog.mixing_rate(examples[d.name]) for d in there}
    total = sum(rates.values())
    members = tuple(Member(d.name, d.cluster, examples[d.name], rates[d.name], rates[d.name] / total) for d in there)
    return Composition(mixture, members, tuple(d.name for d in wanted if d not in there))
