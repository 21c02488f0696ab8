"""The official openai package against the gateway."""

import json
import time
from typing import Literal, Optional

import openai
from openai import AsyncOpenAI, OpenAI
from openai.types import Decision
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

from check import CATEGORIES, TICKETS, Tally, check, raises
from failures import failures

client = OpenAI(max_retries=0, timeout=20)
HELLO = [{"role": "user", "content": "Say hello."}]


class Ticket(BaseModel):
    category: Literal[tuple(CATEGORIES)]
    order_id: Optional[str]


class FindOrder(BaseModel):
    id: str
    fast: bool


def create(model="gpt-4o", messages=HELLO, **extra):
    return client.chat.completions.create(model=model, messages=messages, **extra)


@check("chat")
def _():
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    done = raw.parse()
    assert "simulated" in done.choices[0].message.content, done
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert raw.headers.get("x-occam-request-id")


@check("stream")
def _():
    text, usage = "", None
    for chunk in create(stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    assert "simulated" in text and usage.completion_tokens > 0, (text, usage)


@check("stream without usage stays without")
def _():
    for chunk in create(stream=True):
        assert chunk.usage is None and chunk.choices, chunk


@check("structured output, parsed")
def _():
    tally = Tally()
    for ticket in TICKETS:
        raw = client.chat.completions.with_raw_response.parse(
            model="gpt-4o", messages=[{"role": "user", "content": ticket["text"]}], response_format=Ticket
        )
        parsed = raw.parse().choices[0].message.parsed
        tally.add(raw.headers, parsed.category, parsed.order_id, ticket)
    tally.verify(len(TICKETS))


@check("structured output, streamed and parsed")
def _():
    right = 0
    for ticket in TICKETS[:12]:
        messages = [{"role": "user", "content": ticket["text"]}]
        with client.chat.completions.stream(model="gpt-4o", messages=messages, response_format=Ticket) as stream:
            deltas = sum(event.type == "content.delta" for event in stream)
            final = stream.get_final_completion()
        assert deltas > 0
        right += final.choices[0].message.parsed.category == ticket["category"]
    assert right >= 10, f"{right} of 12 right"


@check("tools")
def _():
    done = client.chat.completions.parse(
        model="gpt-4o", messages=HELLO, tools=[openai.pydantic_function_tool(FindOrder, name="find_order")]
    )
    call = done.choices[0].message.tool_calls[0]
    assert call.function.name == "find_order" and isinstance(call.function.parsed_arguments, FindOrder), done
    answer = [*HELLO, done.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "found"}]
    after = create(messages=answer, tools=[openai.pydantic_function_tool(FindOrder, name="find_order")])
    assert "simulated" in after.choices[0].message.content, after


@check("tools, streamed")
def _():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}]
    with client.chat.completions.stream(model="gpt-4o", messages=HELLO, tools=tools) as stream:
        stream.until_done()
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments)["x"] > 0


@check("n and logprobs")
def _():
    done = create(n=3, logprobs=True)
    assert len(done.choices) == 3 and done.choices[0].logprobs.content, done


@check("models")
def _():
    assert "gpt-4o" in [model.id for model in client.models.list()]


@check("embeddings")
def _():
    done = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=16)
    assert len(done.data) == 2 and len(done.data[0].embedding) == 16, done


failures(
    openai,
    client,
    AsyncOpenAI,
    ask=lambda client, model: client.chat.completions.create(model=model, messages=HELLO),
    text=lambda done: done.choices[0].message.content,
    stream=lambda model: list(create(model, stream=True)),
    cut=openai.APIError,
)


@check("unknown model")
def _():
    assert raises(openai.NotFoundError, lambda: create("no-such-model")).code == "model_not_found"


@check("bad request")
def _():
    raises(openai.BadRequestError, lambda: create(messages=[]))


@check("closed in mid stream")
def _():
    with create("sim:stall,after=3", stream=True) as stream:
        chunks = [next(iter(stream)) for _ in range(3)]
    assert len(chunks) == 3


@check("task by model name")
def _():
    raw = client.chat.completions.with_raw_response.create(model="ticket-triage", messages=[{"role": "user", "content": TICKETS[0]["text"]}])
    done = ChatCompletion.model_validate(json.loads(raw.text() if callable(raw.text) else raw.text))  # every member that the type demands
    assert json.loads(done.choices[0].message.content)["category"] in CATEGORIES, done


