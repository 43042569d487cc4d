"""Hostile JSON lines of a user's own: what is wrong is named by its line, and nothing is written."""

import contextlib
import json

import pytest
import tokenizers_by_kind

from flan_jax import own_data, prepare
from flan_jax.data import examples as example_files
from flan_jax.data import token_store
from flan_jax.data.own import conversations, jsonl, store
from flan_jax.data.own.records import UnusableRecord, text_of
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.files import locks


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setenv(own_data.VARIABLE, "")


def pair(prompt="ask", target="say"):
    return json.dumps({"prompt": prompt, "target": target})


def chat(*turns, key="messages"):
    names = ("role", "content") if key == "messages" else ("from", "value")
    return json.dumps({key: [dict(zip(names, turn, strict=True)) for turn in turns]})


def said(tmp_path, content, capsys, *options):
    """What a command says of a file, and whether it is refused."""
    file = tmp_path / "mine.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        prepare.main([f"--jsonl={file}", f"--to={tmp_path / 'to'}", *options])
        refused = False
    except SystemExit as error:
        refused = bool(error.code)
    out, err = capsys.readouterr()
    if refused:
        assert err.count("\n") == 1 and not (tmp_path / "to").exists(), err
    return refused, out + err


GOOD = [pair(f"ask {n}", f"say {n}") for n in range(20)]
PAIRS = {
    "no JSON": ('{"prompt": "a"', "line 2: not JSON"),
    "no object": ("[1]", "line 2: it is no JSON object"),
    "a missing key": ('{"prompt": "a"}', 'line 2: it has no "target"'),
    "an empty target": (pair(target=" \n"), 'line 2: "target" is empty'),
    "an empty prompt": (pair(prompt=""), 'line 2: "prompt" is empty'),
    "a number": (pair(target=3), 'line 2: "target" is a number, and has to be text'),
    "null": (pair(prompt=None), 'line 2: "prompt" is null'),
    "true": (pair(prompt=True), 'line 2: "prompt" is true or false'),
    "messages as a prompt": (pair(prompt=[{"role": "user", "content": "a"}]), 'line 2: "prompt" is a list'),
    "a key twice": ('{"prompt": "a", "prompt": "b", "target": "c"}', "line 2: the key 'prompt' stands twice"),
    "a conversation among pairs": (chat(("user", "a"), ("assistant", "b")), 'line 2: it has no "prompt"'),
    "options without the target": (
        json.dumps({"prompt": "a", "target": "B", "options": ["b", "c\nd", "e", "f"]}),
        r"its target 'B' is none of its options ('b', 'c\nd', 'e', ...)",
    ),
    "a long target that is no option": (
        json.dumps({"prompt": "a", "target": "b" * 1000, "options": ["b", "c"]}),
        f"its target '{'b' * 40}...' is none of its options ('b', 'c')",
    ),
    "one option": (json.dumps({"prompt": "a", "target": "b", "options": ["b"]}), "two texts or more"),
    "an option twice": (json.dumps({"prompt": "a", "target": "b", "options": ["b", "b"]}), "same text twice"),
    "options of some": (json.dumps({"prompt": "a", "target": "b", "options": ["b", "c"]}), 'line 1 has no "options"'),
}
CHATS = {
    "an unknown role": (chat(("user", "a"), ("tool", "b"), ("assistant", "c")), "message 1 has the role 'tool'"),
    "a call": (
        json.dumps(
            {"messages": [json.loads(chat(("user", "a")))["messages"][0], {"role": "assistant", "tool_calls": [{}]}]}
        ),
        'message 1 needs a "role" and a "content"',
    ),
    "a call with words": (
        json.dumps(
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [1]}]}
        ),
        'message 1 has "tool_calls", which --chat alone can write',
    ),
    "no assistant": (chat(("user", "a"), ("user", "b")), "no turn of the assistant"),
    "an assistant alone": (chat(("system", "a"), ("assistant", "b")), "no turn of the assistant"),
    "no content": (json.dumps({"messages": [{"role": "user"}]}), 'message 0 needs a "role" and a "content"'),
    "null": (chat(("user", "a"), ("assistant", None)), '"content of message 1" is null'),
    "an empty answer": (chat(("user", "a"), ("assistant", "")), '"content of message 1" is empty'),
    "an image": (chat(("user", [{"type": "image_url"}]), ("assistant", "b")), "a part that is no text"),
    "no list": ('{"messages": "hello"}', 'line 2: "messages" has to be a list'),
    "half a weight": (
        json.dumps(
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}]}
        ),
        'line 2: "weight" of message 1 has to be 0 or 1',
    ),
    "a system beside one in the messages": (
        json.dumps({"system": "x", **json.loads(chat(("system", "y"), ("user", "a"), ("assistant", "b")))}),
        '"system" stands beside messages that begin with another one',
    ),
    "a role that is a number": (chat((1, "a"), ("assistant", "b")), '"role of message 0" is a number'),
}


