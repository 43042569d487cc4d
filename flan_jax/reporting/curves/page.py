"""Runs as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence

from flan_jax.reporting.curves import charts, figures, terminal
from flan_jax.reporting.curves.reading import Course, Spike
from flan_jax.reporting.document import document, figure, text
from flan_jax.wording import counted

_MOST_OTHERS = 24  # how many figures of hooks are drawn
_MOST_LARGE = 4  # charts of a section, two side by side; if there are more, three
_LISTED = 100  # listed spikes of a run
_NAMED = 4  # datasets named for a spike
_STYLE = """
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(440px,100%),1fr));gap:12px}
.charts.small{grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr))}
.charts figure{margin:0;padding:8px 10px;overflow:hidden;color:#22252b}
.charts figure img{min-width:0;width:100%}
figcaption{font-weight:600;font-size:14px;overflow-wrap:anywhere}figcaption small{font-weight:normal;color:#666c76}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;padding:0;margin:6px 0;list-style:none}
.legend b{display:inline-block;width:22px;margin-right:6px;vertical-align:middle;border-top:3px solid}
td{vertical-align:top}
"""
_BORDERS = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "double"}


def page(courses: Sequence[Course]) -> str:
    """The HTML page of one or several runs."""
    several = len(courses) > 1
    sections = [("runs", "Runs", _runs(courses))]
    for group in figures.groups(courses):
        names = group.figures if group.name != "others" else group.figures[:_MOST_OTHERS]
        drawn = "".join(_chart(courses, group, name) for name in names)
        left = group.figures[len(names) :]
        named = f"<p>Not drawn: {text(', '.join(left))}.</p>" if left else ""
        kind = "charts small" if len(names) > _MOST_LARGE else "charts"
        legend = _legend(courses) if several else ""
        note = f"<p>{text(group.note)}</p>" if group.note else ""
        sections.append((group.name, group.title, f'{note}{legend}<div class="{kind}">{drawn}</div>{named}'))
    if happened := "".join(_happened(course, several) for course in courses):
        sections.append(("events", "What has happened", happened))
    for name, prefix in (("dataset", figures.OF_DATASETS), ("part", figures.OF_PARTS)):
        if table := _by_name(courses, prefix):
            sections.append((f"{name}s", f"Loss by {name}", table))
    title = "FLAN-JAX training: " + ", ".join(course.name for course in courses)
    how = (
        "<p>Lines are means of equal parts of the steps, bands the lowest and highest in them; a dotted line is a "
        "start with something changed, a cross at the bottom a batch that was skipped.</p>"
    )
    return document(title, sections, _STYLE, how)


def _chart(courses: Sequence[Course], group: figures.Group, name: str) -> str:
    svg, outside = charts.chart(courses, name, group.sparse, group.span)
    caption = group.short(name)
    if outside:
        caption += f" ({counted(outside, 'values')} outside)"
    return figure(svg, f"{name} against the step", caption)


def _legend(courses: Sequence[Course]) -> str:
    lines = (
        f'<li><b style="color:{charts.color(i)};border-top-style:{_BORDERS[charts.dashes(i)]}"></b>{text(c.name)}</li>'
        for i, c in enumerate(courses)
    )
    return f'<ul class="legend">{"".join(lines)}</ul>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of text cells; the first column holds names."""

    def line(tag: str, cells: Sequence[str]) -> str:
        first = f'<{tag} class="name">{text(cells[0])}</{tag}>'
        return f"<tr>{first}{''.join(f'<{tag}>{text(cell)}</{tag}>' for cell in cells[1:])}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f'<div class="wide"><table>{line("th", head)}{body}</table></div>'


def _runs(courses: Sequence[Course]) -> str:
    rows = []
    for course in courses:
        of = "" if course.train_steps is None else f" of {course.train_steps:,}"
        numbers = (figures.summary(course, name) or {} for name in ("loss", "accuracy", "tokens_per_second"))
        cells = [figures.short_number(found.get("mean_of_last_tenth")) for found in numbers]
        step = f"{int(course.steps[-1]):,}{of}"
        rows.append([course.name, course.mixture or "not known", step, *cells, str(len(course.skipped)), course.folder])
    head = ["run", "mixture", "step", "loss", "accuracy", "tokens a second", "skipped", "folder"]
    return _table(head, rows) + "<p>Loss, accuracy and tokens a second are means of the last tenth of the steps.</p>"


def _happened(course: Course, several: bool) -> str:
    lines = "".join(f"<li>{text(line)}</li>" for line in terminal.lines(course))
    found = f"<ul>{lines}</ul>" if lines else ""
    if course.spikes:
        rows = [_spike(one) for one in course.spikes[:_LISTED]]
        head = ["step", "loss", "median before", "datasets of the batch, by loss"]
        found += _table(head, rows)
    heading = f"<h3>{text(course.name)}</h3>" if several and found else ""
    return heading + found


def _spike(spike: Spike) -> list[str]:
    """The cells for a spike: step, loss, median, and the datasets with the highest loss."""
    loss = "not finite" if spike.loss is None else figures.short_number(spike.loss)
    by_loss = sorted(spike.dataset_loss, key=spike.dataset_loss.get, reverse=True)
    more = f" and {len(by_loss) - _NAMED} more" if len(by_loss) > _NAMED else ""
    highest = ", ".join(f"{name} {figures.short_number(spike.dataset_loss[name])}" for name in by_loss[:_NAMED])
    return [f"{spike.step:,}", loss, figures.short_number(spike.median), highest + more]


def _by_name(courses: Sequence[Course], prefix: str) -> str:
    names = sorted({name for course in courses for name in course.figures if name.startswith(prefix)})
    rows = []
    for name in names:
        cells = []
        for course in courses:
            found = figures.summary(course, name) or {}
            cells += [figures.short_number(found.get(key)) for key in ("first", "mean_of_last_tenth")]
        rows.append([name.removeprefix(prefix), *cells])
    keys = ("first", "last tenth")
    heads = [f"{course.name}: {key}" if len(courses) > 1 else key for course in courses for key in keys]
    return _table(["", *heads], rows) if rows else ""
