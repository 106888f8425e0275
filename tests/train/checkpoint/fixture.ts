/** States in memory of this process, spread over the ranks of a mesh, without programs.
 * @module */
import { dtypeBytes, numel, type State } from "../../../graph/ir.ts";
import { boxOf, type Layout, localShape, replicated } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import type { SpreadStates } from "../../../train/checkpoint/save.ts";
import { stretches } from "../../../train/checkpoint/pieces.ts";
import type { Wanted } from "../../../train/checkpoint/read.ts";
import type { StateMemory } from "../../../train/checkpoint/write.ts";

/** Native memory that is an array here. */
export class ArrayMemory implements StateMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  constructor(size: number) {
    this.bytes = new Uint8Array(size).fill(0xab);
  }
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    into.set(this.bytes.subarray(offset, offset + into.length));
    return Promise.resolve();
  }
  write(offset: number, from: Uint8Array<ArrayBuffer>): Promise<void> {
    if (offset + from.length > this.bytes.length) throw new RangeError("beyond the end of the memory");
    this.bytes.set(from, offset);
    return Promise.resolve();
  }
}

/** The ranks of a mesh, each with its part of some states. */
export class Spread {
  readonly ranks: readonly (SpreadStates & { readonly memory: ArrayMemory; readonly wanted: readonly Wanted[] })[];

  constructor(states: readonly State[], layoutOf: (state: State) => Layout = () => replicated, mesh = new Mesh({}, 1)) {
    this.ranks = Array.from({ length: mesh.size }, (_, rank) => {
      const at = mesh.coordinates(rank);
      let end = 0;
      const locals = new Map(states.map((state) => {
        const layout = layoutOf(state), { starts } = boxOf(state.shape, layout, mesh.degrees, at);
        const sizes = localShape(state.shape, layout, mesh.degrees), offset = end;
        end += Math.ceil(numel(sizes) * dtypeBytes[state.dtype] / 64) * 64;
        return [state.name, { offset, box: { starts, sizes } }] as const;
      }));
      const memory = new ArrayMemory(end), localOf = (name: string) => locals.get(name)!;
      const wanted = states.map((state) => ({ state, ...localOf(state.name) }));
      return { mesh, rank, states, layoutOf, localOf, memory, wanted };
    });
  }

  /** Visits the bytes of each state that each rank holds, as bytes of the whole state. */
  #each(visit: (state: State, whole: number, memory: Uint8Array, at: number, length: number) => void): void {
    for (const { wanted, memory } of this.ranks) {
      for (const { state, offset, box } of wanted) {
        const size = dtypeBytes[state.dtype], whole = { starts: state.shape.map(() => 0), sizes: state.shape };
        for (const { from, to, length } of stretches(whole, box)) {
          visit(state, from * size, memory.bytes, offset + to * size, length * size);
        }
      }
    }
  }

  /** Gives every rank its part of the bytes of whole states. */
  fill(whole: ReadonlyMap<string, Uint8Array>): this {
    this.#each((state, from, memory, at, length) =>
      memory.set(whole.get(state.name)!.subarray(from, from + length), at)
    );
    return this;
  }

  /** Do all ranks hold their part of the bytes of whole states? */
  holds(whole: ReadonlyMap<string, Uint8Array>): boolean {
    let same = true;
    this.#each((state, from, memory, at, length) => {
      const expected = whole.get(state.name)!.subarray(from, from + length);
      same &&= memory.subarray(at, at + length).every((byte, i) => byte === expected[i]);
    });
    return same;
  }
}

/** Has ranks of this process exchange JSON, as those of a {@linkcode Spread} do that save at once. */
export function meetings(size: number): { exchangeJson<T>(mine: T): Promise<T[]> }[] {
  const open: { values: unknown[]; count: number; done: PromiseWithResolvers<unknown[]> }[] = [];
  const turns = new Array<number>(size).fill(0);
  return turns.map((_, rank) => ({
    async exchangeJson<T>(mine: T): Promise<T[]> {
      const turn = turns[rank]++;
      open[turn] ??= { values: [], count: 0, done: Promise.withResolvers() };
      const meeting = open[turn];
      meeting.values[rank] = JSON.parse(JSON.stringify(mine));
      if (++meeting.count === size) meeting.done.resolve(meeting.values);
      return await meeting.done.promise as T[];
    },
  }));
}