@pytest.mark.parametrize(
    ("first", "line", "words"),
    [
        *(pytest.param(GOOD[0], *case, id=name) for name, case in PAIRS.items()),
        *(
            pytest.param(chat(("user", "a"), ("assistant", "b")), *case, id=f"chat: {name}")
            for name, case in CHATS.items()
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_named(first, line, words, tmp_path, capsys):
    refused, text = said(tmp_path, "\n".join([first, line]), capsys)
    assert refused and words in text


def test_bad_lines_can_be_left_out_and_are_counted(tmp_path, capsys):
    refused, text = said(tmp_path, "\n".join([*GOOD, "{", pair(target=None), ""]), capsys)
    assert refused and "line 21" in text and "1 other cannot be used either" in text and "--leave_out" in text
    refused, text = said(tmp_path, "\n".join([*GOOD, "{", pair(target=None), ""]), capsys, "--leave_out", "--json")
    result = json.loads(text.splitlines()[-1])
    assert not refused and result["datasets"][0]["bad_rows"] == 2 and "line 21: not JSON" in text
    assert "note: 2 lines left out in all." in text


def test_of_many_lines_left_out_the_count_is_said(tmp_path, capsys):
    refused, text = said(tmp_path, "\n".join([*GOOD, *["{"] * 12]), capsys, "--leave_out")
    assert not refused and text.count(": not JSON") < 12 and "note: 12 lines left out in all." in text


@pytest.mark.parametrize(
    "content", [b"", b"\n \r\n", b"{\n", b"\xff\xfe{\0"], ids=["empty", "blank", "broken", "utf16"]
)
def test_a_file_without_records_is_refused(content, tmp_path, capsys):
    assert said(tmp_path, content, capsys, "--leave_out")[0]


def test_marks_line_ends_blank_lines_and_repeats_change_nothing(tmp_path, capsys):
    """A byte order mark, CRLF and blank lines; ids are the numbers of lines as an editor shows them."""
    content = b"\xef\xbb\xbf" + "\r\n".join([GOOD[0], "", *GOOD[1:], GOOD[3]]).encode()
    refused, text = said(tmp_path, content, capsys, "--test=4", "--dev=0")
    assert not refused and "1 record of 21 repeat" in text
    tokens = token_store.TokenStore.open(tmp_path / "to", ByteTokenizer().fingerprint)["mine"]
    rows = example_files.read(tmp_path / "to", "mine", "test")
    ids = {row["id"] for row in rows} | {one.decode() for one in tokens.records.ids.tolist()}
    assert ids == {"1", *(str(n) for n in range(3, 23))} and len(rows) >= 4
    assert all("\r" not in row["fields"]["answer"] for row in rows)
    assert not {row["hash"].encode() for row in rows} & set(tokens.records.hashes.tolist())  # a repeat is on one side


def test_a_line_of_ten_megabytes_is_cut_like_any_long_input(tmp_path, capsys):
    refused, text = said(tmp_path, "\n".join([*GOOD, pair("word " * 2_000_000, "end")]), capsys, "--test=0", "--dev=0")
    assert not refused and "cut inputs" in text
    tokens = token_store.TokenStore.open(tmp_path / "to", ByteTokenizer().fingerprint)["mine"]
    assert tokens.info["trimmed"] == 1 and tokens.index["input_length"].max() <= 1023


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"q": "a", "a": "b"}, "--input_key and --target_key"),
        ({"prompt": "a", "target": "b", "completion": "c"}, "it is unclear which"),
    ],
)
def test_keys_that_are_not_the_usual_are_asked_for(row, words, tmp_path, capsys):
    lines = "\n".join([json.dumps(row)] * 2)
    refused, text = said(tmp_path, lines, capsys)
    assert refused and words in text and "line 1" in text
    keys = list(row)
    assert not said(tmp_path, lines, capsys, f"--input_key={keys[0]}", f"--target_key={keys[-1]}")[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--name=rte"], "is a dataset of the catalog"),
        (["--name=anli"], "is a dataset of the catalog"),
        (["--name=nli"], "is a cluster"),
        (["--name=unknown"], "is a cluster"),
        (["--name=flan_mine"], "begins like the name of a mixture"),
        (["--name=a/b"], "is no name of a dataset"),
        (["--name=../up"], "is no name of a dataset"),
        (["--name=Mine"], "is no name of a dataset"),
        (["--name=mine_5_shots"], "ends like a style"),
        (["--cluster=sentimant"], "did you mean 'sentiment'"),
        (["--metric=exact"], "exact_match"),
        (["--metric=multirc"], "unknown metric"),  # it takes more than two texts
        (["--style=5_shots"], "--style is for datasets of the catalog"),
        (["--seqio=x"], "two datasets"),
        (["--module=x"], "--module is for --seqio"),
        (["--input_key=prompt"], "belong together"),
        (["--test=50"], "none is left to train on"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words, tmp_path, capsys):
    refused, text = said(tmp_path, "\n".join(GOOD), capsys, *options)
    assert refused and words in text


def test_a_name_is_not_taken_from_another_file(tmp_path, capsys):
    assert not said(tmp_path, "\n".join(GOOD), capsys)[0]
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(GOOD))
    for more, refused in (([], True), (["--overwrite"], False)):
        try:
            prepare.main([f"--jsonl={other}", f"--to={tmp_path / 'to'}", "--name=mine", *more])
            assert not refused
        except SystemExit:
            assert refused and "came from jsonl:mine.jsonl" in capsys.readouterr().err


