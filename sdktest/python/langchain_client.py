"""LangChain for Python against the gateway."""

import asyncio
from typing import Literal, Optional

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from check import CATEGORIES, TICKETS, check, raises


class Ticket(BaseModel):
    """A support ticket."""

    category: Literal[tuple(CATEGORIES)]
    order_id: Optional[str]


def model(name="gpt-4o", **extra):
    return ChatOpenAI(model=name, max_retries=0, **extra)


@check("invoke")
def _():
    answer = model().invoke("Say hello.")
    assert "simulated" in answer.content and answer.usage_metadata["output_tokens"] > 0, answer


@check("stream")
def _():
    chunks = list(model(stream_usage=True).stream("Say hello."))
    assert "simulated" in "".join(chunk.content for chunk in chunks)
    assert any(chunk.usage_metadata for chunk in chunks), "no usage in the stream"


@check("batch")
def _():
    answers = model().batch(["one", "two", "three", "four"])
    assert len(answers) == 4 and all("simulated" in answer.content for answer in answers)


@check("structured output")
def _():
    triage = model().with_structured_output(Ticket, method="json_schema")
    right = 0
    for ticket in TICKETS:
        answer = triage.invoke(ticket["text"])
        right += answer.category == ticket["category"] and answer.order_id == ticket["order_id"]
    assert right >= 0.9 * len(TICKETS), f"{right} right"


@check("structured output by function calling")
def _():
    answer = model().with_structured_output(Ticket, method="function_calling").invoke(TICKETS[0]["text"])
    assert answer.category in CATEGORIES


@check("tools")
def _():
    @tool
    def now(zone: str) -> str:
        """The time in a zone."""
        return "12:00"

    answer = model().bind_tools([now]).invoke("What time is it?")
    assert answer.tool_calls[0]["name"] == "now" and isinstance(answer.tool_calls[0]["args"]["zone"], str), answer


@check("tools, streamed")
def _():
    @tool
    def now(zone: str) -> str:
        """The time in a zone."""
        return "12:00"

    whole = None
    for chunk in model().bind_tools([now]).stream("What time is it?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["name"] == "now" and isinstance(whole.tool_calls[0]["args"]["zone"], str), whole


@check("structured output, streamed")
def _():
    triage = model().with_structured_output(Ticket, method="json_schema")
    right = 0
    for ticket in TICKETS[:12]:
        *_, last = triage.stream(ticket["text"])
        right += last.category == ticket["category"]
    assert right >= 10, f"{right} of 12 right"


@check("cancelled task")
def _():
    async def run():
        task = asyncio.create_task(model("sim:hang").ainvoke("Say hello."))
        await asyncio.sleep(0.3)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError("was not cancelled")
        assert "simulated" in (await model().ainvoke("Say hello.")).content

    asyncio.run(run())


@check("error 429")
def _():
    raises(openai.RateLimitError, lambda: model("sim:status=429").invoke("Say hello."))


@check("timeout")
def _():
    raises(openai.APITimeoutError, lambda: model("sim:hang", timeout=0.4).invoke("Say hello."))


@check("embeddings")
def _():
    vectors = OpenAIEmbeddings(model="text-embedding-3-small", max_retries=0, check_embedding_ctx_length=False).embed_documents(["a"])
    assert len(vectors[0]) == 1536


@check("responses")
def _():
    answer = model(use_responses_api=True).invoke("Say hello.")
    assert "simulated" in str(answer.content) and answer.usage_metadata["output_tokens"] > 0, answer


@check("responses, streamed")
def _():
    chunks = list(model(use_responses_api=True).stream("Say hello."))
    assert "simulated" in "".join(str(chunk.text) for chunk in chunks), chunks


@check("retry after a 503")
def _():
    answer = ChatOpenAI(model="sim:status=503,first=1,after=8", max_retries=2).invoke("Say hello.")
    assert "simulated" in answer.content, answer


@check("a cut stream is an error")
def _():
    raises(Exception, lambda: list(model("sim:reset-mid-body,after=4").stream("x")))


@check("translated: chat at Anthropic")
def _():
    answer = model("claude-haiku-4-5").invoke("Say hello.")
    assert "simulated" in answer.content and answer.usage_metadata["output_tokens"] > 0, answer
