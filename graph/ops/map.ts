import { STORED, STORED_FLOAT8 } from "../attributes.ts";
import { arr, nearestOf } from "../array.ts";
import { type Attr, type Attrs, isReal } from "../ir.ts";
import { defineOp, nums, type Op } from "../op.ts";
import { elementwiseOps } from "./elementwise.ts";

/** One instruction of a map program: operation, then the registers it reads. It writes the next register. */
export type MapStep = readonly [name: string, ...registers: number[]];

/** The program of a `map` node. Registers: the inputs, then the constants, then one for each step. */
export interface MapProgram {
  readonly constants: readonly number[];
  readonly steps: readonly MapStep[];
  /** Registers stored to the outputs. */
  readonly results: readonly number[];
}

const scalar = new Map<string, (...x: number[]) => number>(elementwiseOps.map((op) => [
  op.name,
  (...x) => op.reference!(x.map((v) => arr([], [v])), {}, [])[0].data[0],
]));
for (const dtype of ["bf16", "f8e4m3", "f8e5m2"]) scalar.set(`round_${dtype}`, nearestOf(dtype));

/** The program in a node's attributes. */
export function programOf(attrs: Attrs): MapProgram {
  const program = attrs.program as unknown as MapProgram;
  return program;
}

/** A chain of element-wise work in one pass over memory: a short register program run over tiles. Made by `fuse`.
 * All operands have one shape (broadcast ones through views); integers, bf16 and float8 are converted when they are loaded. */
export const map: Op = defineOp({
  name: "map",
  link: true, // many are nothing but a cast
  attrs: {
    program: { type: "program", doc: "what is done with each element" },
    dtype: { type: "text", doc: "what is computed in" },
    shape: { type: "integers", doc: "that of all operands", local: "output" },
    ...STORED,
    ...STORED_FLOAT8,
  },
  infer: (inputs, attrs) => {
    const { results } = programOf(attrs), shape = inputs[0]?.shape ?? nums(attrs.shape);
    if (inputs.some((t) => String(t.shape) !== String(shape))) throw new TypeError("operands differ in shape");
    const dtype = inputs.find((t) => isReal(t.dtype))?.dtype ?? (attrs.dtype as "f32");
    return results.map(() => ({ dtype, shape }));
  },
  bf16: () => true,
  float8: () => true,
  reference: (inputs, attrs, types) => {
    const { constants, steps, results } = programOf(attrs), outs = types.map((t) => arr(t.shape));
    const registers = new Float64Array(inputs.length + constants.length + steps.length);
    registers.set(constants, inputs.length);
    for (let i = 0; i < outs[0].data.length; i++) {
      inputs.forEach((x, k) => registers[k] = x.data[i]);
      steps.forEach(([name, ...args], k) => {
        registers[inputs.length + constants.length + k] = scalar.get(name)!(...args.map((r) => registers[r]));
      });
      results.forEach((r, k) => outs[k].data[i] = registers[r]);
    }
    return outs;
  },
  recompute: "cheap",
  flops: (node) => programOf(node.attrs).steps.length * node.outputs[0].shape.reduce((n, s) => n * s, 1),
});

/** A map program as attribute. */
export function programAttr(program: MapProgram): Attr {
  return program as unknown as Attr;
}
