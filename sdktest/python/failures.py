"""What the official packages do when a provider fails. Their exceptions have the same names."""

import asyncio

from check import check, raises


def failures(package, client, asynchronous, ask, text, stream, cut=Exception):
    """Adds the checks. ask(client, model) asks for one answer, text(answer) is what it says, stream(model) reads a stream to its end and
    raises cut where there is none."""
    for status, kind in {
        400: package.BadRequestError,
        401: package.AuthenticationError,
        403: package.PermissionDeniedError,
        404: package.NotFoundError,
        409: package.ConflictError,
        422: package.UnprocessableEntityError,
        429: package.RateLimitError,
        500: package.InternalServerError,
        503: package.InternalServerError,
    }.items():

        @check(f"error {status}")
        def _():
            error = raises(kind, lambda: ask(client, f"sim:status={status}"))
            assert error.status_code == status and "message" in str(error.body), (error.status_code, error.body)

    @check("retry after a 503")
    def _():
        assert text(ask(client.with_options(max_retries=2), f"sim:status=503,first=1,after={len(package.__name__)}"))

    @check("timeout")
    def _():
        raises(package.APITimeoutError, lambda: ask(client.with_options(timeout=0.4), "sim:hang"))

    @check("a cut stream is an error")
    def _():
        raises(cut, lambda: stream("sim:reset-mid-body,after=4"))

    @check("cancelled task, asynchronous client")
    def _():
        async def run():
            async with asynchronous(max_retries=0) as patient:
                task = asyncio.create_task(ask(patient, "sim:hang"))
                await asyncio.sleep(0.2)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    pass
                assert text(await ask(patient, "gpt-4o"))

        asyncio.run(run())
