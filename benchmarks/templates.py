"""How the templates are worded: their length, openings, headings, role-plays, repeats, and its place.

python benchmarks/templates.py                         figures over all forward templates, and what misses the aims
python benchmarks/templates.py --cluster=nli           the datasets of a cluster, one by one
python benchmarks/templates.py --dataset=rte,snli      some datasets
python benchmarks/templates.py --against=FOLDER        runs of six words that a text file of FOLDER has too

Instruction words are the words of a template that are neither a field nor the options block. Datasets that share their
templates count once. A repeat is sought among all datasets, whichever are asked for. Role-plays are found by their
words, so look at what is named before you believe it.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from flan_jax import catalog, options, template_lint
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import user_path
from flan_jax.json_lines import to_json
from flan_jax.templates import PLACEHOLDER, Template

SHORT, LONG, MEDIAN = 3, 25, 9  # instruction words
SHORT_SHARE, DISTINCT_SHARE, HEADING_SHARE = 0.1, 480 / 530, 0.2  # at least, at least, at most
ALIKE = 0.4  # from here on, of the word trigrams of two skeletons, they are near-duplicates
RUN = 6  # words; so many in a row that stand elsewhere too are no accident

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_LABEL = re.compile(  # of a field: "Text: ", "(a) ", "- "
    r"(?m)^(?:- |\(?\w\)? )?(?:[^\s{}?!.:]+ ?){1,2}:[ \n](?=\{)|^(?:\(\w\)|\w\.|\d\)|-) (?=\{)"
)
_HEADING = re.compile(r"(?m)^[^a-z{}\n]*\b(?!JSON\b|HTML\b|XML\b)[A-Z]{4,}\b[^a-z{}\n]*(?=$|[:,.;({]| [a-z(])")
_PEOPLE = (
    "friend|boss|son|daughter|sister|brother|niece|nephew|cousin|mother|father|mom|mum|dad|grand[a-z]+|neighbou?r"
    "|colleague|coworker|teacher|students?|pupils?|class|editor|publisher|translator|host|interpreter|quizmaster"
    "|examiner|moderator|librarian|guest|tourist|visitor|lady|team|candidate|contestant|newsreader|journalist"
    "|researchers?|linguists|kids?|children|people"
)
_STILTED = re.compile(
    r"\b(whom|shall|ought|lest|hence|thus|thereof|whilst|amongst|upon|upshot|notices|render|somebody|bear (in mind|out)"
    r"|beware|kindly|so kind as|would you (mind|please)|may i|might i|be it|one (has|may|can|is) to|mind (that|this)"
    r"|to judge by|(is|are) to be|(have|has) to be (one|that)|put down|set down|at once|happen to know|of little weight"
    r"|in so many words|seldom|in accordance|cuttings|blackboard|typewriter|motion picture|lend (me|us|them) a hand"
    r"|runs as follows|reads as follows|ran like this|such that|in such a way|the former|the latter|as it were"
    r"|on the strength of|for want of|no more than|nothing but|under discussion|failing that|were (i|you|one) to)\b",
    re.IGNORECASE,
)
_ROLE_PLAY = re.compile(
    r"\b(you are (a|an|the|my|our|asked|shown|writing|reading|making|sorting)\b|you('ve| have) (just|been)"
    r"|you (work|write|edit|moderate|translate|look after|keep)\b|(?-i:Imagine|Pretend|Suppose|Act as)\b"
    rf"|(my|our|your|an?|the|his|her|two|some) (little |old |best |fact |book )?({_PEOPLE}|checker|club)\b"
    r"|I(?:'m| am| was|'ve been| have been) \w+ing\b|I (?:heard|came across|missed|started from|dictated|gave|landed)\b"
    r"|(hi|hey|hello|dear)[ ,!.])",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Wording:
    """A template as it is looked at.

    Attributes:
      dataset: whose it is, the first of those that share it.
      number: its number there.
      template: the template.
    """

    dataset: str
    number: int
    template: Template

    @functools.cached_property
    def shown(self) -> str:
        """The input without its options block."""
        return re.sub(r"\s*\{options\}", "", self.template.input).strip()

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """Its instruction words, in lower case."""
        return words(PLACEHOLDER.sub(" ", self.shown))

    @functools.cached_property
    def skeleton(self) -> tuple[str, ...]:
        """Its words and fields in their order, each field as "{}"."""
        parts = PLACEHOLDER.split(self.shown)
        found = [word for text in parts[0::2] for word in (*words(text), "{}")]
        return tuple(found[:-1])

    @functools.cached_property
    def grams(self) -> frozenset[tuple[str, ...]]:
        """Word trigrams of the skeleton with its ends; a shorter one is compared whole."""
        padded = ("", *self.skeleton, "")
        return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))

    @property
    def has_heading(self) -> bool:
        """Whether a line begins with words in capitals."""
        return bool(_HEADING.search(self.template.input.replace("OPTIONS", "")))

    @property
    def role_play(self) -> str:
        """The words that make it a role-play, "" where there are none."""
        found = _ROLE_PLAY.search(PLACEHOLDER.sub("_", self.shown))
        return found.group() if found else ""

    @property
    def stilted(self) -> list[str]:
        """Words and turns that nobody would type today."""
        text = PLACEHOLDER.sub("_", f"{self.shown} | {self.template.open_input}")
        return list(dict.fromkeys(found.group().lower() for found in _STILTED.finditer(text)))

    @functools.cached_property
    def placement(self) -> str:
        """Where the instruction stands to the fields, their labels apart: before, after, around, between or none."""
        text = _LABEL.sub("", self.shown)
        parts = [bool(words(part)) for part in PLACEHOLDER.split(text)[0::2]]
        if len(parts) == 1:
            return "before"
        before, between, after = parts[0], any(parts[1:-1]), parts[-1]
        if before and after:
            return "around"
        return "before" if before else "after" if after else "between" if between else "none"

    @property
    def form(self) -> str:
        """Question, fields (each with a label), cue (a few words) or statement, by its marks."""
        text = _LABEL.sub("", self.shown)
        if "?" in PLACEHOLDER.sub("", self.shown):
            return "question"
        if len(words(PLACEHOLDER.sub(" ", text))) <= SHORT and text != self.shown:
            return "fields"
        return "cue" if len(self.words) <= SHORT else "statement"


def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case."""
    return tuple(word.lower() for word in _WORD.findall(text))


