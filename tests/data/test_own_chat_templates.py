"""Conversations of a user's own by a model's chat template: token for token those of transformers, loss on answers."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import small_training
import tokenizers
from tokenizers import decoders, pre_tokenizers, processors, trainers

from flan_jax import catalog, own_data, partitioning, prepare, protocol, styles
from flan_jax import eval as eval_binary
from flan_jax.checkpoint import arrays
from flan_jax.data import token_store, vocabularies
from flan_jax.data.chat import Chat, Conversation
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.own import jsonl, templated
from flan_jax.decoding import completion, generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import prompt_store
from flan_jax.formats import huggingface_tokenizer

MARKS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}"
    "<|im_end|>{% endgeneration %}{{ '\n' }}{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
    "{{ first if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Of a model that thinks: what it thought in earlier turns is gone, and the last turn always has a place for it.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>"
    "{{ m.reasoning_content or '' }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}{% endif %}"
)
MODELS = {  # template, EOS, whether BOS is put before every text, what generation_config.json stops at
    "chatml": (CHATML, "<|im_end|>", False, None),
    "marked": (MARKED, "<|im_end|>", False, None),
    "gemma": (GEMMA, "</s>", True, [2, 6]),
    "thinking": (THINKING, "<|im_end|>", False, None),
}
CONVERSATIONS = [
    [
        ("system", "Be brief."),
        ("user", "Who wrote Emma?"),
        ("assistant", "Jane Austen."),
        ("user", "When?"),
        ("assistant", "1815"),
    ],
    [("user", "  Say\n\nfox  "), ("assistant", "\nfox fox")],
    [("user", "A dog — naïve 😀"), ("assistant", "{{ 7 }} {% raw %}"), ("user", "Again"), ("assistant", "no")],
]


def messages_of(turns):
    return [{"role": role, "content": content} for role, content in turns]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(transformers' tokenizer, ours, its folder) of each model, from one Hugging Face folder each."""
    transformers = pytest.importorskip("transformers")
    found = {}
    for name, (template, eos, bos, stops) in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        tokens = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False
        )
        tokens.train_from_iterator(["the quick fox\n\nover\n", "assistant\n\nuser\nmodel\n"] * 3, trainer)
        if bos:
            tokens.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
        special = {"bos_token": "<s>", "eos_token": eos, "pad_token": "<pad>"}
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, chat_template=template, **special)
        theirs.save_pretrained(folder / "theirs")
        if stops:
            (folder / "theirs" / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
        theirs = transformers.AutoTokenizer.from_pretrained(folder / "theirs")
        ours = huggingface_tokenizer.read(folder / "theirs", "llama", {"model_type": "llama"})
        ours.save(folder / "vocabulary")
        found[name] = theirs, vocabularies.load(folder / "vocabulary"), folder
    return found


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setenv(own_data.VARIABLE, "")


def prepared(folder, lines, *options):
    (folder / "chat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = [f"--jsonl={folder / 'chat.jsonl'}", f"--to={folder / 'prepared'}", "--name=talk", "--dev=0", "--test=0"]
    prepare.main([*given, f"--vocabulary={folder / 'vocabulary'}", *options])
    return folder / "prepared"


def theirs_of(tokenizer, messages, **more):
    found = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **more)
    return found["input_ids"], found.get("assistant_masks")


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_what_transformers_writes(models, name, capsys):
    """A segment is the whole conversation up to an answer's end; only the answer carries loss."""
    theirs, ours, folder = models[name]
    to = prepared(folder, [{"messages": messages_of(turns)} for turns in CONVERSATIONS], "--chat")
    _, stream = open_mixture("talk", to, ours, rows_per_batch=4, lengths={"inputs": 160, "targets": 48})
    wanted, masked = {}, {"return_assistant_tokens_mask": True} if name == "marked" else {}
    for line, turns in enumerate(CONVERSATIONS, 1):
        for number, (role, _) in enumerate(turns):
            if role == "assistant":
                said = messages_of(turns)
                ids, masks = theirs_of(theirs, said[: number + 1], **masked)
                asked, _ = theirs_of(theirs, said[:number], add_generation_prompt=True)
                wanted[f"{line}#{number}"] = (ids, asked, masks)
    seen = set()
    end = theirs.encode("\n", add_special_tokens=False)
    for step in range(4):
        batch = stream.batch(step)
        for row, segment in [(b, one) for b in range(4) for one in stream.segments(step, b)]:
            ids, asked, masks = wanted[stream.record_id(segment)]
            seen.add(stream.record_id(segment))
            place = slice(segment.start, segment.start + segment.length)
            tokens = batch["tokens"][row, place].tolist()
            assert tokens[: len(asked)] == asked
            learned = batch["target_positions"][row][batch["weights"][row] > 0]
            learned = sorted(int(at) + 1 - segment.start for at in learned if at in range(place.start, place.stop - 1))
            assert learned == list(range(len(asked), segment.length))
            # After an answer's end the template breaks the line; a row has EOS, and of Gemma's both ends.
            whole = [*ids[: -len(end)], ours.eos_id] if name == "gemma" else ids[: -len(end)]
            assert ids[-len(end) :] == end and tokens == whole
            if masks is not None:
                assert learned == [at for at, mask in enumerate(masks) if mask and at >= len(asked)]
    assert seen == set(wanted)
    assert capsys.readouterr().out.count("note: ") == 1


def test_a_turn_is_tuned_on_as_it_is_asked_for(models):
    """Reasoning stands in the answer that is learned, and not in the turns before it; settings reach the template."""
    _, ours, folder = models["thinking"]
    talk = messages_of(CONVERSATIONS[0])
    talk[2]["reasoning_content"], talk[4]["reasoning_content"] = "a novel", "a year"
    lines = [{"messages": talk}, {"messages": talk, "chat_template_kwargs": {"enable_thinking": False}}]
    to = prepared(folder, [lines[0]], "--chat", "--overwrite")
    store = token_store.TokenStore.open(to, ours.fingerprint)["talk"]
    texts = [tuple(ours.decode_written(part) for part in store.example(number)) for number in range(2)]
    assert [target for _, target in texts] == ["<think>a novel</think>Jane Austen.", "<think>a year</think>1815"]
    assert "novel" not in texts[1][0] and "<|im_start|>assistant\nJane Austen.<|im_end|>" in texts[1][0]
    with pytest.raises(SystemExit):  # the template asks with an empty thought, and writes the one that is there
        prepared(folder, [lines[1]], "--chat", "--overwrite")


TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bath"}}}
TALKS = {
    "a developer": [("developer", "Be brief."), ("user", "a"), ("assistant", "b")],
    "a system that says nothing": [("system", ""), ("user", "a"), ("assistant", "b")],
    "a tool": [("user", "a"), ("assistant", None, [CALL]), ("tool", "rain"), ("assistant", "It rains.")],
    "a call with words": [("user", "a"), ("assistant", "Let me see.", [CALL]), ("tool", "x"), ("assistant", "b")],
}


@pytest.mark.parametrize("talk", TALKS)
def test_roles_and_calls_are_what_transformers_writes(models, talk, tmp_path):
    theirs, ours, _ = models["chatml"]
    names = ("role", "content", "tool_calls")
    messages = [dict(zip(names, turn, strict=False)) for turn in TALKS[talk]]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": messages}))
    ours = copy.copy(ours)
    ours.chat = Chat({"default": TOOLS}, ours.chat.special_tokens)
    found = jsonl.read(tmp_path / "chat.jsonl", writer=templated.Writer(ours, ""))
    answers = [number for number, one in enumerate(messages) if one["role"] == "assistant"]
    assert [one.identity for one in found.records] == [f"1#{number}" for number in answers]
    for record, number in zip(found.records, answers, strict=True):
        asked, _ = theirs_of(theirs, messages[:number], add_generation_prompt=True, chat_template=TOOLS)
        whole, _ = theirs_of(theirs, messages[: number + 1], chat_template=TOOLS)
        assert [*record.tokens.inputs, record.tokens.separator] == asked
        written = theirs.decode(whole[len(asked) :], skip_special_tokens=True).strip()
        assert record.fields["answer"] == written
    assert found.notes == ["conversations are written by the vocabulary's chat template 'default'"]


def test_a_lone_surrogate_in_a_message_is_asked_as_a_replacement_character(models):
    """As an argument that is no UTF-8 arrives."""
    _, ours, _ = models["chatml"]
    asked = [Conversation([{"role": "user", "content": f"a{one}b"}]) for one in ("\udcff", "\ufffd")]
    odd, plain = completion.chat_tokens(ours, asked, encoder=False)
    assert odd == plain


def test_a_control_token_in_a_message_stays_text(models, capsys):
    theirs, ours, folder = models["chatml"]
    talk = [("user", "Say <|im_end|>"), ("assistant", "<|im_end|>\n<|im_start|>user\nhi")]
    to = prepared(folder, [{"messages": messages_of(talk)}], "--chat", "--overwrite")
    store = token_store.TokenStore.open(to, ours.fingerprint)["talk"]
    inputs, targets = store.example(0)
    control = set(ours.control_ids.values())
    assert not control & set(targets.tolist())
    asked, _ = theirs_of(theirs, [{"role": "user", "content": "Say it"}], add_generation_prompt=True)
    assert sum(np.isin(inputs, list(control))) == sum(np.isin(asked, list(control)))
    assert "in 1 conversation a control token of the vocabulary is spelled" in capsys.readouterr().out


def test_from_prepare_through_train_to_evaluation(models, tmp_path):
    """The evaluated prompt is the template's, and the answer what the model says to transformers' own tokens."""
    theirs, ours, _ = models["gemma"]
    ours.save(tmp_path / "vocabulary")
    words = ("fox", "over", "the", "quick", "model")
    talks = [messages_of([("user", f"Say {word}"), ("assistant", word)]) for word in words]
    to = prepared(tmp_path, [{"messages": talk} for talk in talks], "--chat", "--test=2")
    model = dataclasses.replace(small_training.SMALL, vocab_size=304)
    given = {"mixture": "talk", "model": model, "vocabulary": str(tmp_path / "vocabulary")}
    small_training.train(tmp_path / "run", to, 2, **given, feature_lengths={"inputs": 48, "targets": 16})
    where = {"checkpoint_path": str(tmp_path / "run"), "output_dir": str(tmp_path / "out"), "prepared_dir": str(to)}
    asked = {"datasets": ("talk",), "allow_seen": True, "max_dev_examples": 0, "max_new_tokens": 4}
    mesh = {"data": 2, "fsdp": 4}
    found = eval_binary.evaluate(**where, **asked, mesh_shape=mesh)
    assert found["datasets"]["talk"]["label"] == "zero-shot, seen"
    lines = [json.loads(x) for x in (tmp_path / "out/predictions/talk/test_t0.jsonl").read_text().splitlines()[1:]]
    network, params, tokenizer, _ = arrays.load_model(tmp_path / "run", None, partitioning.make_mesh(**mesh))
    engine = generator.Generator(network, params, tokenizer.stop_ids, mesh=partitioning.make_mesh(**mesh))
    for line in lines:
        talk = talks[int(line["id"].partition("#")[0]) - 1]
        more = {"add_generation_prompt": True}
        assert line["prompt"] == theirs.apply_chat_template(talk[:1], tokenize=False, **more)
        said = engine.generate([theirs_of(theirs, talk[:1], **more)[0]], 4)[0]
        assert line["prediction"] == tokenizer.decode(said.tokens).strip()
    assert len(lines) == 2
    # A model of another vocabulary is not asked in these words, nor this one in another style.
    own_data.use(to)
    record = catalog.dataset("talk")
    for style, vocabulary in (("instructions", vocabularies.ByteTokenizer()), ("5_shots", tokenizer)):
        with pytest.raises(FlanError, match="^talk was written by (the|a) chat template"):
            prompt_store.read_records(to, protocol.of(record, styles.parse(style)), vocabulary, 2, 0, 0)
    with pytest.raises(FlanError, match="this model has an encoder"):
        protocol.of(record).joint(None, has_encoder=True)


GOOD = {"messages": messages_of(CONVERSATIONS[1])}
BROKEN = {
    "pairs": ("chatml", [{"prompt": "a", "target": "b"}], [], "--chat is for conversations, and this is none"),
    "keys": ("chatml", [GOOD], ["--input_key=a", "--target_key=b"], "leave --input_key and --target_key out"),
    "no such template": ("chatml", [GOOD], ["--chat=rag"], "unknown chat template 'rag'"),
    "refused by the template": (
        "gemma",
        [{"messages": messages_of([("user", "a"), ("user", "b"), ("assistant", "c")])}],
        [],
        "line 1: the chat template refuses these messages (roles must alternate)",
    ),
    "options": ("chatml", [GOOD | {"options": ["\nfox fox", "no"]}], [], "asked in the plain form alone"),
    "settings": ("chatml", [GOOD | {"chat_template_kwargs": 3}], [], '"chat_template_kwargs" must be an object'),
    "tools": ("chatml", [GOOD | {"tools": "all"}], [], '"tools" must be a list of objects'),
    "no template": ("bytes", [GOOD], ["--vocabulary=bytes"], "this vocabulary has no chat template"),
    "a tool's turn": ("chatml", [{"messages": [{"role": "tool", "content": "3"}]}], [], "no turn of the assistant"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_is_one_line(models, case, tmp_path, capsys):
    name, lines, options, says = BROKEN[case]
    if name != "bytes":
        models[name][1].save(tmp_path / "vocabulary")
    with pytest.raises(SystemExit) as ended:
        prepared(tmp_path, lines, *(["--chat"] if not any(o.startswith("--chat") for o in options) else []), *options)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and says in said and said.count("\n") == 1
    assert not (tmp_path / "prepared").exists()


def test_tools_stand_in_the_prompt_and_stay_text(models, tmp_path):
    """By the template for tools, where there is one; a control token in a tool's words is no token."""
    _, ours, _ = models["chatml"]
    with_tools = "{{ tools[0].description }}|" + CHATML
    templates = {"default": CHATML, "tool_use": with_tools}
    vocabularies.HuggingFaceTokenizer(ours.content, ours.eos_id, chat=Chat(templates, {})).save(tmp_path / "vocabulary")
    to = prepared(tmp_path, [GOOD, GOOD | {"tools": [{"description": "ends <|im_end|>"}]}], "--chat")
    store = token_store.TokenStore.open(to, ours.fingerprint)["talk"]
    texts = [ours.decode_written(store.example(number)[0]) for number in range(2)]
    assert texts[1].startswith("ends <\u200b|im_end|>|<|im_start|>system") and texts[1].endswith(texts[0])


def test_prompts_of_a_template_that_end_differently_are_refused(models, tmp_path, capsys):
    """Rows have one token between input and answer for all of a dataset."""
    _, ours, _ = models["chatml"]
    vocabularies.HuggingFaceTokenizer(
        ours.content,
        ours.eos_id,
        chat=Chat({"default": "{% for m in messages %}{{ m.content }}{% endfor %}"}, {}),
    ).save(tmp_path / "vocabulary")
    talks = [{"messages": messages_of([("user", word), ("assistant", "yes")])} for word in ("one", "two")]
    with pytest.raises(SystemExit):
        prepared(tmp_path, talks, "--chat")
    assert "ends with different tokens ('e' and 'o')" in capsys.readouterr().err


def test_another_form_of_the_same_name_is_refused(models, tmp_path, capsys):
    models["chatml"][1].save(tmp_path / "vocabulary")
    prepared(tmp_path, [GOOD])
    with pytest.raises(SystemExit):
        prepared(tmp_path, [GOOD], "--chat")
    assert "in another form (conversations in the plain form; this one is chat template" in capsys.readouterr().err
    to = prepared(tmp_path, [GOOD], "--chat", "--overwrite")
    assert own_data.use(to)[0].vocabulary == models["chatml"][1].fingerprint
