"""Commands on the pages: each is read by its own program, and is run by a test or excused here with a reason."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from flan_jax import configuration, options, own_tasks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)}

# What a line of a page starts besides our programs, and why no test does, or which one does.
OTHERS = {
    "pip": "installs what the tests run with",
    "python3.11": "makes the environment that the tests run in",
    "xmanager/bin/pip": "tests/launch/run_xmanager.sh",
    "kubectl": "needs a cluster",
    "gcloud": "needs an account",
    "python benchmarks/": "tests/test_benchmarks.py",
    "python -m sphinx": "tests/test_site.py",
    "python -c": "one line of Python that prints JAX's devices",
    "python -": "the page's own records: test_the_dataset_of_the_guide",
    "pytest": "is what runs here",
    "echo": "tests/data/test_own_lines.py and tests/test_eval.py have such lines",
    "export": "a variable of the compiler, which the compiler reads",
    "--gin.": "a part of a command line; tests/test_macros.py holds every macro and value",
}
# Options that a page gives and no test does.
EXCUSED = {
    (
        "precompile",
        "--remat",
    ): "a whole compilation by the TPU's compiler; with --model=tiny in tests/test_precompile.py",
    ("precompile", "--sweep"): "compiles every mesh; tests/compilation has its parts",
    ("convert", "--dtype"): "tests/formats/test_huggingface.py writes bfloat16 by the function behind it",
}
# Datasets that the pages make, for which a catalog's stands in where nothing is prepared.
OWN = re.compile(r"'(larger|sums|primes|my_spam)'")


class _Read(BaseException):
    """Ends a program where it has read its command line."""


def _lines(page):
    """Command lines of a page's blocks, without what a shell feeds into one."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        block = re.sub(r"(<<'(\w+)')\n.*?\n\2\n", r"\1\n", block, flags=re.DOTALL)
        yield from (
            line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()[:1] not in ("", "#")
        )


def _ours(line):
    """(program, its arguments) of all programs of ours in a line, those after `--` too."""
    for part in re.split(r"\s(?:&&|\|)\s", line):
        words = shlex.split(part, comments=True)
        if words[:1] == ["flan-jax"] and len(words) > 1:  # flan-jax train is python -m flan_jax.train
            words[:2] = ["-m", f"flan_jax.{words[1]}"]
        while "-m" in words:
            at = words.index("-m")
            if words[at + 1].startswith("flan_jax."):
                yield words[at + 1].removeprefix("flan_jax."), words[at + 2 :]
            words = words[at + 2 :]


@pytest.fixture
def read(monkeypatch):
    """Lets a program read a command line, and no more; a run file and its values are checked too."""
    parse = options.Parser.parse_args

    def reading(parser, *arguments):
        parse(parser, *arguments)
        raise _Read

    monkeypatch.setattr(options.Parser, "parse_args", reading)
    monkeypatch.setattr(own_tasks, "use", lambda names: [names])

    def reads(program, arguments):
        with pytest.raises(_Read):
            importlib.import_module(f"flan_jax.{program}").main(arguments)
        if program in ("train", "eval") and "--items" not in " ".join(arguments):
            from flan_jax.training import configurables  # noqa: F401 - what a run file configures

            files, bindings, _ = configuration.split_arguments(arguments)
            configuration.parse(files, [OWN.sub("'rte'", binding) for binding in bindings])

    return reads


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_programs_read_them(page, read, capsys):
    for line in _lines(page):
        for program, arguments in _ours(line):
            if any("..." in word for word in arguments) or program == "lm_eval":  # abridged; the harness's own
                continue
            try:
                read(program, arguments)
            except SystemExit:
                pytest.fail(f"{page.name}: {line}\n{capsys.readouterr().err}")


def test_all_are_run_or_excused():
    unknown, used = [], set()
    for page in PAGES:
        for line in _lines(page):
            programs = list(_ours(line))
            bare = re.sub(r"^(\w+=\S+\s+)+", "", line)
            if not programs and not bare.startswith(tuple(OTHERS)):
                unknown.append(f"{page.name}: {line}")
            for program, words in programs:
                own = words[: words.index("--")] if "--" in words else words
                used |= {(program, word.partition("=")[0]) for word in own if word.startswith("--")}
    assert not unknown
    for program, option in sorted(used):
        name = program.rpartition(".")[2]
        given = option.removeprefix("--gin.")
        run = any(re.search(rf"\b{name}\b", text) and given in text for text in TESTS.values())
        assert run or (program, option) in EXCUSED, f"no test gives {option} to {program}"
        assert not (run and (program, option) in EXCUSED), f"{option} of {program} is run; take it out of EXCUSED"


def test_the_dataset_of_the_guide(tmp_path, monkeypatch, capsys):
    """Its records, its prepare and its looks, word for word; test_own_data.py trains and scores such datasets."""
    page = (ROOT / "docs" / "guides" / "own_dataset.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"python - > larger\.jsonl <<'END'\n(.*?)END\n", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(
        program.replace("import json, random", "import json, random; lines = []").replace("print(", "lines.append("),
        made := {},
    )
    Path("larger.jsonl").write_text("\n".join(made["lines"]) + "\n", encoding="utf-8")
    vocabularies = set()
    for line in _lines(ROOT / "docs" / "guides" / "own_dataset.md"):
        for name, arguments in _ours(line):
            if name in ("prepare", "browse"):
                vocabularies |= {word for word in arguments if word.startswith("--vocabulary")} or {"bytes"}
                words = [w for w in arguments if not w.startswith("--vocabulary")]  # tokens are bytes then
                importlib.import_module(f"flan_jax.{name}").main(words)
    assert vocabularies == {"--vocabulary=models/gemma3-270m/vocabulary"}  # what one prepares, the others read
    said = capsys.readouterr().out
    assert "320" in said and "Which number is larger" in said and "segment" in said


LINES = [
    ("train", ["--gin.TRAIN_STEP=3"], "unknown macro 'TRAIN_STEP'"),
    ("train", ["--gin.MODEL_DIR=runs/x"], "the value is no Python literal"),
    ("prepare", ["--vocab=models/tiny/vocabulary", "--to=prepared"], "unrecognized arguments"),
    ("prepare", ["--jsonl=bad.jsonl", "--to=prepared"], "bad.jsonl line 2"),
    ("eval", ["--gin.DATASETS=('nil',)"], "unknown dataset or cluster 'nil'"),
    ("infer", ["--checkpoint=runs/absent", "--prompt=x"], "no checkpoint at runs/absent"),
]


@pytest.mark.parametrize("program, arguments, part", LINES, ids=lambda value: value if isinstance(value, str) else "")
def test_errors_of_the_page_are_real(program, arguments, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text('{"prompt": "a", "target": "b"}\n{"prompt": "a"}\n')
    files = {"train": ["--gin_file=runs/tune.gin"], "eval": ["--gin_file=runs/eval.gin"]}.get(program, [])
    needed = ["--gin.CHECKPOINT_PATH='x'", "--gin.EVAL_OUTPUT_DIR='x'", "--gin.PREPARED_DIR='prepared'"] * (
        program == "eval"
    )
    with pytest.raises(SystemExit):
        importlib.import_module(f"flan_jax.{program}").main([*files, *needed, *arguments])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert part in said
    assert said in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
