"""What a study writes: study.md, study.json, study.html, and its figures as SVG and PNG."""

from __future__ import annotations

import collections
import dataclasses
import html
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.files import AnyPath, make_folder, ready, whole_file, write_together
from flan_jax.json_lines import to_json
from flan_jax.reporting import document as pages
from flan_jax.reporting.tables import Table
from flan_jax.revision import code_revision
from flan_jax.studies import comparable, records
from flan_jax.studies.commands import Commands
from flan_jax.studies.figures import Figure

TABLE = """
ul.said{padding-left:20px;color:var(--ink)}pre.run{font-size:12.5px}
"""


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a study shows.

    Attributes:
      said: the plain reading, a sentence or two each.
      tables: by heading.
      figures: in order.
      data: the same for programs; shares from 0 to 1.
      files: what is written besides, as JSON, by the file's name.
    """

    said: tuple[str, ...]
    tables: Mapping[str, Table]
    figures: tuple[Figure, ...]
    data: Mapping[str, Any]
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def write(
    folder: AnyPath, name: str, question: str, source: str, commands: Commands, shown: Shown, again: Sequence[str]
) -> dict[str, AnyPath]:
    """Writes a study's tables and figures; returns the paths by suffix.

    Args:
      folder: the study's own.
      name: of the study.
      question: what it asks.
      source: where the paper has it.
      commands: what was run.
      shown: its tables and figures.
      again: the command line that makes all of it.
    """
    make_folder(folder)
    settings = commands.settings
    about = [
        f"Models: {', '.join(settings.models)}. Data: {settings.data}. Seeds: {', '.join(map(str, settings.seeds))}.",
        f"Tuned with {_macros(settings.train)}.",
        _evaluated(commands),
        _code(commands),
    ]
    said = (*shown.said, *comparable.unscored(commands))
    lines = [f"# {_title(name)}", f"{question} ({source})", *(f"- {one}" for one in said)]
    body = [f"<p>{pages.text(question)} ({pages.text(source)})</p>"]
    body.append("<ul class='said'>" + "".join(f"<li>{pages.text(one)}</li>" for one in said) + "</ul>")
    sections = [("answer", "The answer", "".join(body))]
    pictures = [f"{figure.name}.{suffix}" for figure in shown.figures for suffix in ("svg", "png")]
    for written in ("study.md", "study.html", "study.json", *pictures):
        ready(folder / written)  # before all of them: some would be new beside an old page
    paths: dict[str, AnyPath] = {}
    for figure in shown.figures:
        for suffix, content in (("svg", figure.svg()), ("png", figure.png())):
            path = folder / f"{figure.name}.{suffix}"
            with whole_file(path, "wb") as file:
                file.write(content)
            paths[f"{figure.name}.{suffix}"] = path
        lines.append(f"![{figure.alternative}]({figure.name}.png)\n\n{figure.caption}")
        sections.append((figure.name, figure.title, pages.figure(figure.svg(), figure.alternative, figure.caption)))
    for number, (heading, table) in enumerate(shown.tables.items()):
        lines.append(f"## {heading}\n\n{table.markdown()}")
        sections.append((f"table_{number}", heading, _html(table)))
    command = shlex.join(again)
    lines.append("## How it was made\n\n" + "\n".join(f"- {one}" for one in about) + f"\n\n```bash\n{command}\n```")
    made = "".join(f"<li>{pages.text(one)}</li>" for one in about)
    made = f"<ul>{made}</ul><pre class='run'>{html.escape(command)}</pre>"
    sections.append(("made", "How it was made", made))
    contents = {
        "md": "\n\n".join(lines) + "\n",
        "html": pages.document(_title(name), sections, TABLE),
        "json": to_json(
            {"study": name, "question": question, "said": list(said), **shown.data}
            | {"about": _about(commands) | {"code": _revisions(commands)}, "again": list(again)},
            indent=1,
            what="the study",
        )
        + "\n",
    }
    texts: dict[AnyPath, str] = {}
    for file_name, value in shown.files.items():
        paths[file_name] = folder / file_name
        texts[paths[file_name]] = to_json(value, indent=1, what=file_name) + "\n"
    for suffix, text in contents.items():
        paths[suffix] = folder / f"study.{suffix}"
        texts[paths[suffix]] = text
    write_together(texts)
    return paths


def _about(commands: Commands) -> dict[str, Any]:
    settings = dataclasses.asdict(commands.settings)
    return {key: str(value) if key == "folder" else value for key, value in settings.items()}


def _revisions(commands: Commands) -> dict[str, Any]:
    """{"page": the code's revision that writes the page, "steps": how many steps each has taken; "" where unknown}."""
    found = collections.Counter(records.code_of(commands.settings.folder, step) or "" for step in commands.steps)
    return {"page": code_revision(), "steps": dict(sorted(found.items(), key=lambda one: (not one[0], -one[1])))}


def _code(commands: Commands) -> str:
    """By which code the steps were taken and the page was written, and when."""
    revisions, when = _revisions(commands), f"written {time.strftime('%Y-%m-%d %H:%M')}."
    steps = revisions["steps"]
    if steps.keys() <= {revisions["page"]}:
        return f"Code {revisions['page']}, {when}"
    each = ", ".join(f"{code or 'a code of which there is no record'} ({count})" for code, count in steps.items())
    return f"Code of the steps: {each}; of this page: {revisions['page']}, {when}"


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _evaluated(commands: Commands) -> str:
    """How the arms of a study were evaluated."""
    if not commands.arms:
        return "No test example was evaluated."
    macros = commands.settings.evaluate
    return f"Evaluated with {_macros(macros)}." if macros else "Evaluated on all test examples."


def _macros(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items()) or "the defaults"


def _html(table: Table) -> str:
    head = "".join(
        f"<th class='{'name' if not i else ''}'>{pages.text(one)}</th>" for i, one in enumerate(table.flat_head)
    )
    rows = []
    for number, row in enumerate(table.rows):
        cells = "".join(f"<td class='{'name' if not i else ''}'>{pages.text(one)}</td>" for i, one in enumerate(row))
        rows.append(f"<tr{' class=mean' if number in table.means else ''}>{cells}</tr>")
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
