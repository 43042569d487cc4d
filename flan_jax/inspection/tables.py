"""Tables and panels of the catalog, of examples and of packed rows, for a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flan_jax import catalog
from flan_jax.inspection import settings
from flan_jax.inspection.examples import Shown, Span
from flan_jax.inspection.rows import Row

FIELD, TARGET, PREFIX = "cyan", "bold green", "dim"
_SEGMENTS = (("cyan", "bold cyan"), ("yellow", "bold yellow"))  # inputs and targets of every other segment


def catalog_table() -> Table:
    """Clusters with their datasets, and what leaves training when they are evaluated."""
    table = Table(box=box.SIMPLE, title="clusters", title_justify="left")
    for head in ("cluster", "datasets", "variants", "held out with it"):
        table.add_column(head, overflow="fold")
    for cluster in catalog.clusters():
        members = catalog.datasets(cluster.name)
        names = dict.fromkeys(d.name + ("" if d.is_averaged else " (extra)") for d in members)
        papers = {d.paper_dataset for d in members if d.is_averaged}
        table.add_row(cluster.name, str(len(papers)), ", ".join(names), ", ".join(cluster.held_out_with))
    return table


def mixtures_table() -> Table:
    """The named mixtures, and how many datasets each trains on."""
    table = Table(box=box.SIMPLE, title="mixtures", title_justify="left")
    for head in ("mixture", "variants", "clusters", "left out"):
        table.add_column(head, overflow="fold")
    everything = {d.cluster for d in catalog.mixture("flan")}
    for name in catalog.mixture_names():
        members = catalog.mixture(name)
        clusters = {d.cluster for d in members}
        out = [c.name for c in catalog.clusters() if c.name in everything - clusters]
        table.add_row(name, str(len(members)), str(len(clusters)), ", ".join(out))
    return table


def summary_table(summary: Mapping[str, Any]) -> Table:
    """`examples.summary` as a table, one line for each variant, with the totals at the bottom."""
    totals = summary["totals"]
    table = Table(box=box.SIMPLE, show_footer=True)
    table.add_column("cluster", f"{totals['clusters']} clusters")
    table.add_column("dataset", f"{totals['datasets']} datasets", overflow="fold")
    table.add_column("variant", f"{totals['variants']} variants, {totals['extras']} extras", no_wrap=True)
    table.add_column("source")
    table.add_column("kind")
    table.add_column("forward", str(totals["forward"]), justify="right")
    table.add_column("inverted", str(totals["inverted"]), justify="right")
    table.add_column("metrics", f"{totals['templates']} templates")
    last = ""
    for line in summary["variants"]:
        extra = "" if line["in_flan"] else " (extra)"
        head = line["cluster"] if line["cluster"] != last else ""
        last = line["cluster"]
        counts = str(line["forward"]), str(line["inverted"])
        names = line["dataset"], line["variant"] + extra
        table.add_row(head, *names, line["source"], line["kind"], *counts, ", ".join(line["metrics"]))
    return table


def example_panel(shown: Shown) -> Panel:
    """An example: exemplars dimmed, text from the record in colour, the target below a rule."""
    text = Text(shown.prefix, style=PREFIX)
    text.append_text(_spanned(shown.inputs, FIELD))
    target = _spanned(shown.targets, TARGET)
    title = f"{shown.dataset} · template {shown.template} ({shown.direction}) · {shown.record_id}"
    counts = f"{shown.input_tokens} + {shown.target_tokens} tokens"
    return Panel(
        Group(text, Text("→ ", style=TARGET) + target), title=Text(title), subtitle=Text(counts), title_align="left"
    )


def _spanned(spans: Sequence[Span], style: str) -> Text:
    text = Text()
    for span in spans:
        text.append(span.text, style if span.field else "")
    return text


def examples_panels(shown: Sequence[Shown]) -> Group:
    """Examples one below the other."""
    return Group(*map(example_panel, shown))


def row_panel(row: Row) -> RenderableType:
    """A packed row: a table of its segments, and their text in alternating colours."""
    table = Table(box=box.SIMPLE)
    for head in ("segment", "dataset", "template", "record", "start", "tokens", "target tokens"):
        table.add_column(head, justify="left" if head == "dataset" else "right")
    text = Text()
    for number, segment in enumerate(row.segments):
        counts = (segment.start, segment.tokens, segment.target_tokens)
        table.add_row(str(number), segment.part, f"t{segment.template}", str(segment.record), *map(str, counts))
        inputs, target = _SEGMENTS[number % 2]
        text.append(segment.inputs, inputs).append(" ⏎ ", "dim").append(segment.targets, target).append(" ∎\n", "dim")
    used = f"{row.filled} of {row.length} slots filled ({row.filled / row.length:.3f})"
    targets = f"{row.target_filled} of {row.target_length} target slots ({row.target_filled / row.target_length:.3f})"
    return Group(
        table, Panel(text, title=Text(f"step {row.step}, row {row.number}"), subtitle=Text(f"{used}; {targets}"))
    )


def macros_table(file: str, members: Sequence[settings.Macro]) -> Table:
    """The macros of a run file, under their headings."""
    table = Table(box=box.SIMPLE, title=f"macros of {file}", title_justify="left")
    for head in ("macro", "default", "what it is for"):
        table.add_column(head, overflow="fold", no_wrap=head == "macro")
    last = members[0].section
    for macro in members:
        if macro.section != last:
            table.add_section()
        last = macro.section
        table.add_row(macro.name, Text(macro.default), Text(macro.meaning))
    return table


def setting_panel(one: settings.Macro | settings.Function) -> Panel:
    """A macro, or a function with its arguments."""
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if isinstance(one, settings.Macro):
        rows = [("default", one.default), ("may be", one.wanted), *((f"  {key}", of) for key, of in one.keys.items())]
        rows += [("note", one.note)] * bool(one.note) + [("sets", ", ".join(one.arguments))]
    else:
        rows = [
            (f"{argument.name} = {argument.default}", f"{argument.meaning} ({argument.macro or argument.wanted})")
            for argument in one.arguments
        ]
    for name, text in rows:
        table.add_row(Text(name, style=FIELD), Text(text))
    return Panel(Group(Text(one.meaning), table), title=Text(one.name), title_align="left")
