"""Shows what the catalog holds and how training runs went.

python -m flan_jax.browse                                  clusters, datasets and mixtures
python -m flan_jax.browse --dataset=rte --count=3          rendered examples
python -m flan_jax.browse --dataset=my_chat --prepared=prepared   examples as they were prepared, your own data too
python -m flan_jax.browse --templates=rte                  the ten templates on one record
python -m flan_jax.browse --mixture=flan_without_nli       what a mixture consists of
python -m flan_jax.browse --row=0                          a packed row and its segments
python -m flan_jax.browse --html=templates.html            a page with all templates, with search
python -m flan_jax.browse --summary                        counts
python -m flan_jax.browse --lint | --lint=rte              what the linter finds; in one dataset
python -m flan_jax.browse --template_report=EVAL_OUTPUT_DIR   how a model did with each template
python -m flan_jax.browse --macros | --macros=LORA         what run files can set; one macro or function
python -m flan_jax.browse --run MODEL_DIR [MODEL_DIR ...]   the course of training runs; with --html=FILE as a page
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from flan_jax import catalog, macros, options, output, own_data, styles
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import ready, user_path, write_atomic
from flan_jax.json_lines import to_json
from flan_jax.lazy import lazy_imports
from flan_jax.quiet import quiet_loggers
from flan_jax.wording import counted

with lazy_imports():  # so that a wrong command line is reported at once
    from flan_jax import inspection
    from flan_jax.data import vocabularies
    from flan_jax.inspection import examples, rows, settings, tables
    from flan_jax.inspection import page as pages
    from flan_jax.reporting import by_template
    from flan_jax.reporting import runs as finished
    from flan_jax.reporting.curves import figures, reading, terminal
    from flan_jax.reporting.curves import page as curves


def _print_catalog(console: Console) -> dict[str, Any]:
    console.print(tables.catalog_table(), tables.mixtures_table())
    console.print("go on with --dataset=NAME, --templates=NAME, --mixture=NAME, --row=N, --html=FILE or --summary")
    return {
        "clusters": {c.name: [d.name for d in catalog.datasets(c.name)] for c in catalog.clusters()},
        "mixtures": {name: [d.name for d in catalog.mixture(name)] for name in catalog.mixture_names()},
    }


def _print_summary(console: Console) -> dict[str, Any]:
    found = examples.summary()
    console.print(tables.summary_table(found))
    totals = found["totals"]
    console.print(
        f"{totals['datasets']} datasets, {totals['clusters']} clusters, {totals['variants']} variants and "
        f"{totals['extras']} extras, {totals['templates']} templates: {totals['forward']} forward, "
        f"{totals['inverted']} inverted"
    )
    return found


def _print_findings(console: Console, arguments: argparse.Namespace) -> dict[str, Any]:
    names = [] if arguments.lint == _ALL else [arguments.lint]
    found = examples.lint(names)
    for line in found:
        console.print(line, soft_wrap=True)
    many = counted(len(found), "findings") if found else "no findings"
    where = arguments.lint if names else counted(len(catalog.datasets()), "datasets")
    console.print(f"{many} in the templates of {where}", soft_wrap=True)
    wording = examples.lint_wording(names)
    for line in wording:
        console.print(f"wording, to look at: {line}", soft_wrap=True)
    return {"findings": found, "wording": wording}


def _print_examples(console: Console, arguments: argparse.Namespace) -> dict[str, Any]:
    name = arguments.dataset + (f"_{arguments.style}" if arguments.style else "")
    asked = {name: getattr(arguments, name) for name in ("split", "count", "template")}
    asked["tokenizer"] = vocabularies.load(arguments.vocabulary)
    if arguments.prepared:
        shown = examples.prepared_examples(name, arguments.prepared, **asked)
        console.print(tables.examples_panels(shown))
        return {"examples": [s.to_dict() for s in shown], "left_out": []}
    shown = examples.examples(name, data=arguments.data, **asked)
    return _print_shown(console, shown, name, arguments.data)


def _print_templates(console: Console, arguments: argparse.Namespace) -> dict[str, Any]:
    name = arguments.templates + (f"_{arguments.style}" if arguments.style else "")
    if arguments.prepared:
        shown = examples.prepared_templates(name, arguments.prepared, split=arguments.split)
        console.print(tables.examples_panels(shown))
        return {"examples": [s.to_dict() for s in shown], "left_out": []}
    shown = examples.all_templates(name, split=arguments.split, data=arguments.data)
    return _print_shown(console, shown, name, arguments.data)


def _print_shown(console: Console, shown: Sequence[examples.Shown], name: str, data: str) -> dict[str, Any]:
    console.print(tables.examples_panels(shown))
    unused = examples.left_out(name, data)
    for line in unused:
        console.print(f"left out: {line}", highlight=False, soft_wrap=True)
    return {"examples": [s.to_dict() for s in shown], "left_out": unused}


def _print_mixture(console: Console, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.prepared:
        prepared = rows.open_prepared(arguments.mixture, arguments.prepared, arguments.vocabulary)
        found = prepared.composition
        if arguments.steps:
            found = found.over(arguments.steps * prepared.stream.draws_per_step)
    else:
        if arguments.steps:
            raise FlanError("--steps needs --prepared=FOLDER: how many examples a row holds depends on their tokens.")
        found = inspection.composition(arguments.mixture, arguments.data)
    console.print(found.table())
    return found.to_dict()


def _print_row(console: Console, arguments: argparse.Namespace) -> dict[str, Any]:
    folder, vocabulary = arguments.prepared, arguments.vocabulary
    if not folder:
        if vocabulary != "bytes":
            raise FlanError("--row with --vocabulary needs --prepared=FOLDER; without it, the samples are bytes.")
        console.print(f"preparing the bundled samples of {arguments.mixture} with the byte vocabulary")
        folder = rows.prepared_samples(arguments.mixture)
    row = rows.open_prepared(arguments.mixture, folder, vocabulary).row(arguments.row)
    console.print(tables.row_panel(row))
    return row.to_dict()


def _print_runs(console: Console, arguments: argparse.Namespace) -> dict[str, Any]:
    courses = reading.load(arguments.run)
    terminal.show(console, courses)
    found: dict[str, Any] = {"runs": [figures.to_dict(course) for course in courses]}
    if arguments.html:
        found |= _write_page(console, arguments.html, curves.page(courses))
    return found


def _print_template_report(console: Console, arguments: argparse.Namespace) -> dict[str, Any]:
    folder = user_path(arguments.template_report, "--template_report")
    below = [] if (folder / "results.json").exists() else sorted(str(p.parent) for p in folder.rglob("results.json"))
    if below:
        raise FlanError(f"{folder} holds several evaluations: give one of {', '.join(below[:3])}.")
    tokenizer = vocabularies.load(arguments.vocabulary)
    run = finished.load_run(folder.name, folder)
    judged, unusable = by_template.judge(run, lambda texts: [len(ids) for ids in tokenizer.encode(texts)])
    console.print(by_template.table(judged, "bytes" if arguments.vocabulary == "bytes" else "tokens").rich())
    for name, reason in unusable.items():
        console.print(f"{name} is left out: {reason}", highlight=False, soft_wrap=True)
    outliers = [one for one in judged if one.is_outlier]
    for one in outliers:
        console.print(f"outlier: {one.said_of_outlier()}: {one.wording!r}", highlight=False, soft_wrap=True)
    many = counted(len(outliers), "outliers") if outliers else "no outliers"
    console.print(f"{many} among {counted(len(judged), 'templates')} of {run.results['checkpoint']}", highlight=False)
    return {
        "checkpoint": run.results["checkpoint"],
        "templates": [one.to_dict() for one in judged],
        "outliers": [[one.dataset, one.template] for one in outliers],
        "unusable": unusable,
    }


def configuration() -> settings.Reference:
    """All macros and functions that a run file can set."""
    import gin

    for module in (
        "flan_jax.training.configurables",
        "flan_jax.eval",
        "flan_jax.studies.settings",
    ):  # importing them makes their functions known to gin
        importlib.import_module(module)
    functions = {}
    for name in macros.FUNCTIONS:
        with contextlib.suppress(ValueError):  # some macros are read by a program itself, not by gin
            functions[name] = gin.get_configurable(name)
    return settings.reference(functions)


def _print_macros(console: Console, arguments: argparse.Namespace) -> dict[str, Any]:
    found = configuration()
    if arguments.macros:
        one = found.named(arguments.macros)
        console.print(tables.setting_panel(one))
        return dataclasses.asdict(one)
    for file, members in found.files.items():
        console.print(tables.macros_table(file, members))
    if arguments.markdown:
        file = user_path(arguments.markdown, "--markdown")
        write_atomic(file, settings.page(found))
        console.print(f"{file}: written", soft_wrap=True)
    return found.to_dict()


_ALL = "all"  # of --lint: no dataset has this name

# What can be asked for, the most specific first, and which other options then have an effect.
_COUNT_FOR = {
    "run": ("html",),
    "html": (),
    "summary": (),
    "macros": ("markdown",),
    "lint": (),
    "dataset": ("style", "split", "count", "template", "data", "vocabulary", "prepared"),
    "templates": ("style", "split", "data", "prepared"),
    "template_report": ("vocabulary",),
    "row": ("mixture", "vocabulary", "prepared"),
    "mixture": ("data", "vocabulary", "prepared", "steps"),
}


def _write_page(console: Console, name: str, text: str) -> dict[str, Any]:
    file = user_path(name, "--html")
    write_atomic(file, text)
    console.print(f"{file}: {len(text.encode()) / 1e6:.1f} MB, open it in a browser", soft_wrap=True)
    return {"page": str(file), "bytes": len(text.encode())}


def _refuse_without_effect(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses options that have no effect on what is asked for, and empty names.

    Raises:
      FlanError: for the first such option.
    """
    for name in ("dataset", "templates", "mixture", "lint"):
        if getattr(arguments, name) == "":
            raise FlanError(f"--{name} is empty: give a name, or leave it out.")
    given = {name for name, value in vars(arguments).items() if value != parser.get_default(name)} - {"json", "tasks"}
    mode = next((mode for mode in _COUNT_FOR if mode in given), "")
    about = f"with --{mode}" if mode else "without what it is about, as --dataset or --mixture"
    if mode == "html":
        about = "with --html, which writes a page with all templates, or with the runs of --run"
    if mode == "run":
        about = "with --run, which shows a run as its MODEL_DIR has it"
    if wrong := sorted(given - {mode} - set(_COUNT_FOR.get(mode, ()))):
        raise FlanError(f"--{wrong[0]} does not count {about}: leave --{wrong[0]} out.")
    if arguments.prepared and "data" in given:
        raise FlanError("--prepared has records of its own: leave --data out.")
    if arguments.style:
        styles.parse(arguments.style)
    for name in (arguments.dataset, arguments.templates, arguments.lint):
        if name in {cluster.name for cluster in catalog.clusters()}:
            own = [one.name for one in catalog.datasets(name)]
            raise FlanError(f"{name!r} is a cluster: give one of its datasets: {', '.join(own)}.")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and prints what it asks for."""
    parser = options.Parser(
        prog="python -m flan_jax.browse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--summary", action="store_true", help="one line for each variant, and totals")
    what.add_argument(
        "--lint",
        nargs="?",
        const=_ALL,
        metavar="DATASET",
        help="what the linter finds, in all datasets or one, and wordings to look at; exits with 1 if it finds any",
    )
    what.add_argument("--dataset", help="show rendered examples of a dataset")
    what.add_argument("--templates", help="show one record through each template of a dataset")
    what.add_argument("--row", type=options.count_or_none, help="show the packed row with this number, of --mixture")
    what.add_argument(
        "--template_report",
        type=options.path,
        metavar="EVAL_OUTPUT_DIR",
        help="show how a model did with each template of an evaluation; --vocabulary counts tokens",
    )
    what.add_argument(
        "--run",
        nargs="+",
        action="extend",  # adds up when the option is repeated before each folder
        type=options.path,
        metavar="MODEL_DIR",
        help="show the course of one or several training runs",
    )
    what.add_argument(
        "--macros",
        nargs="?",
        const="",
        metavar="NAME",
        help="show all that run files can set, or one macro or function",
    )
    parser.add_argument("--markdown", type=options.path, metavar="FILE", help="write all macros as a Markdown page")
    parser.add_argument("--html", type=options.path, help="write a page with all templates, or with the runs of --run")
    parser.add_argument("--mixture", help="show a mixture's composition; with --row, the mixture of the row")
    parser.add_argument("--style", default="", help="how records become text, for example no_template or 3_shots")
    parser.add_argument("--split", default="train", choices=("train", "validation", "test"))
    parser.add_argument("--count", type=options.count, default=3, help="number of records")
    parser.add_argument(
        "--template", type=options.count_or_none, help="number of a template; by default what training shows first"
    )
    parser.add_argument("--data", default="samples", type=options.data, help="samples, tfds, or a folder of data")
    parser.add_argument(
        "--vocabulary", default="bytes", type=options.vocabulary, help="counts tokens; with --prepared, its vocabulary"
    )
    parser.add_argument("--prepared", type=options.path, help="PREPARED_DIR to read examples and tokens from")
    parser.add_argument(
        "--steps", type=options.count, help="show expected draws and epochs for so many steps of 8 rows"
    )
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    quiet_loggers()
    with one_line_errors(only_shows=True):
        console = Console(width=output.width(200), markup=False, emoji=False)
        arguments = parser.parse_args(argv)
        if not own_data.used_of(arguments.prepared):
            own_data.leave()
        if arguments.markdown and arguments.macros != "":
            raise FlanError("--markdown writes the page of all macros: give --macros with it, without a name.")
        _refuse_without_effect(parser, arguments)
        if arguments.prepared and not user_path(arguments.prepared, "--prepared").is_dir():
            raise FlanError(f"no folder {arguments.prepared}: --prepared is what python -m flan_jax.prepare wrote.")
        if arguments.markdown:
            ready(user_path(arguments.markdown, "--markdown"))
        if arguments.html:
            ready(user_path(arguments.html, "--html"))
        if arguments.summary:
            result = _print_summary(console)
        elif arguments.macros is not None:
            result = _print_macros(console, arguments)
        elif arguments.lint is not None:
            result = _print_findings(console, arguments)
        elif arguments.dataset:
            result = _print_examples(console, arguments)
        elif arguments.templates:
            result = _print_templates(console, arguments)
        elif arguments.row is not None:
            arguments.mixture = arguments.mixture or "flan_without_nli"
            result = _print_row(console, arguments)
        elif arguments.template_report:
            result = _print_template_report(console, arguments)
        elif arguments.run:
            result = _print_runs(console, arguments)
        elif arguments.html:
            result = _write_page(console, arguments.html, pages.page())
        elif arguments.mixture:
            result = _print_mixture(console, arguments)
        else:
            result = _print_catalog(console)
        if arguments.json:
            print(to_json(result))
    if arguments.lint is not None and result["findings"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
