/** Stand-in for `@std/assert` over Node's own. Stricter in one point: 0 and -0 are not equal. @module */
import nodeAssert from "node:assert/strict";

/** What a failed assertion throws. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

// deno-lint-ignore no-explicit-any -- any class will do
type Class<T> = abstract new (...args: any[]) => T;

function fail(what: string, message?: string): never {
  throw new AssertionError(message === undefined ? what : `${message}: ${what}`);
}

/** Asserts that a value is truthy. */
export function assert(value: unknown, message = "expected a truthy value"): asserts value {
  if (!value) fail(message);
}

/** Asserts that two values have equal structure, NaN included; the error shows their difference. */
export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  try {
    nodeAssert.deepStrictEqual(actual, expected);
  } catch (error) {
    fail((error as Error).message, message);
  }
}

/** Asserts that two values differ in structure. */
export function assertNotEquals<T>(actual: T, expected: T, message?: string): void {
  try {
    nodeAssert.notDeepStrictEqual(actual, expected);
  } catch (error) {
    fail((error as Error).message, message);
  }
}

/** Asserts that two values are the same one, as `Object.is` has it. */
export function assertStrictEquals<T>(actual: unknown, expected: T, message?: string): asserts actual is T {
  try {
    nodeAssert.strictEqual(actual, expected);
  } catch (error) {
    fail((error as Error).message, message);
  }
}

/** Asserts that a number is within `tolerance` of another (default: 1e-7 of it). */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, message?: string): void {
  if (Object.is(actual, expected)) return;
  const allowed = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  const distance = Math.abs(actual - expected);
  if (!(distance <= allowed)) fail(`${actual} is ${distance} from ${expected}, more than ${allowed}`, message);
}

/** Asserts that a value is neither null nor undefined. */
export function assertExists<T>(actual: T, message?: string): asserts actual is NonNullable<T> {
  if (actual === null || actual === undefined) fail(`expected a value, got ${actual}`, message);
}

/** Asserts that a text contains another. */
export function assertStringIncludes(actual: string, expected: string, message?: string): void {
  if (!actual.includes(expected)) {
    fail(`expected ${JSON.stringify(actual)} to contain ${JSON.stringify(expected)}`, message);
  }
}

/** Asserts that a text matches a pattern. */
export function assertMatch(actual: string, expected: RegExp, message?: string): void {
  if (!expected.test(actual)) fail(`expected ${JSON.stringify(actual)} to match ${expected}`, message);
}

/** Asserts that a value is an instance of a class. */
export function assertInstanceOf<T>(actual: unknown, expected: Class<T>, message?: string): asserts actual is T {
  if (!(actual instanceof expected)) fail(`expected an instance of ${expected.name}, got ${actual}`, message);
}

function checkThrown<E extends Error>(thrown: unknown, ErrorClass?: Class<E>, part = "", message?: string): E {
  if (ErrorClass && !(thrown instanceof ErrorClass)) {
    fail(`expected ${ErrorClass.name} to be thrown, got ${thrown}`, message);
  }
  if (!(thrown instanceof Error)) fail(`expected an Error to be thrown, got ${thrown}`, message);
  assertStringIncludes(thrown.message, part, message);
  return thrown as E;
}

/** Asserts that a function throws an error (of a class, whose message contains a part), and returns it. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass?: Class<E>,
  part?: string,
  message?: string,
): E {
  try {
    fn();
  } catch (thrown) {
    return checkThrown(thrown, ErrorClass, part, message);
  }
  fail("expected the function to throw", message);
}

/** Asserts that a promise is rejected with an error (of a class, whose message contains a part), and resolves to it. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass?: Class<E>,
  part?: string,
  message?: string,
): Promise<E> {
  try {
    await fn();
  } catch (thrown) {
    return checkThrown(thrown, ErrorClass, part, message);
  }
  fail("expected the promise to be rejected", message);
}
