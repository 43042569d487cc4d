"""Answers prompts: of the command line, a JSONL file or standard input; or one after another, interactively.

python -m flan_jax.infer --checkpoint=FOLDER --prompt="Is the sky blue?" --stop='\\n'
python -m flan_jax.infer --checkpoint=FOLDER --input=PROMPTS.jsonl --output=ANSWERS.jsonl --beams=4
python -m flan_jax.infer --checkpoint=FOLDER < PROMPTS.jsonl > ANSWERS.jsonl
python -m flan_jax.infer --checkpoint=FOLDER

Lines in are {"id", "prompt"}; lines out {"id", "text", "finish", "tokens"}, finish being "eos", "stop" or "length".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flan_jax import partitioning
from flan_jax.checkpoint import arrays
from flan_jax.decoding import prompt_files
from flan_jax.decoding.beam import Beams
from flan_jax.decoding.completion import Completion, complete
from flan_jax.decoding.generator import Generator
from flan_jax.decoding.prompt_files import Question
from flan_jax.decoding.sampling import Sampling
from flan_jax.errors import FlanError, NotFiniteError, one_line_errors
from flan_jax.evaluation import prompts
from flan_jax.files import write_atomic

Answer = Callable[[Sequence[str]], list[Completion]]


def parse_mesh(text: str) -> dict[str, int]:
    """Sizes of mesh axes, as "data=2,tensor=4"; empty for the default.

    Raises:
      FlanError: it is none.
    """
    sizes = {}
    for part in filter(None, text.split(",")):
        name, _, size = part.partition("=")
        if name not in partitioning.MESH_AXES or not size.lstrip("-").isdigit():
            raise FlanError(f"--mesh={text}: write for example --mesh=data=2,tensor=4.")
        sizes[name] = int(size)
    return sizes


def load(arguments: argparse.Namespace) -> Answer:
    """A function that answers prompts as the arguments say.

    Raises:
      FlanError: arguments that exclude each other, or no checkpoint.
    """
    if arguments.beams > 1 and (arguments.temperature or arguments.top_k or arguments.top_p < 1):
        raise FlanError("--beams searches the likeliest answer: leave --temperature, --top_k and --top_p out.")
    if not arguments.temperature and (arguments.top_k or arguments.top_p < 1):
        raise FlanError("--top_k and --top_p are for drawing tokens: give --temperature=1 too.")
    choose: Sampling | Beams = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)
    if arguments.beams > 1:
        choose = Beams(arguments.beams)
    stops = [stop.replace("\\n", "\n").replace("\\t", "\t") for stop in arguments.stop]
    mesh = partitioning.make_mesh(**parse_mesh(arguments.mesh))
    network, params, tokenizer, manifest = arrays.load_model(arguments.checkpoint, arguments.step, mesh)
    separator = prompts.resolve_separator(arguments.separator, manifest.separator)
    generator = Generator(network, params, tokenizer.eos_id, mesh=mesh)

    def answer(texts: Sequence[str]) -> list[Completion]:
        settings = {"separator": separator, "max_new_tokens": arguments.max_new_tokens}
        return complete(generator, tokenizer, texts, choose=choose, stops=stops, **settings)

    return answer


def converse(answer: Answer) -> None:
    """Asks for prompts until the input ends."""
    print("One prompt a line; end with Ctrl-D.")
    while True:
        try:
            text = input("> ")
        except EOFError:
            print()
            return
        if text.strip():
            try:
                print(answer([text])[0].text)
            except NotFiniteError as error:
                raise FlanError(f"prompt {text[:40]!r}: {error}") from error


def run(arguments: argparse.Namespace) -> None:
    """Answers what the arguments ask.

    Raises:
      FlanError: bad input, found before the model answers.
    """
    if arguments.prompt and arguments.input:
        raise FlanError("give --prompt or --input, not both.")
    if arguments.output and Path(arguments.output).is_dir():
        raise FlanError(f"cannot write answers to {arguments.output}: it is a folder; give a file name.")
    if not (arguments.prompt or arguments.input) and sys.stdin.isatty():
        converse(load(arguments))
        return
    if arguments.prompt:
        questions = [Question(number, text) for number, text in enumerate(arguments.prompt)]
    elif arguments.input:
        questions = prompt_files.read(arguments.input)
    else:
        questions = prompt_files.parse(sys.stdin.buffer, "standard input")
    try:
        completions = load(arguments)([question.prompt for question in questions])
    except NotFiniteError as error:
        question = questions[error.number]
        raise FlanError(f"prompt {question.id!r} ({question.prompt[:40]!r}): {error}") from error
    lines = prompt_files.answers(questions, completions)
    if arguments.output:
        try:
            write_atomic(Path(arguments.output), "".join(line + "\n" for line in lines))
        except OSError as error:
            raise FlanError(f"cannot write answers to {arguments.output}: {error.strerror}.") from error
    else:
        print("\n".join([completion.text for completion in completions] if arguments.prompt else lines))


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flan_jax.infer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder")
    parser.add_argument("--step", type=int, help="its step; the last by default")
    parser.add_argument("--prompt", action="append", default=[], help="a prompt; can be given several times")
    parser.add_argument("--input", help='JSONL of {"id", "prompt"}')
    parser.add_argument("--output", help="JSONL of answers to write; standard output by default")
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (default)")
    parser.add_argument("--top_k", type=int, default=0, help="draw from the k likeliest tokens; 0 for all")
    parser.add_argument("--top_p", type=float, default=1.0, help="draw from the likeliest tokens of this probability")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--beams", type=int, default=1, help="beam search with so many beams")
    parser.add_argument("--stop", action="append", default=[], help=r"end before this text, \n and \t as such; several")
    parser.add_argument("--separator", default=prompts.AUTO, help=f"after a prompt: {', '.join(prompts.SEPARATORS)}")
    parser.add_argument("--mesh", default="", help="sizes of the mesh, for example data=2,tensor=4")
    with one_line_errors():
        run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