def test_messages_of_weight_0_are_context(tmp_path, capsys):
    """As OpenAI's fine-tuning has it: an answer that is not to be learned."""
    turns = [("user", "a"), ("assistant", "BAD"), ("user", "b"), ("assistant", "GOOD")]
    messages = [dict(zip(("role", "content"), turn, strict=True)) for turn in turns]
    messages[1]["weight"], messages[3]["weight"] = 0, 1
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps({"messages": messages, "prompt": "a", "completion": "b"}))
    found = jsonl.read(file)
    assert [(one.identity, one.fields["answer"]) for one in found.records] == [("1#3", "GOOD")]
    assert "Assistant: BAD" in found.records[0].fields["inputs"]
    assert any("1 answer of weight 0" in note for note in found.notes)
    assert "'completion', 'prompt' beside what is used: not read" in found.notes


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_list_is_named_as_one(indent, tmp_path, capsys):
    refused, text = said(tmp_path, json.dumps([json.loads(line) for line in GOOD], indent=indent), capsys)
    assert refused and "write an object a line, as jq -c '.[]' does" in text


@pytest.mark.parametrize("name", ["all", "anli"])
def test_a_name_that_means_something_else_is_refused(name, tmp_path, capsys):
    refused, text = said(tmp_path, "\n".join(GOOD), capsys, f"--name={name}")
    assert refused and "another name" in text


def test_the_name_of_a_file_is_shown_as_it_is(tmp_path, capsys):
    file = tmp_path / "a [v2]:x:.jsonl"
    file.write_text("\n".join(GOOD))
    prepare.main([f"--jsonl={file}", f"--to={tmp_path / 'to'}"])
    assert "jsonl:a [v2]:x:.jsonl" in capsys.readouterr().out


