// The official openai package against the gateway.
import OpenAI from 'openai';
import { zodResponseFormat, zodFunction } from 'openai/helpers/zod';
import { z } from 'zod';
import { assert, categories, check, checkRoute, rejects, Tally, tickets } from './check.mjs';

const client = new OpenAI({ maxRetries: 0, timeout: 20_000 });
const hello = [{ role: 'user', content: 'Say hello.' }];
const ask = (model, extra = {}) => ({ model, messages: hello, ...extra });
const Ticket = z.object({ category: z.enum(categories), order_id: z.string().nullable() });
const triage = (text, extra = {}) => ({
  model: 'gpt-4o',
  messages: [{ role: 'user', content: text }],
  response_format: zodResponseFormat(Ticket, 'ticket'),
  ...extra,
});

await check('chat', async () => {
  const { data, response } = await client.chat.completions.create(ask('gpt-4o')).withResponse();
  assert(data.object === 'chat.completion' && data.choices[0].message.role === 'assistant', JSON.stringify(data));
  assert(data.choices[0].message.content.includes('simulated'), 'the content is not the upstream\'s');
  assert(data.usage.total_tokens === data.usage.prompt_tokens + data.usage.completion_tokens, 'usage does not add up');
  assert(response.headers.get('x-occam-request-id'), 'no request id');
});

await check('stream', async () => {
  const stream = await client.chat.completions.create(ask('gpt-4o', { stream: true, stream_options: { include_usage: true } }));
  let text = '', usage, finish;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  assert(text.includes('simulated') && finish === 'stop' && usage?.completion_tokens > 0, `${text} ${finish} ${JSON.stringify(usage)}`);
});

await check('stream without usage stays without', async () => {
  for await (const chunk of await client.chat.completions.create(ask('gpt-4o', { stream: true }))) {
    assert(!chunk.usage && chunk.choices.length > 0, `the app did not ask for usage and got ${JSON.stringify(chunk)}`);
  }
});

await check('stream helper', async () => {
  const runner = client.chat.completions.stream(ask('gpt-4o'));
  let deltas = 0;
  runner.on('content', () => deltas++);
  const final = await runner.finalChatCompletion();
  assert(deltas > 1 && final.choices[0].message.content.includes('simulated'), JSON.stringify(final));
});

await check('structured output, parsed', async () => {
  const tally = new Tally();
  for (const t of tickets) {
    const { data, response } = await client.chat.completions.parse(triage(t.text)).withResponse();
    assert(categories.includes(data.choices[0].message.parsed.category), JSON.stringify(data.choices[0]));
    assert(data.choices[0].finish_reason === 'stop' && data.usage && data.id && data.created > 0, JSON.stringify(data));
    tally.add(response.headers, data.choices[0].message.parsed, t);
  }
  tally.verify(tickets.length);
});

await check('structured output, streamed and parsed', async () => {
  let right = 0;
  for (const t of tickets.slice(0, 12)) {
    const final = await client.chat.completions.stream(triage(t.text, { stream_options: { include_usage: true } })).finalChatCompletion();
    assert(final.usage, 'no usage in the stream');
    if (final.choices[0].message.parsed.category === t.category) right++;
  }
  assert(right >= 10, `${right} of 12 right`);
});

await check('tools', async () => {
  const tool = zodFunction({ name: 'find_order', parameters: z.object({ id: z.string(), fast: z.boolean() }) });
  const done = await client.chat.completions.parse(ask('gpt-4o', { tools: [tool] }));
  const call = done.choices[0].message.tool_calls[0];
  assert(call.function.name === 'find_order' && typeof call.function.parsed_arguments.fast === 'boolean', JSON.stringify(done));
  assert(done.choices[0].finish_reason === 'tool_calls', done.choices[0].finish_reason);
});

await check('tools, run by the helper', async () => {
  let called = 0;
  const runner = client.chat.completions.runTools(ask('gpt-4o', {
    tools: [{ type: 'function', function: { name: 'now', parameters: { type: 'object', properties: {} }, parse: JSON.parse, function: () => { called++; return '12:00'; } } }],
  }));
  const text = await runner.finalContent();
  assert(called === 1 && text.includes('simulated'), `${called} calls, ${text}`);
});

