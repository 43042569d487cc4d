import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys

import jax
import pytest

from flan_jax import configuration, infer, models
from flan_jax.checkpoint import saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.chat import Chat
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.decoding import completion
from flan_jax.decoding.beam import Beams
from flan_jax.decoding.generator import Generator

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
)
TOKENIZER = ByteTokenizer()
PROMPTS = ["Is grass green?", "And\u2028the sky?", "grün"]
FEW = "--max_new_tokens=6"


@pytest.fixture(scope="module")
def network():
    model = models.build(CONFIG)
    params = jax.jit(model.init)(jax.random.key(0))
    return model, jax.tree.map(lambda x: x * 3 if x.ndim > 2 else x, params)


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    with saving.Saver(folder) as saver:
        saver.save(3, network[1])
    Manifest.create(CONFIG, TOKENIZER, UNTUNED).save(folder)
    TOKENIZER.save(folder / "vocabulary")
    return folder


@pytest.fixture(scope="module")
def expected(network):
    """What the engine answers; an untuned model gets a line break after the prompt."""
    generator = Generator(*network, TOKENIZER.eos_id)
    return completion.complete(generator, TOKENIZER, PROMPTS, joint="newline", max_new_tokens=6)


@pytest.fixture
def file(tmp_path):
    lines = [json.dumps({"id": [n, "x"], "prompt": p}, ensure_ascii=False) for n, p in enumerate(PROMPTS)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return path


def _check(lines, expected):
    found = [json.loads(line) for line in lines.split("\n") if line]
    assert [answer["id"] for answer in found] == [[n, "x"] for n in range(3)]
    assert [answer["text"] for answer in found] == [one.text for one in expected]
    assert [answer["tokens"] for answer in found] == [one.num_tokens for one in expected]
    assert {answer["finish"] for answer in found} <= {"eos", "length"}
    assert len({answer["text"] for answer in found}) > 1


def test_a_file_without_tensorflow(checkpoint, file, expected, tmp_path):
    output = tmp_path / "deep" / "answers.jsonl"
    arguments = [f"--checkpoint={checkpoint}", f"--input={file}", f"--output={output}", FEW]
    code = (
        "import sys; from flan_jax import infer; infer.main(sys.argv[1:]); "
        "sys.exit(3 if 'tensorflow' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    assert [path.name for path in output.parent.iterdir()] == ["answers.jsonl"]
    _check(output.read_text(encoding="utf-8"), expected)


def test_standard_input_and_the_command_line(checkpoint, file, expected, capsys, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(file.read_bytes()), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stream)
    infer.main([f"--checkpoint={checkpoint}", FEW])
    _check(capsys.readouterr().out, expected)
    stop = expected[0].text[2]
    infer.main([f"--checkpoint={checkpoint}", FEW, f"--prompt={PROMPTS[0]}", f"--stop={stop}"])
    assert capsys.readouterr().out == completion.cut(expected[0].text, [stop]) + "\n"


def test_a_mark_and_lone_surrogates_are_read(checkpoint, tmp_path, capsys):
    lines = [{"id": "\ud800", "prompt": "a\udfff"}, {"id": 2, "prompt": "a\ufffd"}]
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(line).encode() for line in lines))
    infer.main([f"--checkpoint={checkpoint}", FEW, f"--input={path}", f"--output={output}"])
    found = [json.loads(line) for line in output.read_text("utf-8").split("\n") if line]
    assert found[0]["id"] == "\ufffd" and found[0]["text"] == found[1]["text"]
    infer.main([f"--checkpoint={checkpoint}", FEW, "--prompt=a\udfff"])  # as an argument that is no UTF-8 arrives
    assert capsys.readouterr().out == found[1]["text"] + "\n"


def test_beams_and_a_joint(checkpoint, network, file, tmp_path):
    output = tmp_path / "answers.jsonl"
    arguments = [f"--input={file}", f"--output={output}", "--beams=2", "--joint=eos", "--mesh=data=1,tensor=8"]
    infer.main([f"--checkpoint={checkpoint}", FEW, *arguments])
    generator = Generator(*network, TOKENIZER.eos_id)
    settings = {"joint": "eos", "max_new_tokens": 6, "choose": Beams(2)}
    direct = completion.complete(generator, TOKENIZER, PROMPTS, **settings)
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").split("\n") if line]
    assert [answer["text"] for answer in found] == [one.text for one in direct]
    assert [answer["score"] for answer in found] == pytest.approx([one.score for one in direct], abs=1e-4)