def test_another_cluster_is_said(tmp_path, capsys):
    said(tmp_path, "\n".join(GOOD), capsys, "--cluster=nli")
    assert "its cluster was nli, and is unknown now" in said(tmp_path, "\n".join(GOOD), capsys)[1]


def test_a_prompt_that_most_records_share_stays_in_training(tmp_path, capsys):
    same = [pair("write", f"poem {n}") for n in range(40)]
    refused, text = said(tmp_path, "\n".join(same), capsys)
    assert not refused and "no record is held back for test" in text
    refused, text = said(tmp_path, "\n".join(same + GOOD), capsys)
    assert not refused and len(list((tmp_path / "to/examples/mine").glob("test.jsonl"))) == 1
    held = [line for name in ("dev", "test") for line in (tmp_path / f"to/examples/mine/{name}.jsonl").open()]
    assert 12 <= len(held) <= 20 and not any("poem" in line for line in held)


def test_a_prompt_that_all_share_cannot_be_held_back(tmp_path, capsys):
    refused, text = said(tmp_path, "\n".join(pair("write", f"poem {n}") for n in range(40)), capsys, "--test=5")
    assert refused and "none of 40 records can be held back for test" in text and "give --test=0" in text


def test_two_commands_at_once_are_one_after_the_other(tmp_path, capsys, monkeypatch):
    """What the second wants to write is looked at after the first has written."""
    (tmp_path / "other.jsonl").write_text("\n".join(GOOD))
    first, held = locks.alone, []

    @contextlib.contextmanager
    def alone(path, *more):
        if not held:  # the other command is quicker, and ends before this one has its lock
            held.append(path)
            prepare.main([f"--jsonl={tmp_path / 'other.jsonl'}", "--name=mine", f"--to={tmp_path / 'to'}"])
        with first(path, *more):
            yield

    monkeypatch.setattr(store, "alone", alone)
    (tmp_path / "mine.jsonl").write_text("\n".join(GOOD[5:]))
    with pytest.raises(SystemExit):
        prepare.main([f"--jsonl={tmp_path / 'mine.jsonl'}", f"--to={tmp_path / 'to'}"])
    assert "there is a 'mine'" in capsys.readouterr().err
    assert own_data.use(tmp_path / "to")[0].origin == "jsonl:other.jsonl"


def test_what_is_current_stays(tmp_path, capsys):
    said(tmp_path, "\n".join(GOOD), capsys)
    assert "(kept)" in said(tmp_path, "\n".join(GOOD), capsys)[1]
    assert "(kept)" not in said(tmp_path, "\n".join(GOOD[1:]), capsys)[1]


@pytest.mark.parametrize("kind", ["gpt2", "llama2"])
def test_control_tokens_in_content_stay_text(kind, tmp_path, capsys):
    """Their text in a prompt or an answer never becomes their id, in training or in an evaluation."""
    tokenizer = tokenizers_by_kind.CUT[kind]()
    tokenizer.save(tmp_path / "vocabulary")
    control = next(iter(tokenizer.control_ids))
    content = "\n".join([*GOOD, pair(f"what is {control}?", f"{control} ends"), pair(f"{control}{control}", "twice")])
    refused, _ = said(tmp_path, content, capsys, f"--vocabulary={tmp_path / 'vocabulary'}", "--test=6", "--dev=6")
    assert not refused
    tokens = token_store.TokenStore.open(tmp_path / "to", tokenizer.fingerprint)["mine"]
    special = set(tokenizer.control_ids.values())
    assert not special & {int(one) for n in range(len(tokens.index)) for part in tokens.example(n) for one in part}
    rows = [row for s in ("dev", "test") for row in example_files.read(tmp_path / "to", "mine", s)]
    rows += example_files.read(tmp_path / "to", "mine", "exemplars")
    texts = [text for row in rows for text in row["fields"].values()]
    assert len(rows) == 22 and not special & {one for ids in tokenizer.encode(texts) for one in ids}


