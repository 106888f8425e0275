/** A function of tensors as native code: what a small experiment compiles and runs.
 * @module */
import { Actions } from "../ffi/buffer.ts";
import { Device } from "../ffi/device.ts";
import { Program } from "../ffi/program.ts";
import { Flag } from "../ffi/symbols.ts";
import { type DType, type Graph, numel, type Type, type Value } from "../graph/ir.ts";
import type { EncodedSection } from "../graph/passes/encode.ts";
import { type Gradient, type TensorFunction, trace } from "../graph/trace.ts";
import { compileGraphs } from "./compile.ts";

/** Numbers of a tensor, row-major, in its element type. */
export type TypedArray = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** A typed array over part of a buffer. */
export function typedArray(dtype: DType, buffer: ArrayBuffer, byteOffset: number, length: number): TypedArray {
  const Kind = { f32: Float32Array, f64: Float64Array, i32: Int32Array }[dtype];
  return new Kind(buffer, byteOffset, length);
}

interface Loaded {
  readonly device: Device;
  readonly program: Program;
  readonly actions: Actions;
  readonly section: EncodedSection;
}

/** A compiled function. Native code is loaded by the first run. */
export class Executable implements AsyncDisposable {
  readonly graph: Graph;
  #loaded: Promise<Loaded> | undefined;
  readonly #threads: number;

  /** @param graph what to run; it may not touch state. */
  constructor(graph: Graph, options: { readonly threads?: number } = {}) {
    this.graph = graph;
    this.#threads = options.threads ?? 0;
  }

  #load(): Promise<Loaded> {
    return this.#loaded ??= (async () => {
      const device = new Device({ threads: this.#threads });
      const { program } = compileGraphs([this.graph], { threads: device.info.threads });
      const [section] = program.sections;
      const native = await Program.create(device, program.bytes);
      const actions = new Actions([{ section: 0, flags: Flag.FIRST }]);
      return { device, program: native, actions, section };
    })();
  }

  /** Runs on arrays of numbers, one for each argument, and returns the results by name.
   * @throws {TypeError} when an array has the wrong length. */
  async runAll(...inputs: ArrayLike<number>[]): Promise<Record<string, TypedArray>> {
    const { program, actions, section } = await this.#load();
    if (inputs.length !== section.inputs.length) {
      throw new TypeError(
        `Cannot run "${section.name}": expected ${section.inputs.length} arrays, got ${inputs.length}`,
      );
    }
    for (const [i, { value, offset }] of section.inputs.entries()) {
      const n = numel(value.shape);
      if (inputs[i].length !== n) {
        throw new TypeError(
          `Cannot run "${section.name}": argument ${i} has ${inputs[i].length} numbers, expected [${value.shape}]`,
        );
      }
      typedArray(value.dtype, program.input.buffer, offset, n).set(inputs[i]);
    }
    await program.run(actions);
    const copy = (value: Value, offset: number) =>
      typedArray(value.dtype, program.output.buffer, offset, numel(value.shape)).slice();
    return Object.fromEntries(section.outputs.map((o) => [o.name, copy(o.value, o.offset)]));
  }

  /** Runs a function with one result. */
  async run(...inputs: ArrayLike<number>[]): Promise<TypedArray> {
    return Object.values(await this.runAll(...inputs))[0];
  }

  /** Frees the native program. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#loaded) return;
    const { program, device } = await this.#loaded;
    program[Symbol.dispose]();
    device[Symbol.dispose]();
  }
}

/** Compiles a function (or its gradient) for arguments of given types.
 * @example
 * ```ts
 * const square = compile((x: Tensor) => x.square(), f32(3));
 * console.log(await square.run([1, 2, 3])); // Float32Array(3) [ 1, 4, 9 ]
 * ``` */
export function compile(fn: TensorFunction | Gradient, ...specs: Type[]): Executable {
  return new Executable(trace(fn, ...specs));
}
