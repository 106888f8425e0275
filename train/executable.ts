/** A function of tensors as native code: what a small experiment compiles and runs.
 * @module */
import { Actions } from "../ffi/buffer.ts";
import { Device } from "../ffi/device.ts";
import { Program } from "../ffi/program.ts";
import { Flag } from "../ffi/symbols.ts";
import { type Graph, numel, type Type, type Value } from "../graph/ir.ts";
import type { EncodedSection } from "../graph/passes/encode.ts";
import { type Gradient, type TensorFunction, trace } from "../graph/trace.ts";
import { compileGraphs } from "./compile.ts";
import { numbersOf, setNumbers, type TypedArray, typedArray } from "./typed_array.ts";

interface Loaded {
  readonly program: Program;
  readonly actions: Actions;
  readonly section: EncodedSection;
  /** Device and program. */
  readonly owned: Disposable;
}

async function load(graph: Graph, threads: number): Promise<Loaded> {
  using stack = new DisposableStack();
  const device = stack.use(new Device({ threads }));
  const { program: { bytes, sections } } = compileGraphs([graph], { threads: device.info.threads });
  const program = stack.use(await Program.create(device, bytes));
  const actions = new Actions([{ section: 0, flags: Flag.FIRST }]);
  return { program, actions, section: sections[0], owned: stack.move() };
}

/** A compiled function. Native code is loaded by the first run. */
export class Executable implements AsyncDisposable {
  /** What is run. */
  readonly graph: Graph;
  #loaded: Loaded | undefined;
  #last: Promise<unknown> = Promise.resolve();
  readonly #threads: number;

  /** Makes a graph executable.
   * @param graph what to run. @param options `threads`: all, unless given. @throws {TypeError} when the graph has states. */
  constructor(graph: Graph, options: { readonly threads?: number } = {}) {
    if (graph.states.length > 0) {
      const names = graph.states.map((s) => `"${s.name}"`).join(", ");
      throw new TypeError(`Cannot make graph "${graph.name}" executable: it has states (${names}), expected none`);
    }
    this.graph = graph;
    this.#threads = options.threads ?? 0;
  }

  /** Runs on arrays of numbers, one for each argument, and returns the results by name. Runs take their turns.
   * @throws {TypeError} when an array has the wrong length. @throws {LibraryError} when there is no usable library. */
  runAll(...inputs: ArrayLike<number>[]): Promise<Record<string, TypedArray>> {
    const run = this.#last.then(() => this.#run(inputs));
    this.#last = run.catch(() => {});
    return run;
  }

  async #run(inputs: readonly ArrayLike<number>[]): Promise<Record<string, TypedArray>> {
    const { name, inputs: expected } = this.graph;
    if (inputs.length !== expected.length) {
      throw new TypeError(`Cannot run "${name}": expected ${expected.length} arrays, got ${inputs.length}`);
    }
    for (const [i, { value: { shape } }] of expected.entries()) {
      if (inputs[i].length === numel(shape)) continue;
      throw new TypeError(
        `Cannot run "${name}": argument ${i} has ${inputs[i].length} numbers, expected ${numel(shape)} for [${shape}]`,
      );
    }
    const { program, actions, section } = this.#loaded ??= await load(this.graph, this.#threads);
    section.inputs.forEach(({ value, offset }, i) => {
      setNumbers(typedArray(value.dtype, program.input.buffer, offset, inputs[i].length), value.dtype, inputs[i]);
    });
    await program.run(actions);
    const copy = (value: Value, offset: number) =>
      numbersOf(typedArray(value.dtype, program.output.buffer, offset, numel(value.shape)), value.dtype);
    return Object.fromEntries(section.outputs.map((o) => [o.name, copy(o.value, o.offset)]));
  }

  /** Runs a function with one result, and returns it.
   * @throws {TypeError} when it has more, or an array has the wrong length. */
  async run(...inputs: ArrayLike<number>[]): Promise<TypedArray> {
    const { name, outputs } = this.graph;
    if (outputs.length !== 1) {
      const names = outputs.map((o) => o.name).join(", ");
      throw new TypeError(`Cannot run "${name}" for one result: it has ${names}; use runAll`);
    }
    return (await this.runAll(...inputs))[outputs[0].name];
  }

  /** Frees the native program, after the runs under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    this.#loaded?.owned[Symbol.dispose]();
  }
}

/** Compiles a function (or its gradient) for arguments of given types.
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { f32 } from "@libtitan/titan";
 *
 * await using square = compile((x) => x.square(), f32(3));
 * assertEquals(await square.run([1, 2, 3]), Float32Array.of(1, 4, 9));
 * ``` */
export function compile(fn: TensorFunction | Gradient, ...specs: Type[]): Executable {
  return new Executable(trace(fn, ...specs));
}
