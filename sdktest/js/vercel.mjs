// The Vercel AI SDK against the gateway.
import { createOpenAI } from '@ai-sdk/openai';
import { APICallError, embed, generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';
import { assert, baseURL, categories, check, rejects, Tally, tickets } from './check.mjs';

const openai = createOpenAI({ baseURL, apiKey: 'test-key' });
const Ticket = z.object({ category: z.enum(categories), order_id: z.string().nullable() });
const settings = { prompt: 'Say hello.', maxRetries: 0 };

await check('chat', async () => {
  const { text, usage, finishReason } = await generateText({ model: openai.chat('gpt-4o'), ...settings });
  assert(text.includes('simulated') && usage.outputTokens > 0 && finishReason === 'stop', `${text} ${JSON.stringify(usage)}`);
});

await check('stream', async () => {
  const result = streamText({ model: openai.chat('gpt-4o'), ...settings });
  let text = '';
  for await (const part of result.textStream) text += part;
  const usage = await result.usage;
  assert(text.includes('simulated') && usage.outputTokens > 0, `${text} ${JSON.stringify(usage)}`);
});

await check('structured output', async () => {
  const tally = new Tally();
  for (const t of tickets) {
    const result = await generateText({ model: openai.chat('gpt-4o'), prompt: t.text, maxRetries: 0, output: Output.object({ schema: Ticket }) });
    tally.add(new Headers(result.response.headers), result.output, t);
  }
  tally.verify(tickets.length);
});

await check('structured output, streamed', async () => {
  const result = streamText({ model: openai.chat('gpt-4o'), prompt: tickets[0].text, maxRetries: 0, output: Output.object({ schema: Ticket }) });
  let last;
  for await (const partial of result.partialOutputStream) last = partial;
  assert(categories.includes(last.category), JSON.stringify(last));
});

await check('tools, two steps', async () => {
  let called = 0;
  const { text, steps } = await generateText({
    model: openai.chat('gpt-4o'), ...settings, stopWhen: stepCountIs(3),
    tools: { now: tool({ inputSchema: z.object({ zone: z.string() }), execute: async () => { called++; return '12:00'; } }) },
  });
  assert(called === 1 && steps.length === 2 && text.includes('simulated'), `${called} calls, ${steps.length} steps, ${text}`);
});

await check('tools, streamed', async () => {
  let called = 0;
  const result = streamText({
    model: openai.chat('gpt-4o'), ...settings, stopWhen: stepCountIs(3),
    tools: { now: tool({ inputSchema: z.object({ zone: z.string() }), execute: async ({ zone }) => { called += typeof zone === 'string'; return '12:00'; } }) },
  });
  let text = '';
  for await (const part of result.textStream) text += part;
  assert(called === 1 && (await result.steps).length === 2 && text.includes('simulated'), `${called} calls, ${text}`);
});

for (const status of [401, 429, 500]) {
  await check(`error ${status}`, async () => {
    const error = await rejects(() => generateText({ model: openai.chat(`sim:status=${status}`), ...settings }), APICallError);
    assert(error.statusCode === status && error.isRetryable === (status !== 401), `${error.statusCode} ${error.isRetryable}`);
  });
}

await check('retry after a 503', async () => {
  const { text } = await generateText({ model: openai.chat('sim:status=503,first=1,after=2'), prompt: 'Say hello.', maxRetries: 2 });
  assert(text.includes('simulated'), text);
});

await check('cancelled', async () => {
  await rejects(() => generateText({ model: openai.chat('sim:hang'), ...settings, abortSignal: AbortSignal.timeout(300) }), Error, DOMException);
});

await check('a cut stream is an error', async () => {
  const errors = [];
  const result = streamText({ model: openai.chat('sim:reset-mid-body,after=4'), ...settings, onError: ({ error }) => errors.push(error) });
  for await (const part of result.fullStream) if (part.type === 'error') errors.push(part.error);
  assert(errors.length > 0, 'the stream ended as if it were whole');
});

await check('responses', async () => {
  const { text } = await generateText({ model: openai.responses('gpt-4o'), ...settings });
  assert(text.includes('simulated'), text);
});

await check('responses, streamed', async () => {
  const result = streamText({ model: openai.responses('gpt-4o'), ...settings });
  let text = '';
  for await (const part of result.textStream) text += part;
  assert(text.includes('simulated') && (await result.usage).outputTokens > 0, text);
});

await check('responses, structured output', async () => {
  let right = 0;
  for (const t of tickets.slice(0, 12)) {
    const result = await generateText({ model: openai.responses('gpt-4o'), prompt: t.text, maxRetries: 0, output: Output.object({ schema: Ticket }) });
    if (result.output.category === t.category) right++;
  }
  assert(right >= 10, `${right} of 12 right`);
});

await check('embeddings', async () => {
  const { embedding } = await embed({ model: openai.embedding('text-embedding-3-small'), value: 'a', maxRetries: 0 });
  assert(embedding.length === 1536, `${embedding.length}`);
});

await check('timeout', async () => {
  await rejects(() => generateText({ model: openai.chat('sim:hang,after=1'), ...settings, timeout: 300 }), Error, DOMException);
});

await check('translated: chat at Anthropic', async () => {
  const { text, usage } = await generateText({ model: openai.chat('claude-haiku-4-5'), ...settings });
  assert(text.includes('simulated') && usage.outputTokens > 0, text);
});
