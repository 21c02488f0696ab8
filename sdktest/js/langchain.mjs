// LangChain for JavaScript against the gateway.
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { tool } from '@langchain/core/tools';
import { z } from 'zod';
import { assert, baseURL, categories, check, rejects, tickets } from './check.mjs';

const model = (name = 'gpt-4o', extra = {}) =>
  new ChatOpenAI({ model: name, apiKey: 'test-key', maxRetries: 0, configuration: { baseURL }, ...extra });
const Ticket = z.object({ category: z.enum(categories), order_id: z.string().nullable() });

await check('invoke', async () => {
  const answer = await model().invoke('Say hello.');
  assert(answer.content.includes('simulated') && answer.usage_metadata.output_tokens > 0, JSON.stringify(answer));
});

await check('stream', async () => {
  let text = '', usage;
  for await (const chunk of await model().stream('Say hello.')) {
    text += chunk.content;
    usage = chunk.usage_metadata ?? usage;
  }
  assert(text.includes('simulated') && usage?.output_tokens > 0, `${text} ${JSON.stringify(usage)}`);
});

await check('batch', async () => {
  const answers = await model().batch(['one', 'two', 'three', 'four']);
  assert(answers.length === 4 && answers.every((a) => a.content.includes('simulated')), JSON.stringify(answers));
});

await check('structured output', async () => {
  const triage = model().withStructuredOutput(Ticket, { name: 'ticket', method: 'jsonSchema' });
  let right = 0;
  for (const t of tickets) {
    const answer = await triage.invoke(t.text);
    if (answer.category === t.category && answer.order_id === t.order_id) right++;
  }
  assert(right >= 0.9 * tickets.length, `${right} of ${tickets.length} right`);
});

await check('structured output by function calling', async () => {
  const triage = model().withStructuredOutput(Ticket, { name: 'ticket', method: 'functionCalling' });
  const answer = await triage.invoke(tickets[0].text);
  assert(categories.includes(answer.category), JSON.stringify(answer));
});

await check('tools', async () => {
  const now = tool(async () => '12:00', { name: 'now', schema: z.object({ zone: z.string() }) });
  const answer = await model().bindTools([now]).invoke('What time is it?');
  assert(answer.tool_calls[0].name === 'now' && typeof answer.tool_calls[0].args.zone === 'string', JSON.stringify(answer));
});

await check('tools, streamed', async () => {
  const now = tool(async () => '12:00', { name: 'now', schema: z.object({ zone: z.string() }) });
  let whole;
  for await (const chunk of await model().bindTools([now]).stream('What time is it?')) whole = whole ? whole.concat(chunk) : chunk;
  assert(whole.tool_calls[0].name === 'now' && typeof whole.tool_calls[0].args.zone === 'string', JSON.stringify(whole));
});

await check('structured output, streamed', async () => {
  const triage = model().withStructuredOutput(Ticket, { name: 'ticket', method: 'jsonSchema' });
  let right = 0;
  for (const t of tickets.slice(0, 12)) {
    let last;
    for await (const partial of await triage.stream(t.text)) last = partial;
    if (last.category === t.category) right++;
  }
  assert(right >= 10, `${right} of 12 right`);
});

await check('error 429', async () => {
  const error = await rejects(() => model('sim:status=429').invoke('Say hello.'), Error);
  assert(error.status === 429, `status ${error.status}: ${error}`);
});

await check('timeout', async () => {
  await rejects(() => model('sim:hang', { timeout: 300 }).invoke('Say hello.'), Error);
});

await check('embeddings', async () => {
  const embeddings = new OpenAIEmbeddings({ model: 'text-embedding-3-small', apiKey: 'test-key', maxRetries: 0, configuration: { baseURL } });
  const [vector] = await embeddings.embedDocuments(['a']);
  assert(vector.length === 1536, `${vector.length}`);
});

await check('responses', async () => {
  const answer = await model('gpt-4o', { useResponsesApi: true }).invoke('Say hello.');
  assert(JSON.stringify(answer.content).includes('simulated') && answer.usage_metadata.output_tokens > 0, JSON.stringify(answer));
});

await check('responses, streamed', async () => {
  let text = '';
  for await (const chunk of await model('gpt-4o', { useResponsesApi: true }).stream('Say hello.')) text += JSON.stringify(chunk.content);
  assert(text.length > 0, 'nothing was streamed');
});

await check('retry after a 503', async () => {
  const answer = await model('sim:status=503,first=1,after=7', { maxRetries: 2 }).invoke('Say hello.');
  assert(answer.content.includes('simulated'), JSON.stringify(answer));
});

await check('cancelled', async () => {
  await rejects(() => model('sim:hang').invoke('Say hello.', { signal: AbortSignal.timeout(300) }), Error, DOMException);
});

await check('a cut stream is an error', async () => {
  await rejects(async () => { for await (const _ of await model('sim:reset-mid-body,after=4').stream('x')); }, Error);
});

await check('translated: chat and tools at Anthropic', async () => {
  const answer = await model('claude-haiku-4-5').invoke('Say hello.');
  assert(answer.content.includes('simulated') && answer.usage_metadata.output_tokens > 0, JSON.stringify(answer));
});
