/** Reading states from a checkpoint: each rank takes the bytes that it needs, whatever pieces they were saved in.
 * @module */
import { type DType, dtypeBytes, type State } from "../../graph/ir.ts";
import { converted, storedBytes, type StoredType } from "../typed_array.ts";
import { CheckpointError } from "./error.ts";
import { type BlockReader, LANES, type Part, type PartRead, readerHere } from "./block_reader.ts";
import { sha256 } from "./files.ts";
import { BLOCK_BYTES, type Checkpoint, type SavedFile } from "./manifest.ts";
import { stretches } from "./pieces.ts";
import { openToRead, readFully } from "../weights/safetensors.ts";
import type { LocalState, StateMemory } from "./write.ts";

/** A state to be read, and where it goes. */
export interface Wanted extends LocalState {
  readonly state: State;
}

/** Bytes of a file that go to one place in memory. */
interface Copy {
  /** First byte in the file. */
  begin: number;
  /** Bytes in the file. */
  bytes: number;
  /** Byte offset in memory. */
  to: number;
  readonly saved: StoredType;
  readonly wanted: DType;
  readonly name: string;
}

/** So many read, compare and copy at once. */
const READERS = 2;

/** Where states are put. */
export type Destination = Pick<StateMemory, "write">;

/** What is read, and how. */
export interface ReadOptions {
  readonly memory: Destination;
  /** Are bytes compared with the manifest's hashes? */
  readonly verify: boolean;
  /** Default: {@linkcode readerHere}. */
  readonly reader?: () => BlockReader;
}

/** Fills states from a checkpoint; element types may differ.
 * @throws {CheckpointError} when one is not there, has another shape, or is damaged. States may then be half filled. */
export async function readStates(from: Checkpoint, wanted: readonly Wanted[], options: ReadOptions): Promise<void> {
  checkStates(from, wanted.map((w) => w.state));
  const copies = new Map<string, Copy[]>();
  for (const { state, offset, box } of wanted) {
    const { dtype: saved, pieces } = from.manifest.tensors[state.name], size = storedBytes[saved];
    for (const piece of pieces) {
      const list = copies.get(piece.file) ?? [];
      copies.set(piece.file, list);
      for (const { from, to, length } of stretches(piece, box)) {
        const [begin, at] = [piece.begin + from * size, offset + to * dtypeBytes[state.dtype]];
        list.push({ begin, bytes: length * size, to: at, saved, wanted: state.dtype, name: state.name });
      }
    }
  }
  const blocks = [...copies].flatMap(([file, list]) =>
    blocksOf(`${from.path}/${file}`, from.manifest.files[file], list.sort((a, b) => a.begin - b.begin), options.verify)
  );
  let failure: { readonly error: unknown } | undefined;
  /** Goes through stretches of blocks side by side, each from front to back, so that the system reads ahead. */
  const readAll = async (stretches: readonly (readonly Block[])[]) => {
    using reader = (options.reader ?? readerHere)();
    const room = new Uint8Array(LANES * Math.max(0, ...stretches.flat().map(({ bytes }) => bytes)));
    for (let i = 0; i < stretches[0].length || i < stretches[1].length; i++) {
      const blocks = stretches.flatMap((stretch) => stretch[i] ?? []);
      for (const alike of Map.groupBy(blocks, ({ bytes, hash }) => `${bytes} ${hash !== undefined}`).values()) {
        if (failure) return;
        const read = await reader.read(alike, room, alike[0].hash !== undefined);
        for (const [k, block] of alike.entries()) {
          check(block, read[k]);
          await scatter(read[k].bytes, block, options.memory);
        }
      }
    }
  };
  const stretch = (n: number) => {
    const bound = (k: number) => Math.round(blocks.length * k / (READERS * LANES));
    return blocks.slice(bound(n), bound(n + 1));
  };
  await Promise.all(Array.from({ length: READERS }, (_, reader) => {
    const own = Array.from({ length: LANES }, (_, lane) => stretch(reader * LANES + lane));
    return readAll(own).catch((error) => failure ??= { error });
  }));
  if (failure) throw (failure as { readonly error: unknown }).error;
}

/** The text of a small file of a checkpoint.
 * @throws {CheckpointError} when it is not what was written. */
export function readSmall({ path, manifest }: Checkpoint, name: string): string {
  const { bytes, sha256: [hash] } = manifest.files[name], content = new Uint8Array(bytes);
  using file = openToRead(`${path}/${name}`);
  if (readFully(file, content) < bytes || sha256(content) !== hash) {
    throw damaged(`${path}/${name}`, 0, name, "its bytes are not those that were written");
  }
  return new TextDecoder().decode(content);
}