def test_a_conversation_full_of_control_tokens_keeps_its_end(tmp_path, capsys):
    tokenizer = tokenizers_by_kind.CUT["gpt2"]()
    tokenizer.save(tmp_path / "vocabulary")
    turns = [(role, f"{tokenizers_by_kind.EOS} {n}") for n in range(20) for role in ("user", "assistant")]
    options = [f"--vocabulary={tmp_path / 'vocabulary'}", "--test=0", "--dev=0", "--max_input_length=100"]
    assert not said(tmp_path, chat(*turns), capsys, *options)[0]
    tokens = token_store.TokenStore.open(tmp_path / "to", tokenizer.fingerprint)["mine"]
    inputs = [tokenizer.decode(tokens.example(n)[0].tolist()).replace(" ", "") for n in range(len(tokens.index))]
    assert len(inputs) == 20 and tokens.info["trimmed"] == 0
    assert all(text.startswith("User:") and text.endswith("Assistant:") for text in inputs)


def test_two_turns_of_a_user_and_a_greeting_stay_as_they_are(tmp_path):
    row = json.loads(
        chat(
            ("gpt", "Hello!"),
            ("human", "one"),
            ("human", "two"),
            ("gpt", "three"),
            ("human", "four"),
            key="conversations",
        )
    )
    turns = conversations.turns_of(row)
    assert list(conversations.answered(turns)) == [3]  # the greeting answers nothing, and is context alone
    assert conversations.plain(turns[:3]) == "Assistant: Hello!\n\nUser: one\n\nUser: two\n\nAssistant:"


def test_a_list_of_parts_is_their_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert conversations.turns_of(json.loads(chat(("user", parts), ("assistant", "c"))))[0] == ("user", "ab")
    with pytest.raises(UnusableRecord, match="is null"):
        conversations.turns_of(json.loads(chat(("user", [{"type": "text", "text": None}]), ("assistant", "c"))))


def test_a_long_conversation_loses_its_oldest_turns(tmp_path):
    turns = [("system", "rules")]
    for n in range(4):
        turns += [("user", f"question {n}"), ("assistant", f"answer {n}")]
    path = tmp_path / "long.jsonl"
    path.write_text(chat(*turns) + "\n" + chat(("user", "x" * 200), ("assistant", "a")))
    found = jsonl.read(path, room=100, count=lambda texts: list(map(len, texts)))
    last = found.records[-1].fields
    assert last["inputs"].startswith("System: rules\n\nUser: question") and "question 3" in last["inputs"]
    assert "question 0" not in last["inputs"] and len(last["inputs"]) <= 100
    assert len(found.records) == 4 and len({one.group for one in found.records}) == 1
    assert any("oldest turns" in note for note in found.notes) and any("left out" in note for note in found.notes)


def test_a_conversation_of_ten_megabytes_takes_seconds(tmp_path):
    """Thousands of turns, and one turn that is far too long."""
    turns = [("system", "rules")]
    for n in range(8_000):
        turns += [("user", f"question {n} " + "word " * 40), ("assistant", f"answer {n}")]
    path = tmp_path / "long.jsonl"
    path.write_text(chat(*turns) + "\n" + chat(("user", "word " * 2_000_000), ("assistant", "a")))
    found = jsonl.read(path, room=100)
    assert len(found.records) == 8_000 and {len(one.fields["inputs"].split()) for one in found.records[9:]} == {92}
    assert len(found.notes) == 2 and found.records[-1].fields["inputs"].startswith("System: rules\n\nUser: question")