def test_a_conversation(checkpoint, expected, capsys, monkeypatch):
    typed = iter([PROMPTS[0], " ", PROMPTS[2]])

    def read(prompt):
        assert prompt == "> "
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    infer.main([f"--checkpoint={checkpoint}", FEW])
    printed = capsys.readouterr().out
    assert printed == f"One prompt a line; end with Ctrl-D.\n{expected[0].text}\n{expected[2].text}\n\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt=a", "--input=b"], "give --prompt or --input, not both"),
        (["--input=none.jsonl"], "cannot read prompts from none.jsonl: No such file"),
        (["--prompt=a", "--output=."], "is a folder"),
        (["--prompt=a", "--beams=2", "--temperature=1"], "leave --temperature"),
        (["--prompt=a", "--top_k=2"], "give --temperature=1 too"),
        (["--prompt=a", "--temperature=-1"], "--temperature: -1: it has to be a number of at least 0"),
        (["--prompt=a", "--mesh=rows=2"], "each once, such as data=2,tensor=4"),
        (["--prompt=a", "--mesh=data=--1"], "each once, such as data=2,tensor=4"),
        (["--prompt=a", "--mesh=data=\u00b2"], "each once, such as data=2,tensor=4"),
        (["--prompt=a", "--mesh=data=1,data=1"], "each once, such as data=2,tensor=4"),
        (["--prompt=a"], "no checkpoint at nowhere"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        infer.main(["--checkpoint=nowhere", *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and message in error


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2 is not JSON"),
        (b"\xff", "line 2 is not JSON in UTF-8"),
        (b"[1]", "line 2: give an object"),
        (b'{"id": 1}', "line 2: give an object"),
        (b'{"id": 1, "prompt": 2}', "line 2: give an object"),
    ],
)
def test_broken_lines(tmp_path, capsys, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"id": 1, "prompt": "a"}\n' + line + b"\n")
    with pytest.raises(SystemExit):
        infer.main(["--checkpoint=nowhere", f"--input={path}"])
    assert f"{path} {message}" in capsys.readouterr().err
    path.write_bytes(b"\n")
    with pytest.raises(SystemExit):
        infer.main(["--checkpoint=nowhere", f"--input={path}"])
    assert "holds no prompts" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ chats

TEMPLATE = (
    "{{ start }}{% for m in messages %}{% if m.role == 'x' %}{{ raise_exception('who?') }}{% endif %}"
    "{{ m.role[0] }}:{{ m.content }}\n{% endfor %}a:"
)
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "So?"}]


