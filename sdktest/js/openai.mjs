// The official openai package against the gateway.
import OpenAI, { toFile } from 'openai';
import { zodResponseFormat, zodFunction, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { assert, categories, check, rejects, Tally, tickets } from './check.mjs';

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

await check('embeddings', async () => {
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

await check('cancelled: the gateway goes on', async () => {
  const done = await client.chat.completions.create(ask('gpt-4o'));
  assert(done.choices[0].message.content.includes('simulated'), JSON.stringify(done));
});

for (const model of ['gpt-4o', 'claude-haiku-4-5']) {
  await check(`responses, ${model}`, async () => {
    const { data, response } = await client.responses.create({ model, input: 'Say hello.', store: false }).withResponse();
    assert(data.status === 'completed' && data.output_text.includes('simulated') && data.usage.total_tokens > 0, JSON.stringify(data));
    assert(response.headers.get('x-occam-request-id'), 'no request id');
  });

  await check(`responses, streamed, ${model}`, async () => {
    const stream = client.responses.stream({ model, input: 'Say hello.', store: false });
    let deltas = 0, numbers = [];
    for await (const event of stream) {
      if (event.type === 'response.output_text.delta') deltas++;
      numbers.push(event.sequence_number);
    }
    const final = await stream.finalResponse();
    assert(deltas > 1 && final.output_text.includes('simulated') && final.usage.output_tokens > 0, JSON.stringify(final));
    assert(numbers.every((n, i) => n === i), numbers.join());
  });

  await check(`responses, tools, ${model}`, async () => {
    const tools = [{ type: 'function', name: 'find_order', strict: false, parameters: { type: 'object', properties: { id: { type: 'string' } }, required: ['id'] } }];
    const first = await client.responses.create({ model, input: 'Find it.', tools, store: false });
    const call = first.output.find((item) => item.type === 'function_call');
    assert(typeof JSON.parse(call.arguments).id === 'string', JSON.stringify(first));
    const next = await client.responses.create({ model, tools, store: false, input: [{ role: 'user', content: 'Find it.' }, call,
      { type: 'function_call_output', call_id: call.call_id, output: 'found' }] });
    assert(next.output_text.includes('simulated'), JSON.stringify(next));
  });

  await check(`responses, tools, streamed, ${model}`, async () => {
    const tools = [{ type: 'function', name: 'find_order', strict: false, parameters: { type: 'object', properties: { id: { type: 'string' } }, required: ['id'] } }];
    const final = await client.responses.stream({ model, input: 'Find it.', tools, store: false }).finalResponse();
    assert(JSON.parse(final.output.find((item) => item.type === 'function_call').arguments).id, JSON.stringify(final));
  });
}

await check('responses, structured output, parsed', async () => {
  const tally = new Tally();
  for (const t of tickets) {
    const { data, response } = await client.responses.parse({ model: 'gpt-4o', input: t.text, text: { format: zodTextFormat(Ticket, 'ticket') } }).withResponse();
    tally.add(response.headers, data.output_parsed, t);
  }
  tally.verify(tickets.length);
});

await check('responses, structured output, streamed and parsed', async () => {
  let right = 0;
  for (const t of tickets.slice(0, 12)) {
    const final = await client.responses.stream({ model: 'gpt-4o', input: t.text, text: { format: zodTextFormat(Ticket, 'ticket') } }).finalResponse();
    if (final.output_parsed.category === t.category) right++;
  }
  assert(right >= 10, `${right} of 12 right`);
});

for (const [status, kind] of [[401, OpenAI.AuthenticationError], [429, OpenAI.RateLimitError], [500, OpenAI.InternalServerError]]) {
  await check(`responses, error ${status}`, async () => {
    await rejects(() => client.responses.create({ model: `sim:status=${status}`, input: 'x' }), kind);
  });
}

await check('responses, a cut stream is an error', async () => {
  const stream = await client.responses.create({ model: 'sim:reset-mid-body,after=4', input: 'x', stream: true });
  await rejects(async () => { for await (const _ of stream); }, OpenAI.APIError);
});

await check('translated: chat, stream and tools at Anthropic', async () => {
  const done = await client.chat.completions.create(ask('claude-haiku-4-5'));
  assert(done.choices[0].message.content.includes('simulated') && done.usage.total_tokens > 0, JSON.stringify(done));
  const final = await client.chat.completions.stream(ask('claude-haiku-4-5', { stream_options: { include_usage: true } })).finalChatCompletion();
  assert(final.choices[0].message.content.includes('simulated') && final.usage.completion_tokens > 0, JSON.stringify(final));
  const tool = zodFunction({ name: 'find_order', parameters: z.object({ id: z.string(), fast: z.boolean() }) });
  const called = await client.chat.completions.parse(ask('claude-haiku-4-5', { tools: [tool] }));
  assert(typeof called.choices[0].message.tool_calls[0].function.parsed_arguments.fast === 'boolean', JSON.stringify(called));
  const parsed = await client.chat.completions.parse({ ...triage('a free question'), model: 'claude-haiku-4-5' });
  assert(categories.includes(parsed.choices[0].message.parsed.category), JSON.stringify(parsed));
});

await check('translated: what cannot be is refused by name', async () => {
  const error = await rejects(() => client.chat.completions.create(ask('claude-haiku-4-5', { seed: 7 })), OpenAI.BadRequestError);
  assert(error.param === 'seed', JSON.stringify(error.error));
});

await check('files and batches', async () => {
  const lines = tickets.map((t, i) => ({ custom_id: `t-${i}`, method: 'POST', url: '/v1/chat/completions', body: triage(t.text) }));
  lines.push({ custom_id: 'free', method: 'POST', url: '/v1/chat/completions', body: ask('gpt-4o') });
  lines.push({ custom_id: 'free', method: 'POST', url: '/v1/chat/completions', body: ask('gpt-4o') });
  const file = await client.files.create({ purpose: 'batch', file: await toFile(Buffer.from(lines.map((l) => JSON.stringify(l)).join('\n')), 'backfill.jsonl') });
  assert(file.object === 'file' && (await client.files.retrieve(file.id)).bytes === file.bytes, JSON.stringify(file));
  let batch = await client.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h', metadata: { run: 'js' } });
  for (let i = 0; i < 200 && !['completed', 'failed', 'expired'].includes(batch.status); i++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    batch = await client.batches.retrieve(batch.id);
  }
  assert(batch.status === 'completed' && batch.request_counts.completed === tickets.length + 1 && batch.request_counts.failed === 1, JSON.stringify(batch));
  const results = (await (await client.files.content(batch.output_file_id)).text()).trim().split('\n').map((line) => JSON.parse(line));
  const byID = new Map(results.map((r) => [r.custom_id, r.response]));
  let right = 0, local = 0;
  tickets.forEach((t, i) => {
    const { body, occam } = byID.get(`t-${i}`);
    if (occam.model.includes('@')) local++;
    if (JSON.parse(body.choices[0].message.content).category === t.category) right++;
  });
  assert(local > 0 && local < tickets.length && right >= 0.9 * tickets.length && byID.get('free').status_code === 200, `${local} ${right}`);
  const [fault] = (await (await client.files.content(batch.error_file_id)).text()).trim().split('\n').map((line) => JSON.parse(line));
  assert(fault.error.code === 'duplicate_custom_id', JSON.stringify(fault));
  const listed = [];
  for await (const b of client.batches.list({ limit: 1 })) listed.push(b.id);
  for await (const f of client.files.list()) listed.push(f.id);
  assert(listed.includes(batch.id) && listed.includes(file.id) && listed.includes(batch.output_file_id), listed.join());
  assert((await client.files.delete(file.id)).deleted, 'not deleted');
  await rejects(() => client.files.retrieve(file.id), OpenAI.NotFoundError);
});
