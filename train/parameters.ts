/** The values of a run's parameters, whole, wherever ranks store them.
 * @module */
import { type DType, dtypeBytes, numel, sizeBytes, type State } from "../graph/ir.ts";
import { boxOf, isHeld, localShape } from "../graph/layout.ts";
import { stretches } from "./checkpoint/pieces.ts";
import type { SpreadStates } from "./checkpoint/save.ts";
import { numbersOf, type TypedArray, typedArray } from "./typed_array.ts";

/** A parameter with its values. */
export interface ParameterValues {
  /** The path of properties that leads to it: `layers.0.attention.wq.weight`. */
  readonly name: string;
  /** Sizes of its dims. */
  readonly shape: readonly number[];
  /** Element type in which it is stored. */
  readonly dtype: DType;
  /** All of them, row-major; of bf16 as f32. A copy. */
  readonly values: TypedArray;
}

/** Exchanges as many bytes of each rank, by rank. */
export type Gather = (mine: Uint8Array<ArrayBuffer>) => Promise<readonly Uint8Array<ArrayBuffer>[]>;

/** Reads states one after another; with other ranks, all of them call it at once, and each gets all values.
 * @param gather how they exchange what each has; a process alone has everything. */
export async function* readWhole(spread: SpreadStates, gather?: Gather): AsyncGenerator<ParameterValues> {
  const { mesh, rank, states, layoutOf, localOf, memory } = spread;
  for (const state of states) {
    const { name, shape, dtype } = state, layout = layoutOf(state), sizes = localShape(shape, layout, mesh.factors);
    const own = new Uint8Array(numel(sizes) * dtypeBytes[dtype]), at = (r: number) => mesh.coordinates(r);
    if (isHeld(layout, at(rank))) await memory.read(localOf(name).offset, own);
    const boxes = Array.from({ length: mesh.size }, (_, r) => ({
      box: boxOf(shape, layout, mesh.factors, at(r)),
      isHere: isHeld(layout, at(r)),
    }));
    const isWhole = boxes.every(({ box, isHere }) => isHere && String(box.sizes) === String(shape)),
      bytes = isWhole ? own : new Uint8Array(sizeBytes(state));
    if (!isWhole) {
      (await gather!(own)).forEach((part, r) => {
        if (boxes[r].isHere) put(part, { starts: boxes[r].box.starts, sizes }, bytes, state);
      });
    }
    const values = numbersOf(typedArray(dtype, bytes.buffer, 0, numel(shape)), dtype);
    yield { name, shape, dtype, values };
  }
}

/** Puts a part of a state, with its padding, in its place. */
function put(
  part: Uint8Array,
  box: { readonly starts: readonly number[]; readonly sizes: readonly number[] },
  into: Uint8Array,
  { shape, dtype }: State,
): void {
  const size = dtypeBytes[dtype];
  for (const { from, to, length } of stretches(box, { starts: shape.map(() => 0), sizes: shape })) {
    into.set(part.subarray(from * size, (from + length) * size), to * size);
  }
}
