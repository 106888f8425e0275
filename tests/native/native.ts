/** Runs graphs on the native library, where tests of graphs use the interpreter: one session is one program with its states.
 * @module */
import { Actions } from "../../ffi/buffer.ts";
import { Device } from "../../ffi/device.ts";
import { library } from "../../ffi/library.ts";
import { Program } from "../../ffi/program.ts";
import { Flag } from "../../ffi/symbols.ts";
import { type Arr, arr } from "../../graph/array.ts";
import type { Memory } from "../../graph/interpret.ts";
import { type Graph, numel, type Value } from "../../graph/ir.ts";
import { encode } from "../../graph/passes/encode.ts";
import { materialize } from "../../graph/passes/materialize.ts";
import { memory as planMemory } from "../../graph/passes/memory.ts";
import { targetOf } from "../../graph/target/cuda.ts";
import { type Compiled, compileGraphs } from "../../train/compile.ts";
import { newArray, numbersOf, setNumbers, typedArray } from "../../train/typed_array.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

/** Where tests of ops and of random graphs run: on the CPU, unless the variable TITAN_DEVICE says `cuda`. */
export const KIND: "cpu" | "cuda" = Deno.env.get("TITAN_DEVICE") === "cuda" ? "cuda" : "cpu";
const target = targetOf({ kind: KIND });

/** What a graph's inputs are given by. */
export type Inputs = Readonly<Record<string, Arr | ArrayLike<number>>>;

/** Compiles graphs as they are: no pass but the copies that kernels need. */
export function compilePlainly(graphs: readonly Graph[], options: { readonly threads: number }): Compiled {
  const ready = graphs.map((graph) => materialize(graph, target)), plan = planMemory(ready, { ...options, target });
  return { graphs: ready, plan, program: encode(plan) };
}

/** How a session is made. */
export interface NativeOptions {
  /** Default 1. */
  readonly threads?: number;
  /** First values of states; all others are zeros. */
  readonly memory?: ReadonlyMap<string, Arr>;
  /** Default: all passes. */
  readonly compile?: (graphs: readonly Graph[], options: { readonly threads: number }) => Compiled;
}

/** Graphs as one native program. */
export class NativeSession implements Disposable {
  readonly compiled: Compiled;
  readonly #device: Device;
  readonly #program: Program;

  private constructor(compiled: Compiled, device: Device, program: Program) {
    this.compiled = compiled;
    this.#device = device;
    this.#program = program;
  }

  /** Compiles and loads graphs, and writes the first values of their states. */
  static async open(graphs: readonly Graph[], options: NativeOptions = {}): Promise<NativeSession> {
    const { threads = 1, memory = new Map() } = options;
    const compile = options.compile ?? ((graphs, options) => compileGraphs(graphs, { ...options, target }));
    const compiled = compile(graphs, { threads });
    const device = new Device({ kind: KIND, threads });
    const session = new NativeSession(compiled, device, await Program.create(device, compiled.program.bytes));
    for (const [name, { data }] of memory) await session.write(name, data);
    return session;
  }

  /** Runs a graph and returns its outputs. */
  async run(graph: string, inputs: Inputs = {}, first = true): Promise<Record<string, Arr>> {
    const section = this.compiled.program.sections.find((s) => s.name === graph)!;
    const { input, output } = this.#program;
    for (const { name, value, offset } of section.inputs) {
      const given = inputs[name];
      const array = typedArray(value.dtype, input.buffer, offset, numel(value.shape));
      setNumbers(array, value.dtype, "data" in given ? given.data : given);
    }
    await this.#program.run(new Actions([{ section: section.index, flags: first ? Flag.FIRST : 0 }]));
    const result = ({ dtype, shape }: Value, offset: number): Arr =>
      arr(shape, Float64Array.from(numbersOf(typedArray(dtype, output.buffer, offset, numel(shape)), dtype)));
    return Object.fromEntries(section.outputs.map((o) => [o.name, result(o.value, o.offset)]));
  }

  /** The value of a state. */
  async read(name: string): Promise<Arr> {
    const { state, offset } = this.compiled.plan.states.get(name)!, data = newArray(state);
    await this.#program.read(offset, data);
    return arr(state.shape, Float64Array.from(numbersOf(data, state.dtype)));
  }

  /** Replaces a state. */
  async write(name: string, values: ArrayLike<number>): Promise<void> {
    const { state, offset } = this.compiled.plan.states.get(name)!, data = newArray(state);
    setNumbers(data, state.dtype, values);
    await this.#program.write(offset, data);
  }

  /** The values of all states. */
  async memory(): Promise<Memory> {
    const names = [...this.compiled.plan.states.keys()];
    return new Map(await Promise.all(names.map(async (name) => [name, await this.read(name)] as const)));
  }

  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
    this.#device[Symbol.dispose]();
  }
}

/** Largest error of an array, relative to the largest magnitude that is expected (to 1 where all are zeros). */
export function errorOf(actual: Arr, expected: Arr): number {
  if (String(actual.shape) !== String(expected.shape)) {
    throw new Error(`shape [${actual.shape}], expected [${expected.shape}]`);
  }
  const scale = expected.data.reduce((m, x) => Number.isFinite(x) ? Math.max(m, Math.abs(x)) : m, 0) || 1;
  let error = 0;
  expected.data.forEach((x, i) => {
    const off = Object.is(x, actual.data[i]) ? 0 : Math.abs(actual.data[i] - x);
    if (!(off <= error)) error = off; // written so that a NaN counts
  });
  return error / scale;
}
