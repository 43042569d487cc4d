"""What a check found: the largest difference, where it was, and how much was compared."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from flan_jax.wording import counted

HOLDS, FAILS, SKIPPED = "ok", "FAILED", "skipped"

Place = Mapping[str, Any]  # names a place: {"dataset": "rte", "record": 12}


class Skip(Exception):
    """Why something cannot be checked, and what to do about it."""


class Tally:
    """Collects differences: keeps the worst, and counts what was compared."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.left_out: list[str] = []
        self._noticed: dict[str, bool] = {}
        self._worst: tuple[float, float, float, dict[str, Any]] | None = None

    def count(self, **compared: int) -> None:
        """Counts what was compared, by its kind: `count(target_tokens=3)`."""
        self.counts.update(compared)

    def see(self, difference: float, allowed: float, place: Place) -> None:
        """Adds a difference. NaN counts as the worst."""
        difference, allowed = float(difference), float(allowed)
        if difference <= allowed and math.isfinite(allowed):
            excess = difference / allowed if allowed else 0.0
        else:  # also if one of the two is NaN, or what is allowed is infinite
            excess = difference / allowed if allowed and math.isfinite(difference / allowed) else math.inf
        if self._worst is None or excess > self._worst[0]:
            self._worst = (excess, difference, allowed, dict(place))

    def same(self, found: Any, expected: Any, place: Place) -> bool:
        """Whether two things are equal, as they must be. If not, both are shown."""
        if found == expected:
            return True
        self.see(math.inf, 0.0, {**place, "found": found, "expected": expected})
        return False

    def could_miss(self, fault: str) -> bool:
        """Whether no control has shown yet that this fault would be noticed."""
        return not self._noticed.get(fault, False)

    def control(self, fault: str, change: float = 0.0, allowed: float = 0.0) -> None:
        """Records how far a fault that was made on purpose moves what is compared.

        A check that notices nothing proves nothing.

        Args:
          fault: the fault, in words that follow "could not notice".
          change: the change that it makes.
          allowed: what is allowed at that place.
        """
        self._noticed[fault] = self._noticed.get(fault, False) or bool(change > allowed)

    def finding(self, name: str, says: str) -> Finding:
        """The result. A check does not hold if it compared nothing, or could not have noticed a fault."""
        counts = {what.replace("_", " "): number for what, number in self.counts.items() if number}
        excess, difference, allowed, place = self._worst or (0.0, None, None, {})
        remarks = tuple(self.left_out)
        if not counts and self._worst is None:
            return Finding(name, says, FAILS, reason="nothing was compared", remarks=remarks)
        if not (excess <= 1 and counts):
            return Finding(name, says, FAILS, difference, allowed, place, counts, remarks=remarks)
        blind = [fault for fault, noticed in self._noticed.items() if not noticed]
        reason = f"it could not notice {', or '.join(blind)}" if blind else ""
        status = FAILS if blind else HOLDS
        return Finding(name, says, status, difference, allowed, place, counts, reason=reason, remarks=remarks)


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
      name: the check's name.
      says: what is true if it holds.
      status: "ok", "FAILED" or "skipped".
      difference: the largest difference relative to what is allowed; infinite if two things that must be equal are not.
      allowed: what is allowed at that place.
      place: where the largest difference was.
      compared: how many of what were compared.
      reason: why it was skipped, or failed without a difference.
      remarks: what could not be compared, and why.
      seconds: how long it took.
    """

    name: str
    says: str
    status: str
    difference: float | None = None
    allowed: float | None = None
    place: Place = dataclasses.field(default_factory=dict)
    compared: Mapping[str, int] = dataclasses.field(default_factory=dict)
    reason: str = ""
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0

    def line(self) -> str:
        """The result as a line of text."""
        parts = [f"{self.status:8}{self.name}: {self.says}"]
        if self.reason:
            parts.append(self.reason)
        where = ", ".join(f"{kind} {value}" for kind, value in self.place.items())
        if self.difference is None:
            pass
        elif self.difference == 0:
            parts.append("no difference at all")
        elif self.allowed == 0 and self.status == FAILS:
            parts.append(f"not the same at {where}")
        else:
            parts.append(f"largest difference {self.difference:.2g} (allowed {self.allowed:.2g}) at {where}")
        if self.compared:
            parts.append("compared: " + ", ".join(counted(number, what) for what, number in self.compared.items()))
        parts += self.remarks
        if self.status != SKIPPED:
            parts.append(f"{self.seconds:.0f} s")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The result as values that JSON can hold. A difference that is not finite is null."""
        values = dataclasses.asdict(self) | {"place": {k: _plain(v) for k, v in self.place.items()}}
        for name in ("difference", "allowed"):
            if values[name] is not None and not math.isfinite(values[name]):
                values[name] = None
        return values


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