def wordings() -> dict[str, list[Wording]]:
    """Every dataset's templates, those that are shared once: {first dataset's name: wordings}."""
    found: dict[tuple[Template, ...], list[Wording]] = {}
    for record in catalog.datasets():
        if record.templates not in found:
            found[record.templates] = [Wording(record.name, n, t) for n, t in enumerate(record.templates)]
    return {listed[0].dataset: listed for listed in found.values()}


def likeness(one: Wording, other: Wording) -> float:
    """What two skeletons share of their trigrams, 0 to 1."""
    return len(one.grams & other.grams) / len(one.grams | other.grams)


def near_duplicates(listed: Sequence[Wording]) -> list[tuple[float, Wording, Wording]]:
    """Pairs of templates with some words whose skeletons are nearly the same, the most alike first."""
    worded = [one for one in listed if one.words]
    by_gram = collections.defaultdict(list)
    for number, one in enumerate(worded):
        for gram in one.grams:
            by_gram[gram].append(number)
    pairs = {(a, b) for same in by_gram.values() for a in same for b in same if a < b}
    found = [(likeness(worded[a], worded[b]), worded[a], worded[b]) for a, b in pairs]
    return sorted((p for p in found if p[0] >= ALIKE), key=lambda p: (-p[0], p[1].dataset, p[1].number))


def opening(one: Wording) -> tuple[str, ...]:
    """The first three instruction words; of a shorter template all that there are."""
    return one.words[:3]


def copied(listed: Iterable[Wording], folder: str) -> list[dict[str, Any]]:
    """Templates with a run of words, between two fields, that a text file below a folder has too."""
    theirs: set[tuple[str, ...]] = set()
    for path in sorted(user_path(folder, "--against").rglob("*")):
        if path.is_file() and path.suffix in (".py", ".yaml", ".yml", ".json", ".jsonl", ".txt", ".md", ""):
            text = words(path.read_text(encoding="utf-8", errors="ignore").replace("\\n", "\n"))
            theirs.update(zip(*(text[i:] for i in range(RUN)), strict=False))
    found = []
    for one in listed:
        for literal in PLACEHOLDER.split(one.shown)[0::2]:
            own = words(literal)
            for run in zip(*(own[i:] for i in range(RUN)), strict=False):
                if run in theirs:
                    found.append({"dataset": one.dataset, "template": one.number, "words": " ".join(run)})
    return found


