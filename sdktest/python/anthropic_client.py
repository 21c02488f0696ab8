"""The Anthropic SDK against the gateway: for apps that speak the Messages API. Both an OpenAI-compatible provider (translated) and
Anthropic's own (byte for byte) answer."""

import json
from datetime import datetime
from typing import Literal, Optional

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message, ModelInfo
from pydantic import BaseModel

from check import CATEGORIES, TICKETS, Tally, check, raises
from failures import failures

client = Anthropic(max_retries=0, timeout=20)
HELLO = [{"role": "user", "content": "Say hello."}]
TOOLS = [{"name": "find_order", "input_schema": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}}]


def create(model="gpt-4o", messages=HELLO, **extra):
    return client.messages.create(model=model, max_tokens=200, messages=messages, **extra)


for name in ["gpt-4o", "claude-haiku-4-5"]:

    @check(f"message, {name}")
    def _():
        done = create(name)
        assert "simulated" in done.content[0].text and done.usage.output_tokens > 0 and done.stop_reason == "end_turn", done

    @check(f"stream, {name}")
    def _():
        with client.messages.stream(model=name, max_tokens=200, messages=HELLO) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert "simulated" in text and final.usage.output_tokens > 0, final

    @check(f"tools, {name}")
    def _():
        done = create(name, tools=TOOLS)
        use = next(block for block in done.content if block.type == "tool_use")
        assert done.stop_reason == "tool_use" and isinstance(use.input["id"], str), done
        answer = [*HELLO, {"role": "assistant", "content": done.content}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "found"}]}]
        assert "simulated" in create(name, answer, tools=TOOLS).content[0].text

    @check(f"tools, streamed, {name}")
    def _():
        with client.messages.stream(model=name, max_tokens=200, messages=HELLO, tools=TOOLS) as stream:
            final = stream.get_final_message()
        assert any(block.type == "tool_use" and isinstance(block.input["id"], str) for block in final.content), final


class Ticket(BaseModel):
    category: Literal[tuple(CATEGORIES)]
    order_id: Optional[str]


@check("structured output, parsed")
def _():
    tally = Tally()
    for ticket in TICKETS:
        messages = [{"role": "user", "content": ticket["text"]}]
        raw = client.messages.with_raw_response.create(
            model="gpt-4o", max_tokens=200, messages=messages, output_config={"format": {"type": "json_schema", "schema": anthropic.transform_schema(Ticket)}}
        )
        parsed = client.messages.parse(model="gpt-4o", max_tokens=200, messages=messages, output_format=Ticket).parsed_output
        tally.add(raw.headers, parsed.category, parsed.order_id, ticket)
    tally.verify(len(TICKETS))


@check("structured output, parsed, from Anthropic")
def _():
    done = client.messages.parse(model="claude-haiku-4-5", max_tokens=200, messages=HELLO, output_format=Ticket)
    assert done.parsed_output.category in CATEGORIES, done


@check("structured output, streamed and parsed")
def _():
    right = 0
    for ticket in TICKETS[:12]:
        messages = [{"role": "user", "content": ticket["text"]}]
        with client.messages.stream(model="gpt-4o", max_tokens=200, messages=messages, output_format=Ticket) as stream:
            right += stream.get_final_message().parsed_output.category == ticket["category"]
    assert right >= 10, f"{right} of 12 right"


@check("models")
def _():
    found = {model.id: ModelInfo.model_validate(model.model_dump()) for model in client.models.list()}  # every member that the type demands
    assert {"gpt-4o", "claude-haiku-4-5", "ticket-triage"} <= set(found), found
    assert isinstance(found["gpt-4o"].created_at, datetime), found


def read(model):
    with client.messages.stream(model=model, max_tokens=200, messages=HELLO) as stream:
        return stream.get_final_message()


failures(
    anthropic,
    client,
    AsyncAnthropic,
    ask=lambda client, model: client.messages.create(model=model, max_tokens=200, messages=HELLO),
    text=lambda done: done.content[0].text,
    stream=read,
)


@check("what cannot be translated is refused by name")
def _():
    assert "'top_k'" in str(raises(anthropic.BadRequestError, lambda: create(extra_body={"top_k": 5})))


@check("task, whole and streamed")
def _():
    for ticket in TICKETS[:6]:
        messages = [{"role": "user", "content": ticket["text"]}]
        raw = client.messages.with_raw_response.create(model="ticket-triage", max_tokens=200, messages=messages)
        done = Message.model_validate(json.loads(raw.text() if callable(raw.text) else raw.text))  # every member that the type demands
        assert json.loads(done.content[0].text)["category"] in CATEGORIES
        with client.messages.stream(model="ticket-triage", max_tokens=200, messages=messages) as stream:
            assert json.loads(stream.get_final_message().content[0].text)["category"] in CATEGORIES
