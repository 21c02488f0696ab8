// The Anthropic SDK against the gateway: for apps that speak the Messages API.
import Anthropic from '@anthropic-ai/sdk';
import { assert, check, checkRoute, rejects } from './check.mjs';

const client = new Anthropic({ maxRetries: 0, timeout: 20_000 });
const ask = (model, extra = {}) => ({ model, max_tokens: 200, messages: [{ role: 'user', content: 'Say hello.' }], ...extra });

let served = true;
await checkRoute('message', async () => {
  served = false;
  const { data, response } = await client.messages.create(ask('gpt-4o')).withResponse();
  served = true;
  assert(data.type === 'message' && data.role === 'assistant' && data.content[0].text.includes('simulated'), JSON.stringify(data));
  assert(data.usage.input_tokens > 0 && data.usage.output_tokens > 0 && data.stop_reason === 'end_turn', JSON.stringify(data));
  assert(response.headers.get('x-occam-request-id'), 'no request id');
});

if (served) {
  await check('stream', async () => {
    const stream = client.messages.stream(ask('gpt-4o'));
    let deltas = 0;
    stream.on('text', () => deltas++);
    const final = await stream.finalMessage();
    assert(deltas > 1 && final.content[0].text.includes('simulated') && final.usage.output_tokens > 0, JSON.stringify(final));
  });

  await check('tools', async () => {
    const tools = [{ name: 'find_order', input_schema: { type: 'object', properties: { id: { type: 'string' } }, required: ['id'] } }];
    const done = await client.messages.create(ask('gpt-4o', { tools }));
    const use = done.content.find((block) => block.type === 'tool_use');
    assert(done.stop_reason === 'tool_use' && use.name === 'find_order' && typeof use.input.id === 'string', JSON.stringify(done));
    const after = await client.messages.create(ask('gpt-4o', { tools, messages: [
      { role: 'user', content: 'Say hello.' }, { role: 'assistant', content: done.content },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: 'found' }] }] }));
    assert(after.content[0].text.includes('simulated'), JSON.stringify(after));
  });

  for (const [status, kind] of [[401, Anthropic.AuthenticationError], [429, Anthropic.RateLimitError], [500, Anthropic.InternalServerError]]) {
    await check(`error ${status}`, async () => {
      const error = await rejects(() => client.messages.create(ask(`sim:status=${status}`)), kind);
      assert(error.status === status && error.error?.type === 'error', JSON.stringify(error.error));
    });
  }

  await check('timeout', async () => {
    await rejects(() => client.messages.create(ask('sim:hang'), { timeout: 400 }), Anthropic.APIConnectionTimeoutError);
  });

  await check('a cut stream is an error', async () => {
    await rejects(() => client.messages.stream(ask('sim:reset-mid-body,after=4')).finalMessage(), Anthropic.AnthropicError);
  });
}