def figures(listed: Sequence[Wording]) -> dict[str, Any]:
    """The figures of forward templates."""
    counts = sorted(len(one.words) for one in listed)
    headed = {one.dataset for one in listed if one.has_heading}
    played = collections.Counter(one.dataset for one in listed if one.role_play)
    datasets = len({one.dataset for one in listed})
    return {
        "templates": len(listed),
        "datasets": datasets,
        "median_words": statistics.median(counts),
        "short_share": sum(n <= SHORT for n in counts) / len(counts),
        "p90_words": counts[max(0, -(-9 * len(counts) // 10) - 1)],
        "most_words": counts[-1],
        "distinct_openings": len({opening(one) for one in listed}),
        "datasets_with_heading": len(headed),
        "role_plays_per_dataset": played.total() / datasets,
        "datasets_with_several_role_plays": sum(n > 1 for n in played.values()),
        "placement": dict(collections.Counter(one.placement for one in listed).most_common()),
        "form": dict(collections.Counter(one.form for one in listed).most_common()),
    }


def misses(listed: Sequence[Wording], alike: Sequence[tuple[float, Wording, Wording]], opens: Mapping) -> list[str]:
    """What of a dataset's own templates misses its aims, a line each, by template number."""
    forward = [one for one in listed if one.template.is_forward]
    counts = {one.number: len(one.words) for one in forward}
    found = []
    if not any(n <= SHORT for n in counts.values()):
        found.append(f"none has {SHORT} words or fewer; the shortest is {min(counts, key=counts.get)}")
    if (middle := statistics.median(counts.values())) > MEDIAN:
        above = [f"{number} ({n})" for number, n in counts.items() if n > MEDIAN]
        found.append(f"median {middle:g} words; above {MEDIAN}: {', '.join(above)}")
    if len(long := [f"{number} ({n})" for number, n in counts.items() if n > LONG]) > 1:
        found.append(f"several have over {LONG} words: {', '.join(long)}")
    if headed := [one.number for one in forward if one.has_heading]:
        found.append(f"a heading in capitals: {', '.join(map(str, headed))}")
    if len(played := [f"{one.number} ({one.role_play})" for one in forward if one.role_play]) > 1:
        found.append(f"several role-plays: {', '.join(played)}")
    for one in forward:
        if others := [f"{o.dataset} {o.number}" for o in opens[opening(one)] if o is not one]:
            found.append(f"{one.number} opens like {', '.join(others)}: {' '.join(opening(one))}")
    for share, one, other in alike:
        for mine, theirs in ((one, other), (other, one)):
            if mine in listed and (theirs not in listed or mine is one):
                found.append(f"{mine.number} is much like {theirs.dataset} {theirs.number} ({share:.2f})")
    for number, lines in template_lint.lint_wording(catalog.dataset(listed[0].dataset)).items():
        found += [f"{number}: {line}" for line in lines]
    found += [f"{one.number} sounds stilted: {', '.join(heard)}" for one in listed if (heard := one.stilted)]
    for side in ("before", "after", "around"):
        if side not in {one.placement for one in forward}:
            found.append(f"none has its instruction {side} the text")
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of what was asked for, and of each dataset.

    Raises:
      FlanError: an unknown dataset or cluster.
    """
    every = wordings()
    named = {catalog.dataset(name.removeprefix("flan_")).templates for name in arguments.dataset}
    if arguments.cluster:
        named |= {record.templates for record in catalog.datasets(arguments.cluster)}
    chosen = {n: listed for n, listed in every.items() if not named or tuple(w.template for w in listed) in named}
    all_forward = [one for listed in every.values() for one in listed if one.template.is_forward]
    alike = near_duplicates([one for listed in every.values() for one in listed])
    opens = collections.defaultdict(list)
    for one in all_forward:
        opens[opening(one)].append(one)
    datasets = {
        name: figures([one for one in listed if one.template.is_forward]) | {"misses": misses(listed, alike, opens)}
        for name, listed in chosen.items()
    }
    listed = [one for of_dataset in chosen.values() for one in of_dataset]
    result = figures([one for one in listed if one.template.is_forward]) | {
        "inverted_median_words": statistics.median([len(w.words) for w in listed if not w.template.is_forward] or [0]),
        "repeated_skeletons": sorted(
            " ".join(skeleton)
            for skeleton, of in _by_skeleton(all_forward).items()
            if len({one.dataset for one in of}) > 1 and any(one.dataset in chosen for one in of)
        ),
        "near_duplicates": [
            {"templates": [[one.dataset, one.number], [other.dataset, other.number]], "likeness": round(share, 2)}
            for share, one, other in alike
            if {one.dataset, other.dataset} & set(chosen)
        ],
        "of_datasets": datasets,
    }
    result["aims"] = aims(result)
    return result | ({"copied": copied(listed, arguments.against)} if arguments.against else {})


def _by_skeleton(listed: Iterable[Wording]) -> dict[tuple[str, ...], list[Wording]]:
    found = collections.defaultdict(list)
    for one in listed:
        if one.words:
            found[one.skeleton].append(one)
    return found


def aims(result: Mapping[str, Any]) -> dict[str, bool]:
    """Which aims over all forward templates are met."""
    n, datasets = result["templates"], result["datasets"]
    return {
        f"median at most {MEDIAN}": result["median_words"] <= MEDIAN,
        f"{SHORT} words or fewer: {SHORT_SHARE:.0%} at least": result["short_share"] >= SHORT_SHARE,
        f"90 % have at most {LONG}": result["p90_words"] <= LONG,
        "distinct openings: 480 of 530 at least": result["distinct_openings"] >= DISTINCT_SHARE * n,
        "a heading in capitals in one dataset of five at most": result["datasets_with_heading"]
        <= HEADING_SHARE * datasets,
        "one role-play a dataset at most": result["datasets_with_several_role_plays"] == 0,
        "no skeleton stands in two datasets": not result["repeated_skeletons"],
        "no near-duplicates": not result["near_duplicates"],
    }


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Prints the figures, and the misses of each dataset."""
    one_by_one = Table("dataset", "forward", "median", "short", "p90", "heading", "role-plays", "placement", "misses")
    for name, of in result["of_datasets"].items():
        placed = " ".join(f"{side} {n}" for side, n in of["placement"].items())
        short, played = round(of["short_share"] * of["templates"]), round(of["role_plays_per_dataset"])
        cells = (
            of["templates"],
            f"{of['median_words']:g}",
            short,
            of["p90_words"],
            of["datasets_with_heading"],
            played,
        )
        one_by_one.add_row(name, *map(str, cells), placed, str(len(of["misses"])))
    console.print(one_by_one)
    for name, of in result["of_datasets"].items():
        for line in of["misses"]:
            console.print(f"{name}: {line}", markup=False, highlight=False, soft_wrap=True)
    for one in result.get("copied", ()):
        console.print(f"{one['dataset']} {one['template']}: found elsewhere: {one['words']}", markup=False)
    for skeleton in result["repeated_skeletons"]:
        console.print(f"in several datasets: {skeleton}", markup=False, highlight=False, soft_wrap=True)
    whole = Table("figure", "value")
    for name, value in result.items():
        if isinstance(value, int | float):
            whole.add_row(name, f"{value:.3g}")
        elif name in ("placement", "form"):
            whole.add_row(name, ", ".join(f"{side} {n}" for side, n in value.items()))
        elif name in ("repeated_skeletons", "near_duplicates", "copied"):
            whole.add_row(name, str(len(value)))
    console.print(whole)
    for aim, is_met in result["aims"].items():
        console.print(f"{'met' if is_met else 'MISSED'}: {aim}", markup=False, highlight=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, looks at the templates, and prints what it finds."""
    parser = options.Parser(
        prog="python benchmarks/templates.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", type=lambda text: text.split(","), default=[], help="names, with commas between")
    parser.add_argument("--cluster", help="all datasets of a cluster")
    parser.add_argument("--against", help="a folder of text files in which runs of six words are sought")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        if arguments.against and not user_path(arguments.against, "--against").is_dir():
            raise FlanError(f"--against={arguments.against} is no folder.")
        result = measure(arguments)
        show(Console(width=160), result)
        if arguments.json:
            print(to_json(result))


if __name__ == "__main__":
    main()
