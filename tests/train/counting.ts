/** Counts what a step should not do too often: native calls, and buffers that TypeScript makes. Import it before anything else of
 * ours, since it stands between the library and whoever opens it.
 * @module */
import { library } from "../../ffi/library.ts";

const calls = new Map<string, number>();

const { dlopen } = Deno;
Deno.dlopen = ((path: string, symbols: Deno.ForeignLibraryInterface) => {
  const opened = dlopen(path, symbols);
  const counted = Object.entries(opened.symbols).map(([name, call]) => [name, (...args: unknown[]) => {
    calls.set(name, (calls.get(name) ?? 0) + 1);
    return (call as (...args: unknown[]) => unknown)(...args);
  }]);
  return { symbols: Object.fromEntries(counted), close: () => opened.close() };
}) as typeof Deno.dlopen;
library(); // opened here: inside a test the sanitizer would call it a leak

/** Calls of native functions by name since the last time. */
export function takeCalls(): Record<string, number> {
  const taken = Object.fromEntries(calls);
  calls.clear();
  return taken;
}

const kinds = [
  "ArrayBuffer",
  "SharedArrayBuffer",
  ...[
    "Int8",
    "Uint8",
    "Uint8Clamped",
    "Int16",
    "Uint16",
    "Int32",
    "Uint32",
    "BigInt64",
    "BigUint64",
    "Float32",
    "Float64",
  ]
    .map((kind) => `${kind}Array`),
];
const copying = ["slice", "map", "filter", "toReversed", "toSorted", "with"] as const;
type AnyFunction = (...args: unknown[]) => unknown;

/** Says what made each buffer that this thread's TypeScript makes while `run` is under way; views of a buffer count as none. */
export async function buffersMadeIn(run: () => Promise<void>): Promise<string[]> {
  const made: string[] = [], scope = globalThis as unknown as Record<string, new (...args: unknown[]) => object>;
  const real = kinds.map((name) => scope[name]);
  const methods = Object.getPrototypeOf(Int8Array.prototype) as Record<string, AnyFunction>;
  const realMethods = copying.map((name) => methods[name]);
  const note = (what: string): void => void made.push(`${what} ${new Error().stack!.split("\n")[3]?.trim()}`);
  kinds.forEach((name, i) => {
    scope[name] = new Proxy(real[i], {
      construct(target, args, newTarget) {
        if (!(args[0] instanceof real[0] || args[0] instanceof real[1])) note(`new ${name}`);
        return Reflect.construct(target, args, newTarget);
      },
    });
  });
  copying.forEach((name, i) => {
    methods[name] = function (this: unknown, ...args: unknown[]) {
      note(name);
      return realMethods[i].apply(this, args);
    };
  });
  try {
    await run();
  } finally {
    kinds.forEach((name, i) => scope[name] = real[i]);
    copying.forEach((name, i) => methods[name] = realMethods[i]);
  }
  return made;
}