await check('tools, streamed', async () => {
  const tools = [{ type: 'function', function: { name: 'find_order', parameters: { type: 'object', properties: { id: { type: 'string' } } } } }];
  const final = await client.chat.completions.stream(ask('gpt-4o', { tools })).finalChatCompletion();
  assert(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments).id, JSON.stringify(final));
});

await check('n and logprobs', async () => {
  const done = await client.chat.completions.create(ask('gpt-4o', { n: 3, logprobs: true }));
  assert(done.choices.length === 3 && done.choices[2].index === 2 && done.choices[0].logprobs.content.length > 0, JSON.stringify(done));
});

await check('image part', async () => {
  const content = [{ type: 'text', text: 'What is this?' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=' } }];
  const done = await client.chat.completions.create({ model: 'gpt-4o', messages: [{ role: 'user', content }] });
  assert(done.usage.prompt_tokens > 255, `the image was not passed on: ${JSON.stringify(done.usage)}`);
});

await check('models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert(ids.includes('gpt-4o'), ids.join());
});

await checkRoute('embeddings', async () => {
  const done = await client.embeddings.create({ model: 'text-embedding-3-small', input: ['a', 'b'], dimensions: 16 });
  assert(done.data.length === 2 && done.data[0].embedding.length === 16 && done.usage.prompt_tokens === 2, JSON.stringify(done).slice(0, 200));
});

for (const [status, kind] of [[400, OpenAI.BadRequestError], [401, OpenAI.AuthenticationError], [403, OpenAI.PermissionDeniedError],
  [404, OpenAI.NotFoundError], [409, OpenAI.ConflictError], [422, OpenAI.UnprocessableEntityError], [429, OpenAI.RateLimitError],
  [500, OpenAI.InternalServerError], [503, OpenAI.InternalServerError]]) {
  await check(`error ${status}`, async () => {
    const error = await rejects(() => client.chat.completions.create(ask(`sim:status=${status}`)), kind);
    assert(error.status === status && error.error?.message, `status ${error.status}, ${JSON.stringify(error.error)}`);
  });
}

await check('error before a stream', async () => {
  await rejects(() => client.chat.completions.create(ask('sim:status=429', { stream: true })), OpenAI.RateLimitError);
});

await check('unknown model', async () => {
  const error = await rejects(() => client.chat.completions.create(ask('no-such-model')), OpenAI.NotFoundError);
  assert(error.code === 'model_not_found', error.code);
});

await check('bad request', async () => {
  await rejects(() => client.chat.completions.create({ model: 'gpt-4o', messages: [] }), OpenAI.BadRequestError);
});

await check('retry after a 503', async () => {
  const done = await client.chat.completions.create(ask('sim:status=503,first=1'), { maxRetries: 2 });
  assert(done.choices[0].message.content, JSON.stringify(done));
});

await check('retry after a 429 with Retry-After', async () => {
  const done = await client.chat.completions.create(ask('sim:status=429,retry-after=1,first=1'), { maxRetries: 2 });
  assert(done.choices[0].message.content, JSON.stringify(done));
});

await check('timeout', async () => {
  await rejects(() => client.chat.completions.create(ask('sim:hang'), { timeout: 400 }), OpenAI.APIConnectionTimeoutError);
});

await check('cancelled before the answer', async () => {
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 200);
  await rejects(() => client.chat.completions.create(ask('sim:hang'), { signal: abort.signal }), OpenAI.APIUserAbortError);
});

await check('cancelled in mid stream', async () => {
  const stream = await client.chat.completions.create(ask('sim:stall,after=3', { stream: true }));
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 3) break;
  assert(chunks === 3, `${chunks} chunks`);
});

await check('a cut stream is an error', async () => {
  const stream = await client.chat.completions.create(ask('sim:reset-mid-body,after=4', { stream: true }));
  await rejects(async () => { for await (const _ of stream); }, OpenAI.APIError);
});

await check('task by model name', async () => {
  const t = tickets[0];
  const done = await client.chat.completions.create({ model: 'ticket-triage', messages: [{ role: 'user', content: t.text }] });
  assert(categories.includes(JSON.parse(done.choices[0].message.content).category), JSON.stringify(done));
});