for name in ["gpt-4o", "claude-haiku-4-5"]:

    @check(f"responses, {name}")
    def _():
        done = client.responses.create(model=name, input="Say hello.", store=False)
        assert done.status == "completed" and "simulated" in done.output_text and done.usage.total_tokens > 0, done

    @check(f"responses, streamed, {name}")
    def _():
        with client.responses.stream(model=name, input="Say hello.", store=False) as stream:
            deltas = sum(event.type == "response.output_text.delta" for event in stream)
            final = stream.get_final_response()
        assert deltas > 1 and "simulated" in final.output_text and final.usage.output_tokens > 0, final

    @check(f"responses, tools, {name}")
    def _():
        tools = [{"type": "function", "name": "f", "strict": False, "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}]
        done = client.responses.create(model=name, input="Go.", tools=tools, store=False)
        call = next(item for item in done.output if item.type == "function_call")
        assert json.loads(call.arguments)["x"] > 0, done
        answer = [{"role": "user", "content": "Go."}, call.model_dump(exclude_none=True), {"type": "function_call_output", "call_id": call.call_id, "output": "7"}]
        after = client.responses.create(model=name, input=answer, tools=tools, store=False)
        assert "simulated" in after.output_text, after


@check("responses, structured output, parsed")
def _():
    tally = Tally()
    for ticket in TICKETS:
        raw = client.responses.with_raw_response.parse(model="gpt-4o", input=ticket["text"], text_format=Ticket)
        parsed = raw.parse().output_parsed
        tally.add(raw.headers, parsed.category, parsed.order_id, ticket)
    tally.verify(len(TICKETS))


for status, kind in [(401, openai.AuthenticationError), (429, openai.RateLimitError), (500, openai.InternalServerError)]:

    @check(f"responses, error {status}")
    def _():
        raises(kind, lambda: client.responses.create(model=f"sim:status={status}", input="x"))


@check("translated: chat, stream and tools at Anthropic")
def _():
    done = create("claude-haiku-4-5")
    assert "simulated" in done.choices[0].message.content and done.usage.total_tokens > 0, done
    with client.chat.completions.stream(model="claude-haiku-4-5", messages=HELLO, tools=[openai.pydantic_function_tool(FindOrder, name="find_order")]) as stream:
        stream.until_done()
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert isinstance(call.function.parsed_arguments, FindOrder), call
    assert raises(openai.BadRequestError, lambda: create("claude-haiku-4-5", seed=7)).param == "seed"


@check("files and batches")
def _():
    lines = [
        {"custom_id": f"t-{i}", "method": "POST", "url": "/v1/responses", "body": {"model": "ticket-triage", "input": ticket["text"]}}
        for i, ticket in enumerate(TICKETS)
    ]
    lines.append({**lines[0], "custom_id": "claude", "body": {"model": "claude-haiku-4-5", "input": "Say hello."}})
    content = "\n".join(json.dumps(line) for line in [*lines, {"custom_id": "bad", "method": "GET"}]).encode()
    file = client.files.create(file=("backfill.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    for _ in range(200):
        if batch.status in ("completed", "failed", "expired"):
            break
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed" and batch.request_counts.completed == len(lines) and batch.request_counts.failed == 1, batch
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert {result["custom_id"] for result in results} == {line["custom_id"] for line in lines}
    for result in results:
        answer = Response.model_validate(result["response"]["body"])
        said = answer.output_text
        assert "simulated" in said if result["custom_id"] == "claude" else json.loads(said)["category"] in CATEGORIES, result
    raises(openai.BadRequestError, lambda: client.batches.cancel(batch.id))
    assert batch.id in [one.id for one in client.batches.list()] and file.id in [one.id for one in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    raises(openai.NotFoundError, lambda: client.files.content(file.id))


@check("decisions")
def _():
    answered = 0
    for ticket in TICKETS:
        questions = [
            {"type": "choice", "name": "category", "instructions": "Which is it?", "choices": [{"value": category} for category in CATEGORIES]},
            {"type": "score", "instructions": "How far down the list?", "levels": [{"label": category} for category in CATEGORIES]},
        ]
        try:
            raw = client.decisions.with_raw_response.create(model="decider", input=ticket["text"], questions=questions)
        except openai.NotFoundError:  # the specialist may not answer this one, and the provider makes no decisions
            continue
        decision = Decision.model_validate(json.loads(raw.text() if callable(raw.text) else raw.text))
        choice, score = decision.answers
        assert choice.choice in CATEGORIES and abs(sum(p.probability for p in choice.probabilities) - 1) < 1e-6, decision
        assert 0 <= score.score <= len(CATEGORIES) - 1 and score.probabilities[0].label == CATEGORIES[0], decision
        answered += 1
    assert answered > 0, "the specialist decided nothing"
