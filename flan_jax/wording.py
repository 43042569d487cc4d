"""Numbers in lines for people: "1 way", "3 ways"."""

from __future__ import annotations

import re

_ENDS = (("ies", "y"), ("(ch|sh|x|ss)es", r"\1"), ("s", ""))  # ends of plurals, and of their singulars


def counted(number: int, plural: str) -> str:
    """A number with the noun that it counts, in singular or plural.

    Args:
      number: how many.
      plural: the noun with a regular plural, such as "datasets" or "more rows".

    Example:
      >>> counted(1, "datasets"), counted(1, "entries"), counted(2000, "rows")
      ('1 dataset', '1 entry', '2,000 rows')
    """
    if number != 1:
        return f"{number:,} {plural}"
    ending, singular = next((e, s) for e, s in _ENDS if re.search(f"{e}$", plural))
    return "1 " + re.sub(f"{ending}$", singular, plural)
