// One line a check on stdout: "ok NAME" or "FAIL NAME: reason". The Go test makes a subtest of each.
import { readFileSync } from 'node:fs';

export const baseURL = process.env.OPENAI_BASE_URL;
export const { categories, tickets } = JSON.parse(readFileSync(process.env.OCCAM_TICKETS, 'utf8'));

export async function check(name, body) {
  try {
    await body();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`FAIL ${name}: ${String(error?.stack ?? error).replaceAll('\n', ' | ')}`);
  }
}

export function assert(condition, what) {
  if (!condition) throw new Error(what);
}

// rejects runs body and returns what it throws, which must be an instance of one of the classes.
export async function rejects(body, ...classes) {
  try {
    await body();
  } catch (error) {
    assert(classes.some((c) => error instanceof c), `threw ${error?.constructor?.name} (${error?.message}), want ${classes.map((c) => c.name)}`);
    return error;
  }
  throw new Error(`did not throw, want ${classes.map((c) => c.name)}`);
}

// Tally counts who answered, by the gateway's own headers, and how many answers are right.
export class Tally {
  local = 0;
  passed = 0;
  right = 0;

  add(headers, answer, truth) {
    if ((headers.get('x-occam-model') ?? '').includes('@')) this.local++;
    else this.passed++;
    if (answer.category === truth.category && answer.order_id === truth.order_id) this.right++;
  }

  // verify: both paths were taken, and nearly every answer is right, whoever gave it.
  verify(n) {
    assert(this.local > 0 && this.passed > 0, `${this.local} answers from the specialist, ${this.passed} from the generalist: want some of both`);
    assert(this.right >= 0.9 * n, `${this.right} of ${n} answers are right`);
  }
}
