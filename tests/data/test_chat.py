"""Chat templates, against transformers' own `apply_chat_template`."""

import json

import pytest
import tokenizers

from flan_jax.data import chat
from flan_jax.data.chat import Chat
from flan_jax.errors import FlanError

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
        "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "blocks on lines of their own": """
    {%- for message in messages %}
        {%- if message.role == "assistant" %}
            {% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
        {%- else %}
        [{{ message.role | upper }}] {{ message.content }}
        {% endif %}
        {%- if loop.last %}{% break %}{% endif %}
    {%- endfor %}
    {% if add_generation_prompt %}
>>
    {% endif %}""",
    "json and globals": (
        "{% set ns = namespace(found=false) %}{% for m in messages %}{% if m.tools is defined %}"
        "{% set ns.found = true %}{% endif %}{{ m | tojson }}{{ m.get('reasoning_content', '-') }}{% endfor %}"
        "{{ ns.found }}{{ tools is none }}{{ {'a': '<é>&', 'b': [1]} | tojson(indent=2) }}"
        "{{ strftime_now('%Y') | length }}{{ unknown_name }}{{ dict(a=1) }}"
    ),
    "parts": (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
        "{% if p.type == 'text' %}{{ p.text }}{% else %}<image>{% endif %}{% endfor %}{% endif %}|{% endfor %}"
    ),
}
CONVERSATIONS = {
    "one turn": [{"role": "user", "content": "Is the sky blue?"}],
    "turns": [
        {"role": "user", "content": "  spaces  \n"},
        {"role": "assistant", "content": "Yes.\n\n"},
        {"role": "user", "content": "{{ 7 * 7 }} {% raw %} <|im_end|></s> ﬁ\u2028 😀"},
    ],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "nulls and reasoning": [
        {"role": "user", "content": "Hi", "tools": None, "name": None},
        {"role": "assistant", "content": "Yes", "reasoning": "because"},
    ],
    "parts": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
    "two users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
}


@pytest.fixture(scope="module")
def theirs():
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("how", ["answer", "continued"])
def test_text_is_that_of_transformers(theirs, name, conversation, how):
    messages = CONVERSATIONS[conversation]
    flags = {"add_generation_prompt": how == "answer", "continue_final_message": how == "continued"}
    try:
        expected = theirs.apply_chat_template(messages, chat_template=TEMPLATES[name], tokenize=False, **flags)
    except Exception:
        expected = None  # the template refuses them
    ours = Chat({"default": TEMPLATES[name]}, SPECIAL)
    before = json.dumps(messages)
    if expected is None:
        with pytest.raises(FlanError) as caught:
            ours.render(messages, add_generation_prompt=how == "answer")
        assert "\n" not in str(caught.value)
    else:
        assert ours.render(messages, add_generation_prompt=how == "answer") == expected
    assert json.dumps(messages) == before


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('only users\nmay speak.') }}", "only users may speak"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safe"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{% for i in range(10000000) %}x{% endfor %}", "Range too big"),
        ("{% include 'x' %}", "no loader"),
    ],
)
def test_a_template_that_fails_is_one_line(template, reason):
    with pytest.raises(FlanError, match=reason) as caught:
        Chat({"default": template}).render([{"role": "user", "content": "a"}])
    assert "\n" not in str(caught.value) and "chat template" in str(caught.value)


MORE = {
    "tools": {"tools": [{"type": "function", "function": {"name": "add", "parameters": {"a": "<é>"}}}]},
    "documents": {"documents": [{"title": "a", "text": "b"}]},
    "settings": {"enable_thinking": False},
    "settings with names of arguments here": {"name": "Ada", "answer": 42, "messages_": 1},
    "nothing": {},
}
READS = "{{ tools | tojson }}{{ documents | tojson }}{{ enable_thinking is defined }}{{ messages[0].content }}"
READS += "{{ name }}{{ answer }}"


@pytest.mark.parametrize("more", MORE)
def test_what_stands_beside_messages(theirs, more):
    messages = CONVERSATIONS["one turn"]
    templates = {"default": READS, "tool_use": f"with tools: {READS}"}
    theirs.chat_template = templates
    expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **MORE[more])
    assert Chat(templates).render(messages, **MORE[more]) == expected
    assert expected.startswith("with tools") == (more == "tools")
    of_line = chat.checked_settings({"tools": None} | MORE[more] | {"chat_template_kwargs": {"x": 1}}, "here")
    assert of_line == {k: v for k, v in MORE[more].items() if k in ("tools", "documents")} | {"x": 1}


@pytest.mark.parametrize(
    "values",
    [
        {"tools": {}},
        {"tools": ["add"]},
        {"documents": "a"},
        {"chat_template_kwargs": [1]},
        {"chat_template_kwargs": {"messages": []}},
        {"chat_template_kwargs": {"add_generation_prompt": False}},
    ],
)
def test_settings_that_are_none(values):
    with pytest.raises(FlanError, match='here: "(tools|documents|chat_template_kwargs)" must be'):
        chat.checked_settings(values, "here")


def test_names(tmp_path):
    both = Chat({"default": "a", "tool_use": "b{{ bos_token }}"}, SPECIAL)
    message = [{"role": "user", "content": ""}]
    assert both.render(message) == "a" and both.render(message, "tool_use") == "b<s>"
    with pytest.raises(FlanError, match="unknown chat template 'tool-use': did you mean 'tool_use'"):
        both.render(message, "tool-use")
    with pytest.raises(FlanError, match="several chat templates and no default; name one: rag, tool_use"):
        Chat({"tool_use": "", "rag": ""}).render(message)
    with pytest.raises(FlanError, match="needs a message"):
        both.render([])
    both.save(tmp_path)
    assert chat.templates_in(tmp_path) == dict(both.templates)
    for name in ("../x", "a/b", "a\\b", "/x", "a\0", ""):
        with pytest.raises(FlanError, match="cannot be a file"):
            Chat({name: ""}).save(tmp_path / "deep" / "vocabulary")
    assert not (tmp_path / "deep" / "x.jinja").exists() and not (tmp_path / "x.jinja").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], '"messages" must be a list'),
        ("hi", '"messages" must be a list'),
        (["hi"], '"messages" must be a list'),
        ([{"content": "a"}], '"messages" must be a list'),
        ([{"role": 1, "content": "a"}], '"messages" must be a list'),
        ([{"role": "user", "content": 3}], '"content" of message 0 must be a text'),
        ([{"role": "user", "content": "a"}, {"role": "user"}], '"content" of message 1 must be a text'),
        ([{"role": "user", "content": None}], '"content" of message 0 must be a text'),
    ],
)
def test_messages_that_are_none(values, message):
    with pytest.raises(FlanError, match=f"here: {message}"):
        chat.checked_messages(values, "here")
    good = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": []}]
    assert chat.checked_messages(good, "here") == good
