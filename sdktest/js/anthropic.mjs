// The Anthropic SDK against the gateway: for apps that speak the Messages API. Both an OpenAI-compatible provider (translated) and
// Anthropic's own (byte for byte) answer.
import Anthropic from '@anthropic-ai/sdk';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';
import { assert, categories, check, rejects, Tally, tickets } from './check.mjs';

const client = new Anthropic({ maxRetries: 0, timeout: 20_000 });
const ask = (model, extra = {}) => ({ model, max_tokens: 200, messages: [{ role: 'user', content: 'Say hello.' }], ...extra });
const tools = [{ name: 'find_order', input_schema: { type: 'object', properties: { id: { type: 'string' } }, required: ['id'] } }];

for (const model of ['gpt-4o', 'claude-haiku-4-5']) {
  await check(`message, ${model}`, async () => {
    const { data, response } = await client.messages.create(ask(model)).withResponse();
    assert(data.type === 'message' && data.role === 'assistant' && data.content[0].text.includes('simulated'), JSON.stringify(data));
    assert(data.usage.input_tokens > 0 && data.usage.output_tokens > 0 && data.stop_reason === 'end_turn', JSON.stringify(data));
    assert(response.headers.get('x-occam-request-id'), 'no request id');
  });

  await check(`stream, ${model}`, async () => {
    const stream = client.messages.stream(ask(model));
    let deltas = 0;
    stream.on('text', () => deltas++);
    const final = await stream.finalMessage();
    assert(deltas > 1 && final.content[0].text.includes('simulated') && final.usage.output_tokens > 0, JSON.stringify(final));
  });

  await check(`tools, ${model}`, async () => {
    const done = await client.messages.create(ask(model, { tools }));
    const use = done.content.find((block) => block.type === 'tool_use');
    assert(done.stop_reason === 'tool_use' && use.name === 'find_order' && typeof use.input.id === 'string', JSON.stringify(done));
    const after = await client.messages.create(ask(model, { tools, messages: [
      { role: 'user', content: 'Say hello.' }, { role: 'assistant', content: done.content },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: 'found' }] }] }));
    assert(after.content[0].text.includes('simulated'), JSON.stringify(after));
  });

  await check(`tools, streamed, ${model}`, async () => {
    const final = await client.messages.stream(ask(model, { tools })).finalMessage();
    const use = final.content.find((block) => block.type === 'tool_use');
    assert(typeof use.input.id === 'string' && final.stop_reason === 'tool_use', JSON.stringify(final));
  });
}

const Ticket = z.object({ category: z.enum(categories), order_id: z.string().nullable() });
const triage = (model, text) => ({ model, max_tokens: 200, messages: [{ role: 'user', content: text }], output_config: { format: zodOutputFormat(Ticket) } });

await check('structured output, parsed', async () => {
  const tally = new Tally();
  for (const t of tickets) {
    let headers;
    const noted = client.withOptions({ fetch: async (...call) => { const response = await fetch(...call); headers = response.headers; return response; } });
    const done = await noted.messages.parse(triage('gpt-4o', t.text));
    assert(categories.includes(done.parsed_output.category), JSON.stringify(done));
    tally.add(headers, done.parsed_output, t);
  }
  tally.verify(tickets.length);
});

await check('structured output, parsed, from Anthropic', async () => {
  const done = await client.messages.parse(triage('claude-haiku-4-5', 'a free question'));
  assert(categories.includes(done.parsed_output.category), JSON.stringify(done));
});

await check('structured output, streamed and parsed', async () => {
  let right = 0;
  for (const t of tickets.slice(0, 12)) {
    const final = await client.messages.stream(triage('gpt-4o', t.text)).finalMessage();
    if (final.parsed_output.category === t.category) right++;
  }
  assert(right >= 10, `${right} of 12 right`);
});

await check('models', async () => {
  const all = [];
  for await (const model of client.models.list()) all.push(model);
  const claude = all.find((model) => model.id === 'claude-haiku-4-5');
  assert(claude?.type === 'model' && claude.display_name && !Number.isNaN(Date.parse(claude.created_at)), JSON.stringify(all));
  assert(['gpt-4o', 'ticket-triage'].every((id) => all.some((model) => model.id === id)), JSON.stringify(all));
});

for (const [status, kind] of [[400, Anthropic.BadRequestError], [401, Anthropic.AuthenticationError], [403, Anthropic.PermissionDeniedError],
  [404, Anthropic.NotFoundError], [429, Anthropic.RateLimitError], [500, Anthropic.InternalServerError], [503, Anthropic.InternalServerError]]) {
  await check(`error ${status}`, async () => {
    const error = await rejects(() => client.messages.create(ask(`sim:status=${status}`)), kind);
    assert(error.status === status && error.error?.type === 'error' && error.error.error.message, JSON.stringify(error.error));
  });
}

await check('what cannot be translated is refused by name', async () => {
  const error = await rejects(() => client.messages.create(ask('gpt-4o', { top_k: 5 })), Anthropic.BadRequestError);
  assert(error.message.includes("'top_k'"), error.message);
});

await check('retry after a 503', async () => {
  const done = await client.messages.create(ask('sim:status=503,first=1,after=5'), { maxRetries: 2 });
  assert(done.content[0].text, JSON.stringify(done));
});

await check('timeout', async () => {
  await rejects(() => client.messages.create(ask('sim:hang'), { timeout: 400 }), Anthropic.APIConnectionTimeoutError);
});

await check('cancelled', async () => {
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 200);
  await rejects(() => client.messages.create(ask('sim:hang'), { signal: abort.signal }), Anthropic.APIUserAbortError);
});

await check('a cut stream is an error', async () => {
  await rejects(() => client.messages.stream(ask('sim:reset-mid-body,after=4')).finalMessage(), Anthropic.AnthropicError);
});

await check('task, whole and streamed', async () => {
  let local = 0;
  for (const t of tickets.slice(0, 12)) {
    const messages = [{ role: 'user', content: t.text }];
    const { data, response } = await client.messages.create({ model: 'ticket-triage', max_tokens: 200, messages }).withResponse();
    assert(categories.includes(JSON.parse(data.content[0].text).category), JSON.stringify(data));
    if (response.headers.get('x-occam-model').includes('@')) {
      local++;
      assert(data.usage.input_tokens === 0 && data.usage.output_tokens === 0, JSON.stringify(data.usage));
    }
    const final = await client.messages.stream({ model: 'ticket-triage', max_tokens: 200, messages }).finalMessage();
    assert(categories.includes(JSON.parse(final.content[0].text).category), JSON.stringify(final));
  }
  assert(local > 0, 'the specialist answered nothing');
});
