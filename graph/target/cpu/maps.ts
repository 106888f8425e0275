/** Element-wise work on the CPU: the kernel `map` runs a short register program on tiles that stay in cache; integers have a kernel for
 * each single operation.
 * @module */
import type { Node } from "../../ir.ts";
import { type MapName, mapOps } from "../../kernels.ts";
import { num } from "../../op.ts";
import { programOf } from "../../ops/map.ts";
import { anyViews, type KernelCall, type Lowering, type Lowerings } from "../target.ts";

/** One instruction of a program: the operation, the register that it writes, those that it reads. */
function word(operation: MapName, writes: number, reads: readonly number[]): bigint {
  return reads.reduce(
    (bits, register, i) => bits | BigInt(register) << BigInt(28 + 12 * i),
    BigInt(mapOps[operation].code) | BigInt(writes) << 16n,
  );
}

/** A program that stores its one register: an operand, or a constant. */
const oneRegister = (inputs: 0 | 1, constants: readonly number[]): KernelCall => ({
  kernel: "map",
  attrs: { inputs, registers: 1, code: [0], constants },
});

const integerMap = (operation: number, value: number): KernelCall => ({
  kernel: "integer_map",
  attrs: { operation, value },
});

const isInteger = ({ outputs: [y] }: Node): boolean => y.dtype === "i32";

/** A node that is a single operation: what `fuse` leaves behind is already `map`. */
function single(operation: MapName): Lowering {
  const { code, arity } = mapOps[operation], registers = Array.from({ length: arity }, (_, i) => i);
  const program = [word(operation, arity, registers), arity];
  return {
    kernel: (node) =>
      isInteger(node)
        ? integerMap(code, 0)
        : { kernel: "map", attrs: { inputs: arity, registers: arity + 1, code: program, constants: [] } },
    views: anyViews,
    inPlace: (node) => node.inputs.map((_, i) => [0, i]),
  };
}

// A step of programs alone.
const operations = Object.keys(mapOps).filter((name) => !name.startsWith("round_")) as MapName[];

/** How element-wise work runs. */
export const maps: Lowerings = {
  ...Object.fromEntries(operations.map((name) => [name, single(name)])),
  cast: {
    kernel: (node) => isInteger(node) ? { kernel: "integer_cast", attrs: {} } : oneRegister(1, []),
    views: anyViews,
  },
  constant: {
    kernel: (node) => {
      const value = num(node.attrs.value);
      return isInteger(node) ? integerMap(0, value) : oneRegister(0, [value]);
    },
    views: anyViews,
  },
  map: {
    kernel: ({ inputs, attrs }) => {
      const { constants, steps, results } = programOf(attrs), first = inputs.length + constants.length;
      const code = steps.map(([name, ...args], k) => word(name as MapName, first + k, args));
      return {
        kernel: "map",
        attrs: { inputs: inputs.length, registers: first + steps.length, code: [...code, ...results], constants },
      };
    },
    views: anyViews,
    inPlace: ({ inputs, outputs }) => outputs.flatMap((_, o) => inputs.map((_, i): [number, number] => [o, i])),
  },
};
