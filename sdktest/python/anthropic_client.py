"""The Anthropic SDK against the gateway: for apps that speak the Messages API."""

import anthropic
from anthropic import Anthropic

from check import check, raises, route_or_skip

client = Anthropic(max_retries=0, timeout=20)
HELLO = [{"role": "user", "content": "Say hello."}]
served = []


def create(model="gpt-4o", **extra):
    return client.messages.create(model=model, max_tokens=200, messages=HELLO, **extra)


@check("message")
def _():
    done = route_or_skip(create)
    served.append(True)
    assert "simulated" in done.content[0].text and done.usage.output_tokens > 0, done


if served:

    @check("stream")
    def _():
        with client.messages.stream(model="gpt-4o", max_tokens=200, messages=HELLO) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert "simulated" in text and final.usage.output_tokens > 0, final

    for status, kind in [(401, anthropic.AuthenticationError), (429, anthropic.RateLimitError), (500, anthropic.InternalServerError)]:

        @check(f"error {status}")
        def _():
            assert raises(kind, lambda: create(f"sim:status={status}")).status_code == status

    @check("timeout")
    def _():
        raises(anthropic.APITimeoutError, lambda: client.with_options(timeout=0.4).messages.create(model="sim:hang", max_tokens=9, messages=HELLO))
