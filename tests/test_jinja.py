"""Chat templates of other models: ids equal to those of transformers, nothing injected, hostile templates held."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foretell import jinja, jinja_sandbox
from foretell.chat import Conversation
from foretell.data.tokenizer import Tokenizer, train_tokenizer
from foretell.errors import CheckpointError, ConversationError
from foretell.images import Tiling
from foretell.jinja import JinjaTemplate, find_template, load_template
from foretell.recipe import TokenizerConfig
from foretell.template import CHAT_TEMPLATE, IMAGE, Template
from test_template import png
from tokenizer_families import write_tokenizer

TILING = Tiling(tile=32, patch=8, shuffle=2, grid=2)

# Short ones with the logic of the published.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate, not ' + message['content']) }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token + ' ' }}{% endif %}{% endfor %}"
)
MISTRAL3 = """{%- if messages[0]["role"] == "system" %}{%- set system = messages[0]["content"] %}
{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}
{{- bos_token }}
{%- for message in rest %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system is defined %}{{- "[INST] " + system + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}{{- out[:-1] }}
            {%- if tool_call.id|length != 9 %}{{- raise_exception("IDs have 9 letters") }}{%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}{{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token }}
    {%- else %}{{- '[TOOL_RESULTS] {"content": ' + message.content|string + ', "call_id": "' + message.tool_call_id
        + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}"""
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday Date: " + date_string + "\n\n" }}
{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("Only single tool-calls!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}{{- "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""
_QWEN_CALLS = """
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}
        {%- endfor %}{{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' }}{{- message.content }}{{- '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
QWEN2 = """{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role in ["system", "user"] or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}{%- if message.content %}{{- '\n' + message.content }}{%- endif %}""" + (
    _QWEN_CALLS
)
QWEN3 = (
    """{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not (message.content.startswith('<tool_response>')
        and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role in ["user", "system"] %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}{%- set reasoning = '' %}
        {%- if '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
            {%- set reasoning = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' }}
            {{- content.lstrip('\n') }}
        {%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}"""
    + _QWEN_CALLS
)
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
IDEFICS3 = SMOLVLM.replace("<|im_start|>", "<|begin_of_text|>").replace("message['role'] | capitalize", (
    "message['role'].capitalize()"
))  # fmt: skip
TEMPLATES = {
    "smollm2": ("smollm2", SMOLLM2), "zephyr": ("llama2", ZEPHYR), "mistral": ("llama2", MISTRAL),
    "mistral3": ("mistral", MISTRAL3), "llama3": ("llama3", LLAMA3), "qwen2": ("qwen2", QWEN2),
    "qwen3": ("qwen3", QWEN3), "smolvlm": ("smolvlm", SMOLVLM), "idefics3": ("idefics3", IDEFICS3),
}  # fmt: skip
NOW = datetime(2025, 1, 2)


@cache
def loaded(name: str) -> tuple[JinjaTemplate, Any, Tokenizer]:
    """Ours, transformers' tokenizer, and our tokenizer."""
    from transformers import AutoTokenizer

    family, source = TEMPLATES[name]
    folder = write_tokenizer(Path(mkdtemp()), family, source)
    tokenizer = Tokenizer.load(folder)
    tokens = {k: v for k, v in tokenizer.settings.items() if k.endswith("_token") and v}
    return (
        JinjaTemplate(source, tokenizer, TILING, tokens, lambda: NOW),
        AutoTokenizer.from_pretrained(folder),
        tokenizer,
    )


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox without a process of its own, for tests that render many skeletons."""
    monkeypatch.setattr(jinja, "run_sandbox", jinja_sandbox.answer)


def expected(name: str, raw: list[dict[str, Any]], prompt: bool) -> list[int]:
    """Ids of transformers, from messages with the arguments of tool calls as objects."""
    messages: list[dict[str, Any]] = json.loads(json.dumps(raw))
    for message in messages:
        if name in ("smolvlm", "idefics3"):
            message["content"] = [{"type": "text", "text": message["content"]}]
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    _, theirs, _ = loaded(name)
    found = theirs.apply_chat_template(messages, add_generation_prompt=prompt, date_string="02 Jan 2025")
    return list(found["input_ids"])


def call(**arguments: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": "abc123XYZ", "type": "function", "function": function}


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": "Hello there"}],
    "turns": [
        {"role": "user", "content": "Hi  "}, {"role": "assistant", "content": " Yes,\n\nof course \n"},
        {"role": "user", "content": "\n\nwhy 漢字 é 🙂?\u3000"},
    ],
    "system": [
        {"role": "system", "content": " Be  brief. "}, {"role": "user", "content": "12345"},
        {"role": "assistant", "content": ""}, {"role": "user", "content": " \t\n"},
    ],
    "tools": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call(city='Par"is \n', n=3, deep=[{"a": " \\x "}, None])]},
        {"role": "tool", "tool_call_id": "abc123XYZ", "content": '{"t": "42°"}\n'},
        {"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "thanks"},
    ],
    "more tools": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "Let me see. ", "tool_calls": [call(city="Paris"), call()]},
        {"role": "tool", "tool_call_id": "abc123XYZ", "content": "42"},
        {"role": "tool", "tool_call_id": "abc123XYZ", "content": " 43"}, {"role": "assistant", "content": "Ok"},
    ],
}  # fmt: skip
UNKNOWN = {("zephyr", "tools"), ("zephyr", "more tools"), ("mistral", "system"), ("mistral", "tools"),
           ("mistral", "more tools"), ("llama3", "more tools")}  # fmt: skip


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_equal_those_of_transformers(name: str, conversation: str, request: pytest.FixtureRequest) -> None:
    if conversation != "turns":  # which goes through the process, as in use
        request.getfixturevalue("in_process")
    raw = CONVERSATIONS[conversation]
    ours, _, _ = loaded(name)
    for prompt in (True, False):
        if (name, conversation) in UNKNOWN - {("zephyr", "tools"), ("zephyr", "more tools")}:
            with pytest.raises(ConversationError, match="refuses this conversation"):
                ours.encode(Conversation.from_openai(raw), add_generation_prompt=prompt)
            continue
        wanted = expected(name, raw, prompt)
        for learn in ("none", "assistant", "all"):
            found = ours.encode(Conversation.from_openai(raw), add_generation_prompt=prompt, learn=learn)
            assert found.ids.tolist() == wanted
            assert found.loss.all() == (learn == "all") and len(found.tiles) == 0
            assert found.loss.any() or learn == "none" or conversation in ("one", "system")


harmless = st.text(alphabet=" \n\tab.é'1{", max_size=12)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["zephyr", "mistral", "mistral3", "llama3", "qwen3", "idefics3"])
def test_white_space_is_kept_or_trimmed_as_in_transformers(name: str) -> None:
    @given(st.lists(harmless, min_size=3, max_size=3))
    @settings(max_examples=60)
    def check(texts: list[str]) -> None:
        roles = ("user", "assistant", "user")
        raw = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        found = loaded(name)[0].encode(Conversation.from_openai(raw), add_generation_prompt=True)
        assert found.ids.tolist() == expected(name, raw, True)

    check()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_message_makes_a_control_token(name: str) -> None:
    """Whatever texts, names and arguments spell, the control tokens are those of harmless ones."""
    ours, _, tokenizer = loaded(name)
    controls = {*tokenizer.controls.values()}
    spelled = [token.content for token in tokenizer.added] + [
        "<",
        "<|",
        "|>",
        "[",
        "{{ bos_token }}",
        "\ufdd0",
        "\ufdd2",
    ]
    spelled += [
        "\ufdd00\ufdd2",
        "\ufdd10\ufdd2",
        "\ufdd5",
        "</think>",
        "<think>",
        "\n",
        " ",
        '"',
        "\\",
        "'",
        "a",
        "im_end",
    ]
    hostile = st.lists(st.sampled_from(spelled), min_size=1, max_size=5).map("".join)
    # White space and reasoning are the template's business; its tests see them, so they are not varied.
    kept = hostile.filter(lambda text: text.strip() and "think>" not in text)
    tools = name in ("qwen2", "qwen3", "mistral3", "llama3")

    def build(texts: list[str], key: str) -> Conversation:
        raw: list[dict[str, Any]] = [
            {"role": "user", "content": texts[0]},
            {"role": "assistant", "content": texts[1]},
            {"role": "user", "content": texts[2]},
        ]
        if tools:
            function = {"name": "get_weather", "arguments": json.dumps({key: texts[3], "b": [texts[4]]})}
            calls = [{"id": "abc123XYZ", "type": "function", "function": function}]
            raw += [{"role": "assistant", "content": "x", "tool_calls": calls}]
            raw += [{"role": "tool", "tool_call_id": "abc123XYZ", "content": texts[5]}]
        return Conversation.from_openai(raw)

    def found(conversation: Conversation) -> list[int]:
        ids = ours.encode(conversation, add_generation_prompt=True, learn="none").ids.tolist()
        return [i for i in ids if i in controls]

    plain = found(build(["x"] * 6, "a"))

    @given(st.lists(kept, min_size=6, max_size=6), hostile)
    @settings(max_examples=70)
    def check(texts: list[str], key: str) -> None:
        assert found(build(texts, key)) == plain

    check()


@pytest.mark.usefixtures("in_process")
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "\n", "x", "<tool_response>", "</tool_response>", " y"]), max_size=8
    )
)
def test_reasoning_in_a_message_makes_no_control_token_and_is_stripped_as_in_transformers(parts: list[str]) -> None:
    ours, theirs, tokenizer = loaded("qwen3")
    text = "".join(parts)
    raw = [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}, {"role": "user", "content": text}]
    for messages in (raw, raw[:2]):
        found = ours.encode(Conversation.from_openai(messages)).ids.tolist()
        assert tokenizer.decode(found, skip_special=False) == theirs.apply_chat_template(messages, tokenize=False)
        think = [i for i in found if i in (tokenizer.special("<think>"), tokenizer.special("</think>"))]
        assert len(think) == (2 if messages is not raw and "<|im_start|>assistant\n<think>\n" in (
            theirs.apply_chat_template(messages, tokenize=False)) else 0) or not text  # fmt: skip


def learned(name: str, raw: list[dict[str, Any]]) -> str:
    ours, _, tokenizer = loaded(name)
    found = ours.encode(Conversation.from_openai(raw))
    return tokenizer.decode(found.ids[found.loss], skip_special=False)


def test_the_assistant_and_its_end_token_are_learned() -> None:
    turns, tools = CONVERSATIONS["turns"], CONVERSATIONS["more tools"]
    assert learned("smollm2", turns) == "Yes,\n\nof course \n<|im_end|>"
    assert learned("llama3", turns) == "Yes,\n\nof course<|eot_id|>"
    assert learned("mistral", turns) == "Yes,\n\nof course \n</s>"
    calls = '{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>\n'
    calls = f'<tool_call>\n{calls}{{"name": "get_weather", "arguments": {{}}}}\n</tool_call><|im_end|>'
    assert learned("qwen2", tools) == f"Let me see. \n{calls}Ok<|im_end|>"
    only = [*tools[:1], {**tools[1], "content": ""}, *tools[2:]]
    assert learned("qwen2", only) == f"{calls}Ok<|im_end|>"
    assert learned("llama3", CONVERSATIONS["tools"]).startswith('{"name": "get_weather", "parameters": {"city": "Par')
    assert learned("smolvlm", [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]) == (
        "y<end_of_utterance>"
    )


def test_a_generation_block_is_what_is_learned() -> None:
    text = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    )
    _, theirs, tokenizer = loaded("smollm2")
    ours = JinjaTemplate(text, tokenizer, None)
    raw = CONVERSATIONS["turns"]
    found = theirs.apply_chat_template(raw, chat_template=text, return_assistant_tokens_mask=True, return_dict=True)
    encoded = ours.encode(Conversation.from_openai(raw))
    assert encoded.ids.tolist() == found["input_ids"]
    assert encoded.loss.astype(int).tolist() == found["assistant_masks"]


@pytest.mark.parametrize("name", ["smolvlm", "idefics3"])
@pytest.mark.parametrize("grid", [1, 2])
def test_images_equal_those_of_the_processor(name: str, grid: int) -> None:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

    template, theirs, tokenizer = loaded(name)
    tiling = Tiling(32, 8, 2, grid)
    ours = JinjaTemplate(template.text, tokenizer, tiling)
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": grid * 32}, max_image_size={"longest_edge": 32},
                                  do_rescale=False, do_normalize=False, do_pad=False),
        theirs, image_seq_len=tiling.tokens_per_tile, chat_template=template.text,
    )  # fmt: skip
    picture = png(30, 70)
    data = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_base64(picture)}"}}
    content: list[dict[str, Any]] = [
        {"type": "text", "text": "what is in "},
        data,
        {"type": "text", "text": "\n? "},
        data,
    ]
    raw = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": "a row of <row_1_col_1>"}]},
        {"role": "user", "content": [data]},
    ]
    text = processor.apply_chat_template(
        [{**m, "content": [{"type": "image"} if p is data else p for p in m["content"]]} for m in raw],
        add_generation_prompt=True,
    ).replace("<row_1_col_1>", "it")
    raw[1]["content"][0]["text"] = "a row of it"
    wanted = processor(text=text, images=[[Image.open(BytesIO(picture))] * 3], add_special_tokens=False)
    encoded = ours.encode(Conversation.from_openai(raw), add_generation_prompt=True)
    assert encoded.ids.tolist() == list(wanted["input_ids"][0])
    assert len(encoded.tiles) == 3 * (1 if grid == 1 else 3)
    slots = int((encoded.ids == tokenizer.special(IMAGE)).sum())
    assert slots == len(encoded.tiles) * tiling.tokens_per_tile


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def test_images_that_are_dropped_repeated_or_not_seen_are_told() -> None:
    template, _, tokenizer = loaded("smolvlm")
    conversation = Conversation.from_openai([{"role": "user", "content": ["look", png()]}])
    for text in ("{{ messages[0].content[0].text }}", template.text + template.text, template.text + "<image>"):
        with pytest.raises(ConversationError, match=r"wrote \d images for the 1"):
            JinjaTemplate(text, tokenizer, TILING).encode(conversation)
    with pytest.raises(ConversationError, match="reads text only"):
        JinjaTemplate(template.text, tokenizer, None).encode(conversation)
    with pytest.raises(ConversationError, match="cannot write this conversation"):
        JinjaTemplate(SMOLLM2, tokenizer, TILING).encode(conversation)


def test_what_a_template_refuses_is_told_in_its_words_but_not_the_messages() -> None:
    raw = [{"role": "system", "content": "secret"}, {"role": "user", "content": "b"}]
    with pytest.raises(ConversationError, match=r"refuses this conversation: Roles must alternate, not …$"):
        loaded("mistral")[0].encode(Conversation.from_openai(raw))
    with pytest.raises(ConversationError, match="no message"):
        loaded("mistral")[0].encode(Conversation(()))


def test_ids_and_names_that_could_be_part_of_a_control_token_are_hidden() -> None:
    tokenizer = loaded("qwen3")[2]
    text = "{% for m in messages %}{{ '<' + (m.name or '') + '>' + m.content }}{% endfor %}"
    for name in ("think", "tool_call", "hink", "k>", "a b", "x"):
        found = JinjaTemplate(text, tokenizer, None).encode(
            Conversation.from_openai([{"role": "user", "content": "c", "name": name}])
        )
        assert not {*found.ids.tolist()} & {*tokenizer.controls.values()}
        assert tokenizer.decode(found.ids) == f"<{name}>c"


def test_lone_surrogates_in_messages_are_replaced() -> None:
    ours, _, tokenizer = loaded("qwen2")
    calls = [call(city="a\ud800") | {"id": "\udfff"}]
    raw = [{"role": "user", "content": "\ud83d\ude42\udfff"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    text = tokenizer.decode(ours.encode(Conversation.from_openai(raw)).ids)
    assert "user\n🙂\ufffd\n" in text and '"a\ufffd"' in text


def test_a_template_finds_the_words_it_looks_for() -> None:
    tokenizer = loaded("smollm2")[2]
    for test in ("'/quiet' in text", "text.endswith('/quiet')", "'/loud' not in text", "0 or '/quiet' in text"):
        source = f"{{% set text = messages[0].content %}}{{{{ 'yes' if {test} else 'no' }}}} {{{{ text }}}}"
        template = JinjaTemplate(source, tokenizer, None)
        encoded = template.encode(Conversation.from_openai([{"role": "user", "content": "hush /quiet"}]))
        assert tokenizer.decode(encoded.ids.tolist()) == "yes hush /quiet", test


def test_a_template_that_takes_texts_apart_is_told() -> None:
    tokenizer = loaded("smollm2")[2]
    for text in ("{{ messages[0].content[1:] }}", "{{ messages }}", "{{ '%c7%c' % (64976, 64978) }}"):
        with pytest.raises((CheckpointError, ConversationError), match=r"takes the texts|measures what messages say"):
            JinjaTemplate(text, tokenizer, None).encode(Conversation.from_openai([{"role": "user", "content": "abc"}]))
    with pytest.raises(CheckpointError, match="noncharacters"):
        JinjaTemplate("\ufdd00\ufdd2", tokenizer, None)


ANSWERED = (
    "c == 'hello'", "c != 'hello'", "c in ['hello', 'ab']", "c is eq 'hello'", "c is in ['x', 'hello']",
    "messages | selectattr('content', 'equalto', 'hello') | list | length", "'ab' in c", "'abc' in c and 'bc' in c",
    "'bcd' in c", "c.split('bcd')", "c.split('abc') | length", "c | length > 0", "c | length == 0", "not c | length",
    "0 < c | length", "c.count('bcd')", "c.replace('hello', 'x')", "c | replace('bcd', c)", "c.removeprefix('abc')",
    "c.partition('ello')[2]", "('<' ~ c ~ '>')[1:-1]", "(c | tojson)[1:-1]", "{'hello': 1}[c]", "c == d", "c in [d]",
    "c.rstrip('\n')", "'%s!' % c", "'{} {}'.format(c, d)", "[c, d] | join('-')", "'' == c.strip()", "c is string",
    "c | tojson | tojson", "{c: 1}['hello']", "[c] == [d]",
    "'0' in c", "'.' in c", "c.startswith(('abc', 'hello'))",
)  # fmt: skip
REFUSED = (
    "c < 'hello'", "c | length > 3", "c | length", "c | length + 1", "c | wordcount", "c | upper", "c.title()", "c[:3]",
    "c[0]", "c | truncate(3)", "c.strip('h')", "c | trim('h')", "c.splitlines()", "c.split()", "c | indent", "k in c",
    "'wo' ~ 'r' in c", "c | urlencode", "c | e", "'%.2s' % c", "'{:.2}'.format(c)", "c | list", "'-'.join(c)", "c in d",
    "c in 'hello there'", "[c, d] | sort", "messages | map(attribute='content') | unique | list", "c | int",
    "'<h' in '<' ~ c", "c ~ d == 'hello hello'", "c is lower", "[c, d] | max", "c | reverse", "c * 2 == k",
    "c | tojson == '\"hello\"'", "'ello' in c | tojson", "'a' ~ c == 'ahello'", "{c: 1}.get('hello')",
)  # fmt: skip


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("expression", [*ANSWERED, *REFUSED])
def test_what_a_template_asks_about_texts_is_answered_rightly_or_refused(expression: str) -> None:
    _, theirs, tokenizer = loaded("smollm2")
    source = "{% set k = 'wor' %}{% set c = messages[0].content %}{% set d = messages[1].content %}{% for i in [1] %}"
    listed = "found is iterable and found is defined and found is not string"
    source += f"{{% set found = {expression} %}}{{{{ found | tojson if {listed} else found }}}}{{% endfor %}}"
    ours, refused = JinjaTemplate(source, tokenizer, None), 0
    for text in ("hello", "hello there", " hello\n", "abcd", "xabcdbc", "Straße & Co.\nA word 0", "ab", "", "h"):
        raw = [{"role": "user", "content": text}, {"role": "assistant", "content": "hello"}]
        try:
            found = tokenizer.decode(ours.encode(Conversation.from_openai(raw)).ids)
            assert found == theirs.apply_chat_template(raw, chat_template=source, tokenize=False), text
        except CheckpointError as error:
            assert "it changes or measures what messages say" in str(error)
            refused += 1
    assert bool(refused) == (expression in REFUSED)


@pytest.mark.usefixtures("in_process")
def test_letters_are_not_looped_over_nor_escaped() -> None:
    for text in ("{% for i in c %}{{ i }}{% endfor %}", "{% autoescape true %}{{ c }}{% endautoescape %}"):
        template = JinjaTemplate("{% set c = messages[0].content %}" + text, loaded("smollm2")[2], None)
        with pytest.raises(CheckpointError, match="what messages say"):
            template.encode(Conversation.from_openai([{"role": "user", "content": "a & b"}]))


BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "output": "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "long string": "{{ 'x' * 10 ** 9 }}",
    "longer string": "{{ 'x' * 10 ** 19 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "range": "{{ range(10 ** 9) | list }}",
    "center": "{{ 'x' | center(10 ** 9) }}",
    "format": "{{ '%999999999d' % 1 }}",
    "format method": "{{ '{:>999999999}'.format(1) }}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "doubling": "{% set n = namespace(x='x') %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "nesting": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep blocks": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "lipsum": "{{ lipsum(n=10 ** 7) }}",
    "tojson": "{{ [0] * 10 ** 8 | tojson }}",
    "class": "{{ ''.__class__.__mro__ }}",
    "format class": "{{ '{0.__class__.__mro__}'.format('') }}",
    "attr filter": "{{ ('' | attr('__class__')).__mro__ }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "raise_exception": "{{ raise_exception.__globals__['__builtins__'] }}",
    "namespace": "{% set n = namespace(__class__=1) %}{{ n }}",
    "namespace set": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "append": "{{ messages.append(1) }}",
    "pop": "{{ messages.pop() }}",
    "update": "{{ messages[0].update(role='system') }}",
    "syntax": "{% for %}",
    "unknown tag": "{% include 'x' %}{% import 'os' as os %}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_template_bombs_and_escapes_end_in_an_error(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja, "PROCESSOR_SECONDS", 1)
    template = JinjaTemplate(BOMBS[bomb], loaded("smollm2")[2], None)
    with pytest.raises((CheckpointError, ConversationError), match="chat template"):
        template.encode(Conversation.from_openai([{"role": "user", "content": "abc"}]))


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("{{ messages[0].content" + " | tojson" * 14 + " }}", '"'),
        ("{% set j = '%c' % 64979 * 14 %}{{ '%c0%s%c' % (64976, j, 64978) }}{{ messages[0].content }}", '"'),
        ("{{ '%c' % 64976 }}{{ '9' * 5000 }}{{ '%c' % 64978 }}", '"'),
        ("{% for a in range(2000) %}{{ messages[0].content }}{% endfor %}", "x " * 1000),
        ("".join(f"{{% if '{i}' in messages[0].content %}}{{% endif %}}" for i in range(1200)), "abc"),
    ],
    ids=["escapes", "forged escapes", "forged number", "repeats", "literals"],
)
def test_no_template_swells_a_text_where_the_sandbox_does_not_see_it(text: str, content: str) -> None:
    template = JinjaTemplate(text, loaded("smollm2")[2], None)
    with pytest.raises((CheckpointError, ConversationError), match="chat template"):
        template.encode(Conversation.from_openai([{"role": "user", "content": content}]))


def test_the_sandbox_can_open_nothing_and_start_nothing() -> None:
    code = (
        "import os, socket, sys; from foretell import jinja_sandbox as s; s.warm(); s.limit(1)\n"
        "for act in (lambda: open(sys.executable), lambda: open('x', 'w'), socket.socket, os.pipe):\n"
        "    try: act(); print('done')\n"
        "    except OSError as error: print(error.errno)\n"
        "try: bytearray(1 << 30); print('done')\n"
        "except MemoryError: print('memory')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=mkdtemp())
    assert out.stdout.split() == ["24", "24", "24", "24", "memory"]


def test_a_template_is_run_once_for_each_shape_and_day(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[dict[str, Any]] = []

    def counted(job: dict[str, Any]) -> dict[str, Any]:
        jobs.append(job)
        return jinja_sandbox.answer(job)

    monkeypatch.setattr(jinja, "run_sandbox", counted)
    days = [datetime(2025, 1, 2, 3), datetime(2025, 1, 2, 5), datetime(2025, 1, 3)]
    tokenizer = loaded("llama3")[2]
    template = JinjaTemplate(LLAMA3, tokenizer, None, {"bos_token": "<|begin_of_text|>"}, lambda: days[0])
    first = [Conversation.from_openai([{"role": "user", "content": text}]) for text in ("a", "wvw", "<|eot_id|>")]
    ids = [template.encode(conversation, learn="none").ids for conversation in first]
    assert len(jobs) == 2 and "wvw" not in json.dumps(jobs), "one to describe the template, one for the shape"
    while len(days) > 1:
        days.pop(0)
        template.encode(Conversation.from_openai([{"role": "user", "content": "e"}]), learn="none")
    assert len(jobs) == 3, "another day"
    assert "02 Jan 2025" in tokenizer.decode(ids[0])


def test_threads_share_one_template() -> None:
    ours, _, tokenizer = loaded("qwen2")
    fresh = JinjaTemplate(ours.text, tokenizer, None)
    conversations = [Conversation.from_openai(raw) for raw in CONVERSATIONS.values()]
    found: list[list[list[int]]] = []

    def work() -> None:
        found.append([fresh.encode(one).ids.tolist() for one in conversations])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[ours.encode(one).ids.tolist() for one in conversations]] * 3


NAMED = [{"name": name, "template": name} for name in ("rag", "default")]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, None),
        ({"tokenizer_config.json": {}}, None),
        ({"tokenizer_config.json": {"chat_template": "a"}}, "a"),
        ({"tokenizer_config.json": {"chat_template": NAMED}}, "default"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "tool_use", "template": "t"}]}}, "t"),
        ({"tokenizer_config.json": {"chat_template": [{"name": [], "template": "t"}]}}, "t"),
        ({"tokenizer_config.json": {"chat_template": {"x": "a", "y": "b"}}}, None),
        ({"tokenizer_config.json": {"chat_template": "a"}, "chat_template.json": {"chat_template": "b"}}, "b"),
        ({"chat_template.json": {"chat_template": "b"}, "chat_template.jinja": "c"}, "c"),
    ],
)  # fmt: skip
def test_a_template_is_found_where_transformers_keeps_it(tmp_path: Path, files: dict[str, Any], wanted: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert find_template(tmp_path) == wanted


def test_damaged_template_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="cannot be read"):
        find_template(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"x" * 5_000_000)
    with pytest.raises(CheckpointError, match="larger than any"):
        find_template(tmp_path)


def test_models_trained_here_keep_their_own_template(tmp_path: Path) -> None:
    ours = train_tokenizer(iter(["the cat sat on the mat " * 9]), TokenizerConfig(vocab_size=320), 1)
    ours.save(tmp_path)
    assert isinstance(load_template(tmp_path, ours, TILING), Template)
    other = Tokenizer.load(write_tokenizer(tmp_path / "other", "smollm2", CHAT_TEMPLATE))
    template = load_template(tmp_path / "other", other, None)
    assert isinstance(template, JinjaTemplate) and template.text == CHAT_TEMPLATE
    assert load_template(write_tokenizer(tmp_path / "base", "smollm2"), other, None) is None


@pytest.mark.usefixtures("in_process")
def test_our_own_template_gives_the_same_ids_as_jinja() -> None:
    tokenizer = train_tokenizer(iter(["the cat sat on the mat " * 9]), TokenizerConfig(vocab_size=320), 1)
    for raw in CONVERSATIONS.values():
        conversation = Conversation.from_openai(raw)
        if any(message.tool_calls for message in conversation.messages):
            continue  # our text keeps a call's arguments as the model wrote them
        encoders: list[Callable[..., Any]] = [t(tokenizer, None).encode for t in (Template, _ours)]
        one, two = (encode(conversation, add_generation_prompt=True, learn="none") for encode in encoders)
        assert one.ids.tolist() == two.ids.tolist()


def _ours(tokenizer: Tokenizer, tiling: Tiling | None) -> JinjaTemplate:
    return JinjaTemplate(CHAT_TEMPLATE, tokenizer, tiling)