def test_a_broken_definition_is_named(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.json").write_text("{}")
    with pytest.raises(FlanError, match="mine.json is broken"):
        own_data.use(tmp_path)


ALPACA = {"instruction": "Add them.", "input": "2 and 3", "output": "5"}
FORMS = {
    "alpaca": (ALPACA, "Add them.\n\n2 and 3", "5", []),
    "alpaca with nothing below": (ALPACA | {"input": ""}, "Add them.", "5", []),
    "alpaca with its text": (ALPACA | {"text": "x"}, "Add them.\n\n2 and 3", "5", ["'text'"]),
    "dolly": (
        {"instruction": "Add them.", "context": "2 and 3", "response": "5", "category": "sums"},
        "Add them.\n\n2 and 3",
        "5",
        ["'category'"],
    ),
    "a pair of null": ({"prompt": "a", "completion": "b", "target": None}, "a", "b", []),
    "a key of one's own": ({"prompt": "a", "target": "b", "system": "c", "id": 3}, "a", "b", ["'id', 'system'"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_usual_forms_lose_nothing_without_a_word(form, tmp_path):
    row, inputs, answer, unread = FORMS[form]
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    found = jsonl.read(tmp_path / "mine.jsonl")
    assert [one.fields for one in found.records] == [{"inputs": inputs, "answer": answer}]
    assert found.notes == [f"{names} beside what is used: not read" for names in unread]


def test_records_that_go_are_told(tmp_path, capsys):
    """Another file of the same name, or the same one with other lines."""
    for folder, notes in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.jsonl").write_text(pair(folder) + "\n" + pair(folder * 2))
        for once_more in range(2):
            prepare.main([f"--jsonl={tmp_path / folder / 'mine.jsonl'}", f"--to={tmp_path / 'to'}"])
            told = (
                "2 training records that were prepared as 'mine' before are replaced by these"
                in capsys.readouterr().out
            )
            assert told == bool(notes and not once_more)


def test_keys_that_are_named_are_taken_alone_and_the_others_told(tmp_path):
    (tmp_path / "mine.jsonl").write_text(json.dumps(ALPACA))
    found = jsonl.read(tmp_path / "mine.jsonl", input_key="instruction", target_key="output")
    assert found.records[0].fields["inputs"] == "Add them."
    assert found.notes == ["'input' beside what is used: not read"]


SAID = json.loads(chat(("user", "a"), ("assistant", "b")))
CONVERSATIONS = {
    "a system beside them": (SAID | {"system": "Be brief."}, "System: Be brief.\n\nUser: a\n\nAssistant:", []),
    "one that says nothing": (SAID | {"system": " "}, "User: a\n\nAssistant:", []),
    "the same one": (
        {"system": "x", **json.loads(chat(("system", "x"), ("user", "a"), ("assistant", "b")))},
        "System: x\n\nUser: a\n\nAssistant:",
        [],
    ),
    "a blank system": (
        json.loads(chat(("system", ""), ("user", "a"), ("assistant", "b"))),
        "User: a\n\nAssistant:",
        [],
    ),
    "null beside what is used": ({"messages": None, "conversations": SAID["messages"]}, "User: a\n\nAssistant:", []),
    "both": (
        SAID | {"conversations": SAID["messages"]},
        "User: a\n\nAssistant:",
        ["'conversations' beside what is used: not read"],
    ),
    "weights of null": (
        {"messages": [one | {"weight": None, "name": None} for one in SAID["messages"]]},
        "User: a\n\nAssistant:",
        [],
    ),
    "a key of messages": (
        {"messages": [one | {"train": False} for one in SAID["messages"]]},
        "User: a\n\nAssistant:",
        ["'train' in messages: not read"],
    ),
}


@pytest.mark.parametrize("form", CONVERSATIONS)
def test_conversations_lose_nothing_without_a_word(form, tmp_path):
    row, inputs, notes = CONVERSATIONS[form]
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    found = jsonl.read(tmp_path / "mine.jsonl")
    assert not found.bad and [one.fields for one in found.records] == [{"inputs": inputs, "answer": "b"}]
    assert found.notes == notes


def test_a_long_conversation_is_written_about_twice_an_answer():
    """Each turn goes once, not anew for each answer after it, where a template takes more tokens than its turns."""
    turns = [(("user", "assistant")[number % 2], f"turn {number}") for number in range(400)]
    written = []

    def write(some):
        written.append(1)
        return " ".join(f"< < < {text} > > >" for _, text in some)

    found = list(conversations.contexts(turns, 300, lambda texts: [len(one.split()) for one in texts], write))
    assert len(found) == 200 and len(written) < 3 * len(found)
    assert all(len(write(before).split()) <= 300 for _, before in found)
    assert all(len(before) == min(number, 37) for number, before in found)


def test_a_lone_surrogate_is_no_text_of_a_record():
    with pytest.raises(UnusableRecord, match="has a lone surrogate"):
        text_of("a\ud800", "prompt")