@pytest.fixture(scope="module")
def talking(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("talking") / "small"
    shutil.copytree(checkpoint, folder)
    chat = Chat(
        {"default": TEMPLATE, "short": "{{ messages[-1].content }}{{ (tools or [{}])[0].name }}"}, {"start": "^"}
    )
    tokenizer = ByteTokenizer(chat=chat)
    tokenizer.save(folder / "vocabulary")
    Manifest.load(folder).recorded({"chat": "added"}, tokenizer).save(folder)
    return folder


def _said(network, *texts):
    generator = Generator(*network, TOKENIZER.eos_id)
    said = completion.complete_tokens(generator, TOKENIZER, TOKENIZER.encode(texts), max_new_tokens=6)
    return [one.text for one in said]


def test_prompts_and_messages_in_a_chat(talking, network, tmp_path, capsys):
    path = tmp_path / "chats.jsonl"
    lines = [{"id": 1, "messages": TALK}, {"id": 2, "prompt": "Hi"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    infer.main([f"--checkpoint={talking}", FEW, "--chat", f"--input={path}"])
    found = [json.loads(line)["text"] for line in capsys.readouterr().out.split("\n") if line]
    assert found == _said(network, "^u:Hi\na:Yes\nu:So?\na:", "^u:Hi\na:") and len(set(found)) == 2
    infer.main([f"--checkpoint={talking}", FEW, "--chat=short", "--prompt=Hi"])
    assert capsys.readouterr().out == _said(network, "Hi")[0] + "\n"
    path.write_text("".join(json.dumps(line | {"tools": [{"name": "add"}]}) + "\n" for line in lines))
    infer.main([f"--checkpoint={talking}", FEW, "--chat=short", f"--input={path}"])
    found = [json.loads(line)["text"] for line in capsys.readouterr().out.split("\n") if line]
    assert found == _said(network, "So?add", "Hiadd")


def test_a_session_keeps_its_turns(talking, network, capsys, monkeypatch):
    typed = iter(["Hi", "", "So?", "x" * 3000, "/new", "Hi"])

    def read(prompt):
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    infer.main([f"--checkpoint={talking}", FEW, "--chat"])
    printed = capsys.readouterr().out
    first = _said(network, "^u:Hi\na:")[0]
    second = _said(network, f"^u:Hi\na:{first}\nu:So?\na:")[0]
    start = "One prompt a line; /new starts anew; end with Ctrl-D.\n"
    assert printed.startswith(f"{start}{first}\n{second}\nprompt 0 has 3")
    assert printed.endswith(f"(/new starts anew)\n{first}\n\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chat", "--prompt=a"], "has no chat template: leave --chat out"),
        (["--chat=x", "--prompt=a", "--talking"], "unknown chat template 'x': there are: default, short"),
        (["--chat", "--prompt=a", "--joint=eos", "--talking"], "leave --joint out"),
        (['--line={"id": 1, "messages": []}', "--chat", "--talking"], '"messages" must be a list of objects'),
        (['--line={"id": 1, "messages": [{"role": "user"}]}', "--chat", "--talking"], '"content" of message 0 must be'),
        (['--line={"id": 7, "messages": [{"role": "u", "content": ""}]}', "--talking"], "the id 7 holds messages"),
        (
            ['--line={"id": 7, "messages": [{"role": "x", "content": ""}]}', "--chat", "--talking"],
            "refuses these messages (who?)",
        ),
        (['--line={"id": 1, "messages": 3, "prompt": "a"}', "--talking"], None),
        (['--line={"id": 1, "messages": 3, "prompt": "a"}', "--chat", "--talking"], 'a "prompt" and "messages": leave'),
        (['--line={"id": 1, "prompt": "a", "tools": "add"}', "--chat", "--talking"], '"tools" must be a list of obj'),
        (['--line={"id": 1, "prompt": "a", "tools": "add"}', "--talking"], None),
        (["--chat=short", "--prompt=", "--talking"], "the chat template writes nothing for these messages"),
    ],
)
def test_bad_chats_are_one_line(checkpoint, talking, tmp_path, capsys, arguments, message):
    folder = talking if "--talking" in arguments else checkpoint
    given = [f"--checkpoint={folder}", FEW]
    for argument in arguments:
        if argument.startswith("--line="):
            (tmp_path / "lines.jsonl").write_text(argument.removeprefix("--line=") + "\n")
            given.append(f"--input={tmp_path / 'lines.jsonl'}")
        elif argument != "--talking":
            given.append(argument)
    if message is None:  # a prompt goes before
        infer.main(given)
        return
    with pytest.raises(SystemExit) as stopped:
        infer.main(given)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and message in error


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"id": 1, "prompt": "a"}, {"id": 1, "prompt": "b"}], "lines 1 and 2 have the same id 1; give each its own"),
        ([{"id": [1, "x"], "prompt": "a"}] * 2, 'lines 1 and 2 have the same id [1, "x"]'),
        ([{"id": "a", "prompt": "a"}, {"id": None, "prompt": "b"}], "line 2: the id is null"),
    ],
)
def test_answers_that_could_not_be_told_apart(checkpoint, tmp_path, capsys, lines, message):
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(SystemExit) as caught:
        infer.main([f"--checkpoint={checkpoint}", f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out'}"])
    error = capsys.readouterr().err.strip().split("\n")
    assert caught.value.code == 2 and len(error) == 1 and message in error[0] and not (tmp_path / "out").exists()


def test_a_prompt_that_does_not_fit_is_named_by_its_id(checkpoint, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": one, "prompt": "a" * 5000}) + "\n" for one in "xy"))
    for given, name in (
        (f"--input={tmp_path / 'in.jsonl'}", "the prompt with the id 'x'"),
        ("--prompt=" + "a" * 5000, "prompt 0"),
    ):
        with pytest.raises(SystemExit):
            infer.main([f"--checkpoint={checkpoint}", given])
        assert re.fullmatch(rf"flan_jax: {name} has 500\d tokens; it can have 1 to \d+: .*\n", capsys.readouterr().err)


def test_a_program_without_standard_input(checkpoint, file, expected, capsys, monkeypatch):
    """As under `<&-`; and in a notebook, whose input has no bytes."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SystemExit):
        infer.main([f"--checkpoint={checkpoint}"])
    assert capsys.readouterr().err == "flan_jax: there is no standard input: give --prompt or --input.\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(file.read_text(encoding="utf-8")))
    infer.main([f"--checkpoint={checkpoint}", FEW])
    _check(capsys.readouterr().out, expected)


def test_the_prompts_are_not_overwritten(checkpoint, tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"id": 1, "prompt": "a"}))
    with pytest.raises(SystemExit):
        infer.main([f"--checkpoint={checkpoint}", f"--input={path}", f"--output={path}"])
    assert "would be lost" in capsys.readouterr().err and json.loads(path.read_text()) == {"id": 1, "prompt": "a"}


def test_an_unknown_joint_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        infer.main([f"--checkpoint={tmp_path}", "--prompt=a", "--joint=tab"])
    assert "joint is 'tab'; it can be 'auto', 'joined', 'eos', 'newline', 'space'" in capsys.readouterr().err
