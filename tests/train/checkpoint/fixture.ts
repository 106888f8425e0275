/** States in memory of this process, spread over the ranks of a mesh, without programs.
 * @module */
import { type DType, dtypeBytes, numel, type State, type StateKind } from "../../../graph/ir.ts";
import { boxOf, isHeld, type Layout, localShape, type Placement, replicated } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { readTensor } from "../../../train/checkpoint/inspect.ts";
import { sha256 } from "../../../train/checkpoint/files.ts";
import { withHeaders } from "../../../train/checkpoint/headers.ts";
import { type Checkpoint, type SavedTensor, VERSION } from "../../../train/checkpoint/manifest.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { saveCheckpoint, type SpreadStates, type Together } from "../../../train/checkpoint/save.ts";
import { stretches } from "../../../train/checkpoint/pieces.ts";
import { Staging } from "../../../train/checkpoint/staging.ts";
import { readStates, type Wanted } from "../../../train/checkpoint/read.ts";
import { encodeHeader } from "../../../train/weights/safetensors.ts";
import type { StateMemory } from "../../../train/checkpoint/write.ts";
import { Random } from "../../graph/random_graphs.ts";
import { randomLayout } from "../../parallel/random_layouts.ts";

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
      const here = states.filter((state) => isHeld(layoutOf(state), at));
      const locals = new Map(here.map((state) => {
        const layout = layoutOf(state), { starts } = boxOf(state.shape, layout, mesh.factors, at);
        const sizes = localShape(state.shape, layout, mesh.factors), offset = end;
        end += Math.ceil(numel(sizes) * dtypeBytes[state.dtype] / 64) * 64;
        return [state.name, { offset, dtype: state.dtype, box: { starts, sizes } }] as const;
      }));
      const memory = new ArrayMemory(end), localOf = (name: string) => locals.get(name)!;
      const wanted = here.map((state) => ({ state, ...localOf(state.name) }));
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

/** Has ranks of this process meet, as those of a {@linkcode Spread} do that save at once. */
export function meetings(size: number): Together[] {
  const open: { values: unknown[]; count: number; done: PromiseWithResolvers<unknown[]> }[] = [];
  const turns = new Array<number>(size).fill(0);
  return turns.map((_, rank) => ({
    async meet<T>(work: Promise<T>): Promise<T[]> {
      const turn = turns[rank]++;
      open[turn] ??= { values: [], count: 0, done: Promise.withResolvers() };
      const meeting = open[turn];
      meeting.values[rank] = JSON.parse(JSON.stringify(await work));
      if (++meeting.count === size) meeting.done.resolve(meeting.values);
      return await meeting.done.promise as T[];
    },
  }));
}

/** A few states of random shapes and types. */
export function randomStates(random: Random): State[] {
  return Array.from({ length: random.int(1, 6) }, (_, i) => {
    const shape = Array.from({ length: random.int(0, 3) }, () => random.int(1, 9));
    const kind = random.pick<StateKind>(["parameter", "moment", "buffer"]);
    const dtype = random.pick<DType>(["f32", "f64", "bf16", ...(kind === "buffer" ? ["i32"] as const : [])]);
    return { name: `${kind === "moment" ? "moment1/" : ""}w${i}.weight`, kind, dtype, shape };
  });
}

/** Random bytes for states. */
export const bytesOf = (states: readonly State[], random: Random): Map<string, Uint8Array> =>
  new Map(states.map((s) => {
    const bytes = Array.from({ length: numel(s.shape) * dtypeBytes[s.dtype] }, () => random.int(0, 255));
    return [s.name, Uint8Array.from(bytes)];
  }));

/** Random layouts for states; each is with the ranks at some places along `pp`. */
export function layouts(states: readonly State[], mesh: Mesh, random: Random): (state: State) => Layout {
  const places = random.shuffle(Array.from({ length: mesh.degrees.pp }, (_, i) => i));
  const held = (): [string, Placement][] =>
    mesh.factorsOf("pp").map((factor) => [
      factor,
      { kind: "held", places: places.slice(0, random.int(1, places.length)) },
    ]);
  const all = new Map(
    states.map((s) => [s.name, new Map([...randomLayout(s.shape, mesh, random, false), ...held()])]),
  );
  return (state) => all.get(state.name)!;
}

/** Saves what all ranks hold. */
export async function saveAll(
  path: string,
  spread: Spread,
  step = 1,
  content: "full" | "model" = "full",
): Promise<void> {
  const groups = meetings(spread.ranks.length), state = { step };
  await Promise.all(spread.ranks.map(async (own, rank) => {
    const options = { step, content, state, group: groups[rank], staging: new Staging() };
    const { done } = await saveCheckpoint(path, own, options);
    await done;
  }));
}

/** Loads into all ranks. */
export const load = async (path: string, to: Spread, verify = true) => {
  const checkpoint = openCheckpoint(path);
  for (const { wanted, memory } of to.ranks) await readStates(checkpoint, wanted, { memory, verify });
};

/** A parameter. */
export const weight: State = { name: "w.weight", kind: "parameter", dtype: "f32", shape: [4, 3] };
/** Its moment. */
export const moment: State = { ...weight, name: "moment1/w.weight", kind: "moment" };
/** Both, and their bytes. */
export const states: readonly State[] = [weight, moment];
/** Of both. */
export const whole: ReadonlyMap<string, Uint8Array> = bytesOf(states, new Random(7));

/** A folder with a checkpoint of one process, `step-1`. */
export async function saved(): Promise<{ folder: string; path: string } & AsyncDisposable> {
  const folder = await Deno.makeTempDir(), path = `${folder}/step-1`;
  await saveAll(path, new Spread(states).fill(whole));
  return { folder, path, [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }) };
}

/** A tensor by its numbers. */
export interface Numbers {
  readonly shape: readonly number[];
  readonly numbers: Float32Array<ArrayBuffer>;
}

/** The tensors of a checkpoint, whole. */
export async function tensorsOf(checkpoint: Checkpoint): Promise<Map<string, Numbers>> {
  const tensors = new Map<string, Numbers>();
  for (const [name, { shape }] of Object.entries(checkpoint.manifest.tensors)) {
    tensors.set(name, { shape, numbers: Float32Array.from(await readTensor(checkpoint, name)) });
  }
  return tensors;
}

/** Makes a folder with one safetensors file of f32, which is a checkpoint of parameters alone. */
export function writeWeights(
  path: string,
  tensors: ReadonlyMap<string, Numbers>,
  file = "model.safetensors",
): Checkpoint {
  const list = [...tensors].map(([name, { shape, numbers }]) => {
    return { name, dtype: "f32", shape, bytes: numbers.byteLength } as const;
  });
  const { bytes, header } = encodeHeader(list, {});
  Deno.mkdirSync(path, { recursive: true });
  Deno.writeFileSync(`${path}/${file}`, bytes);
  for (const { numbers } of tensors.values()) {
    Deno.writeFileSync(`${path}/${file}`, new Uint8Array(numbers.buffer), { append: true });
  }
  const saved = list.map(({ name, shape }): [string, SavedTensor] => {
    return [name, { kind: "parameter", dtype: "f32", shape }];
  });
  const files = { [file]: { bytes: header.fileBytes, sha256: [], header: sha256(bytes) } };
  const manifest = { version: VERSION, step: 0, content: "model", files, tensors: Object.fromEntries(saved) } as const;
  return withHeaders(path, manifest);
}