/** Are states in a checkpoint, with these shapes?
 * @throws {CheckpointError} with the first that is not. */
export function checkStates({ path, manifest }: Checkpoint, states: readonly State[]): void {
  const refuse = (what: string, expected: string, fix: string): never => {
    throw new CheckpointError(`Cannot load ${path}: ${what}`, expected, fix);
  };
  for (const { name, kind, shape } of states) {
    const saved = manifest.tensors[name];
    if (!saved) {
      refuse(
        manifest.content === "model" && kind === "moment"
          ? "it has parameters alone, no state of the optimizer"
          : `it has no tensor "${name}"`,
        `all that the run needs: "${name}" of shape [${shape}]`,
        "choose another checkpoint (checkpoint.load_step), or leave out what it lacks (checkpoint.exclude_from_loading)",
      );
    }
    if (String(saved.shape) !== String(shape)) {
      refuse(
        `tensor "${name}" has shape [${saved.shape}]`,
        `[${shape}], as in this model`,
        "load it into the model that it was saved from",
      );
    }
  }
}

/** A block of a file, or the part of it that is needed. */
interface Block extends Part {
  /** What its SHA-256 has to be. */
  readonly hash: string | undefined;
  /** What it has at least a byte of, in the order of the file. */
  readonly copies: readonly Copy[];
}

/** The blocks that copies need; without hashes, the part of each that they need.
 * @param copies in the order of the file. */
function blocksOf(path: string, { bytes, sha256 }: SavedFile, copies: readonly Copy[], verify: boolean): Block[] {
  const hashed = verify && sha256.length > 0, byNumber = new Map<number, Copy[]>();
  for (const copy of copies) {
    for (let k = Math.floor(copy.begin / BLOCK_BYTES); k * BLOCK_BYTES < copy.begin + copy.bytes; k++) {
      const list = byNumber.get(k);
      if (list) list.push(copy);
      else byNumber.set(k, [copy]);
    }
  }
  return [...byNumber].map(([k, inside]): Block => {
    const begin = k * BLOCK_BYTES, end = Math.min(begin + BLOCK_BYTES, bytes);
    if (hashed) return { path, start: begin, bytes: end - begin, hash: sha256[k], copies: inside };
    const start = Math.max(begin, inside[0].begin);
    const last = inside.reduce((most, copy) => Math.max(most, copy.begin + copy.bytes), 0);
    return { path, start, bytes: Math.min(end, last) - start, hash: undefined, copies: inside };
  });
}

/** @throws {CheckpointError} where a block is not what was written. */
function check({ path, start, bytes, hash, copies }: Block, read: PartRead): void {
  if (read.bytes.length < bytes) throw damaged(path, start, copies[0].name, "the file ends before");
  if (read.hash !== hash) throw damaged(path, start, copies[0].name, "its bytes are not those that were written");
}

/** Puts what a block has of some copies in place; what lies side by side in memory goes there at once. */
async function scatter(
  block: Uint8Array<ArrayBuffer>,
  { start, copies }: Block,
  memory: Destination,
): Promise<void> {
  const parts = copies.map(({ begin, bytes, to, saved, wanted }) => {
    const [first, end] = [Math.max(begin, start), Math.min(begin + bytes, start + block.length)];
    const at = to + (first - begin) / storedBytes[saved] * dtypeBytes[wanted];
    return { bytes: converted(block.subarray(first - start, end - start), saved, wanted), to: at };
  }).sort((a, b) => a.to - b.to);
  for (let i = 0; i < parts.length;) {
    let [j, end] = [i + 1, parts[i].to + parts[i].bytes.length];
    while (j < parts.length && parts[j].to === end) end += parts[j++].bytes.length;
    if (j === i + 1) await memory.write(parts[i].to, parts[i].bytes);
    else {
      const joined = new Uint8Array(end - parts[i].to);
      for (const { bytes, to } of parts.slice(i, j)) joined.set(bytes, to - parts[i].to);
      await memory.write(parts[i].to, joined);
    }
    i = j;
  }
}

function damaged(path: string, at: number, name: string, what: string): CheckpointError {
  return new CheckpointError(
    `${path} is damaged behind byte ${at}, in "${name}": ${what}`,
    "the bytes that its manifest has hashes of",
    "put the file back, or choose another checkpoint (checkpoint.load_step)",
  );
}
