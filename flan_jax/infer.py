r"""Answers prompts: from the command line, a JSONL file, standard input, or interactively.

python -m flan_jax.infer --checkpoint=FOLDER --prompt="Is the sky blue?" --stop='\n'
python -m flan_jax.infer --checkpoint=FOLDER --input=PROMPTS.jsonl --output=ANSWERS.jsonl --beams=4
python -m flan_jax.infer --checkpoint=FOLDER < PROMPTS.jsonl > ANSWERS.jsonl
python -m flan_jax.infer --checkpoint=FOLDER --chat

An input line is {"id", "prompt"}. An output line is {"id", "text", "finish", "tokens"}; finish is "eos", "stop" or
"length".

--chat uses the model's own chat template. A prompt is then the user's turn. A line can hold {"id", "messages"}
instead, with "tools", "documents" and "chat_template_kwargs" (for example {"enable_thinking": false}). An interactive
session remembers its turns.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flan_jax import options, protocol
from flan_jax.data.chat import Conversation, Message
from flan_jax.errors import FlanError, NotFiniteError, PromptError, one_line_errors
from flan_jax.files import ready, user_path, write_atomic
from flan_jax.lazy import lazy_imports
from flan_jax.values import Number, Whole

with lazy_imports():  # so that a wrong command line is reported at once
    from flan_jax import partitioning
    from flan_jax.checkpoint import arrays
    from flan_jax.decoding import beam, completion, generator, prompt_files, sampling

Answer = Callable[[Sequence[str | Conversation]], "list[completion.Completion]"]  # --chat: conversations


def load(arguments: argparse.Namespace) -> Answer:
    """Loads the model and returns a function that answers prompts as the arguments say.

    Raises:
      FlanError: arguments that exclude each other, or no checkpoint.
    """
    if arguments.beams > 1 and (arguments.temperature or arguments.top_k or arguments.top_p < 1):
        raise FlanError("--beams searches the likeliest answer: leave --temperature, --top_k and --top_p out.")
    if not arguments.temperature and (arguments.top_k or arguments.top_p < 1):
        raise FlanError("--top_k and --top_p are for drawing tokens: give --temperature=1 too.")
    choose: sampling.Sampling | beam.Beams = sampling.Sampling(
        arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed
    )
    if arguments.beams > 1:
        choose = beam.Beams(arguments.beams)
    if arguments.chat is not None and arguments.joint != protocol.AUTO:
        raise FlanError("--chat writes what stands around a prompt: leave --joint out.")
    protocol.joint(None, False, arguments.joint)  # before the model is read, so that a wrong name is found at once
    stops = [stop.replace("\\n", "\n").replace("\\t", "\t") for stop in arguments.stop]
    mesh = partitioning.make_mesh(**options.mesh_sizes(arguments.mesh))
    network, params, tokenizer, manifest = arrays.load_model(
        arguments.checkpoint, arguments.step, mesh, which=arguments.which
    )
    engine = generator.Generator(network, params, tokenizer.stop_ids, mesh=mesh)
    joint = protocol.joint(manifest.separator, engine.has_encoder, arguments.joint)
    settings: dict[str, Any] = {"max_new_tokens": arguments.max_new_tokens, "choose": choose, "stops": stops}

    def answer(texts: Sequence[Any]) -> list[completion.Completion]:
        if arguments.chat is None:
            return completion.complete(engine, tokenizer, texts, joint=joint, **settings)
        ids = completion.chat_tokens(tokenizer, texts, arguments.chat or None, encoder=engine.has_encoder)
        return completion.complete_tokens(engine, tokenizer, ids, **settings)

    if arguments.chat is not None:
        if tokenizer.chat is None:
            raise FlanError(
                f"{arguments.checkpoint} has no chat template: leave --chat out, or import the model again."
            )
        tokenizer.chat.template(arguments.chat or None)  # so that a wrong name is found at once
    return answer


def user_turn(text: str) -> list[Message]:
    """A conversation of one message by the user."""
    return [{"role": "user", "content": text}]


def converse(answer: Answer, chat: bool = False) -> None:
    """Asks for prompts and answers them until the input ends.

    Args:
      answer: see `load`.
      chat: whether earlier turns are part of the next prompt.
    """
    print("One prompt a line; /new starts anew; end with Ctrl-D." if chat else "One prompt a line; end with Ctrl-D.")
    turns: list[Message] = []
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # typed or pasted text may not be UTF-8
    while True:
        try:
            text = input("> ")
        except EOFError:
            print()
            return
        if not text.strip():
            continue
        try:
            if not chat:
                print(answer([text])[0].text)
            elif text.strip() == "/new":
                turns = []
            else:
                asked = [*turns, *user_turn(text)]
                try:
                    said = answer([Conversation(asked)])[0].text
                except NotFiniteError:
                    raise
                except FlanError as error:  # mostly a prompt that is too long; the conversation so far stays
                    print(f"{error} (/new starts anew)")
                    continue
                turns = [*asked, {"role": "assistant", "content": said}]
                print(said)
        except NotFiniteError as error:
            raise FlanError(f"prompt {text[:40]!r}: {error}") from error


def run(arguments: argparse.Namespace) -> None:
    """Answers the prompts that the arguments name.

    Raises:
      FlanError: bad input, found before the model answers.
    """
    if arguments.prompt and arguments.input:
        raise FlanError("give --prompt or --input, not both.")
    if arguments.output:
        ready(user_path(arguments.output, "--output"), [arguments.input] if arguments.input else [])
    if not (arguments.prompt or arguments.input) and sys.stdin is None:
        raise FlanError("there is no standard input: give --prompt or --input.")
    if not (arguments.prompt or arguments.input) and sys.stdin.isatty():
        converse(load(arguments), chat=arguments.chat is not None)
        return
    if arguments.prompt:
        questions = [prompt_files.Question(number, text) for number, text in enumerate(arguments.prompt)]
    elif arguments.input:
        questions = prompt_files.read(arguments.input, talks=arguments.chat is not None)
    else:
        # A notebook's standard input has no bytes.
        given = getattr(sys.stdin, "buffer", None) or (line.encode("utf-8", "replace") for line in sys.stdin)
        questions = prompt_files.parse(given, "standard input", talks=arguments.chat is not None)
    if arguments.chat is None:
        if talk := next((question for question in questions if question.messages), None):
            raise FlanError(f"the line with the id {talk.id!r} holds messages: add --chat.")
        asked: list[str | Conversation] = [question.prompt for question in questions]
    else:
        asked = [Conversation(one.messages or user_turn(one.prompt), one.settings) for one in questions]
    try:
        completions = load(arguments)(asked)
    except PromptError as error:
        question = questions[error.number]
        where = f"the prompt with the id {question.id!r}" if not arguments.prompt else f"prompt {question.id}"
        raise FlanError(f"{where} {error.problem}") from error
    except NotFiniteError as error:
        question = questions[error.number]
        shown = f" ({question.prompt[:40]!r})" if question.prompt else ""
        raise FlanError(f"prompt {question.id!r}{shown}: {error}") from error
    lines = prompt_files.answers(questions, completions)
    if arguments.output:
        write_atomic(user_path(arguments.output, "--output"), "".join(line + "\n" for line in lines))
    else:
        print("\n".join([one.text for one in completions] if arguments.prompt else lines))


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and answers."""
    parser = options.Parser(
        prog="python -m flan_jax.infer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, type=options.path, help="checkpoint folder")
    parser.add_argument("--step", type=options.count_or_none, help="step of the checkpoint; by default the last")
    options.add_parameters(parser)
    parser.add_argument("--prompt", action="append", default=[], help="a prompt; may be given several times")
    parser.add_argument(
        "--input", type=options.path, help='JSONL file of {"id", "prompt"}; with --chat, also of {"id", "messages"}'
    )
    parser.add_argument(
        "--chat",
        nargs="?",
        const="",
        metavar="TEMPLATE",
        help="use the model's chat template, or the one with this name",
    )
    parser.add_argument(
        "--output", type=options.path, help="JSONL file of answers to write; by default standard output"
    )
    parser.add_argument(
        "--max_new_tokens", type=options.of(Whole(1, 2**20)), default=64, help="most tokens of an answer"
    )
    parser.add_argument(
        "--temperature",
        type=options.of(Number(least=0, most=1000)),
        default=0.0,
        help="0 (the default) takes the likeliest token; above 0, tokens are drawn",
    )
    parser.add_argument(
        "--top_k", type=options.count_or_none, default=0, help="draw from the k likeliest tokens; 0 for all"
    )
    parser.add_argument(
        "--top_p",
        type=options.of(Number(above=0, most=1)),
        default=1.0,
        help="draw from the likeliest tokens that together have this probability",
    )
    parser.add_argument("--seed", type=options.seed, default=0, help="seed of the draws")
    parser.add_argument("--beams", type=options.of(Whole(1, 1024)), default=1, help="beam search with so many beams")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        help=r"end an answer before this text (\n, \t); may be given several times",
    )
    parser.add_argument(
        "--joint", default=protocol.AUTO, help=f"between prompt and answer: {', '.join(protocol.JOINTS)}"
    )
    parser.add_argument("--mesh", default="", help="sizes of the mesh, for example data=2,tensor=4")
    with one_line_errors():
        run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
