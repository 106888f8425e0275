/** Reading states from a checkpoint: each rank takes the bytes that it needs, whatever pieces they were saved in.
 * @module */
import { type DType, dtypeBytes, numel, type State } from "../../graph/ir.ts";
import type { Box } from "../../graph/layout.ts";
import { converted, type FileType, unitOf } from "../typed_array.ts";
import { CheckpointError } from "./error.ts";
import { type Chunk, type ChunkReader, type PartRead, readChunks, readerHere } from "./chunk_reader.ts";
import { sha256 } from "./files.ts";
import { type Checkpoint, CHUNK_BYTES, fileOf, namesText, type SavedFile } from "./manifest.ts";
import { stretches } from "./pieces.ts";
import { openToRead, readFully } from "../weights/safetensors.ts";
import { type LocalState, numberText, type StateMemory } from "./write.ts";

/** A state to be read, and where it goes. */
export interface Wanted extends LocalState {
  readonly state: State;
}

/** Bytes of a file that go to one place in memory. */
interface Copy {
  /** First byte in the file, of an element or of a block of them. */
  readonly begin: number;
  /** Bytes in the file. */
  readonly bytes: number;
  /** So many elements come before those that are wanted, within the first block. */
  readonly skip: number;
  /** Elements that are wanted. */
  readonly length: number;
  /** Byte offset in memory. */
  readonly to: number;
  readonly saved: FileType;
  readonly wanted: DType;
  readonly name: string;
}

/** Where states are put. */
export type Destination = Pick<StateMemory, "write">;

/** What is read, and how. */
export interface ReadOptions {
  readonly memory: Destination;
  /** Are bytes compared with the manifest's hashes? */
  readonly verify: boolean;
  /** The rank that reads; default: 0, of one process. */
  readonly rank?: number;
  /** Default: {@linkcode readerHere}. */
  readonly reader?: () => ChunkReader;
}

/** Fills states from a checkpoint; element types may differ.
 * @throws {CheckpointError} when one is not there, has another shape, or is damaged. Only the first two leave states as they were: bytes
 * are in place before their hashes are compared, so whoever asked for them has to give the states up. */
export async function readStates(from: Checkpoint, wanted: readonly Wanted[], options: ReadOptions): Promise<void> {
  checkStates(from, wanted.map((w) => w.state));
  const chunks = copiesOf(from, wanted, options.rank ?? 0).flatMap(([file, list]) =>
    chunksOf(fileOf(from, file), from.manifest.files[file], list.sort((a, b) => a.begin - b.begin), options.verify)
  );
  await readChunks(chunks, options.reader ?? readerHere, async (chunk, read, bytes) => {
    check(chunk, read);
    if (bytes) await scatter(bytes, chunk, options.memory);
  });
}

/** What comes from each file. The headers of files are read until all that is wanted is found, beginning with those of the same rank:
 * where the mesh has not changed, they have most.
 * @throws {CheckpointError} when elements are nowhere, or a header is not the one that was written. */
function copiesOf(from: Checkpoint, wanted: readonly Wanted[], rank: number): [string, Copy[]][] {
  const { files, tensors } = from.manifest, byName = Map.groupBy(wanted, ({ state }) => state.name);
  const left = new Map(wanted.map((want) => [want, numel(within(want).sizes)])), all: [string, Copy[]][] = [];
  let elements = [...left.values()].reduce((a, b) => a + b, 0);
  const own = Object.keys(files).filter((file) => file.includes(`-${numberText(rank + 1)}-of-`));
  for (const file of new Set([...own, ...Object.keys(files)])) {
    if (elements === 0) break;
    const copies: Copy[] = [];
    for (const piece of from.piecesIn(file)) {
      const { dtype: saved } = tensors[piece.tensor], { elements: together, bytes } = unitOf(saved);
      for (const want of byName.get(piece.tensor) ?? []) {
        const { state: { name, dtype }, offset, box } = want;
        for (const { from, to, length } of stretches(piece, box)) {
          const [first, end] = [Math.floor(from / together), Math.ceil((from + length) / together)];
          copies.push({
            ...{ begin: piece.begin + first * bytes, bytes: (end - first) * bytes },
            ...{ skip: from - first * together, length, to: offset + to * dtypeBytes[dtype] },
            ...{ saved, wanted: dtype, name },
          });
          left.set(want, left.get(want)! - length);
          elements -= length;
        }
      }
    }
    if (copies.length > 0) all.push([file, copies]);
  }
  const missing = [...left].filter(([, elements]) => elements !== 0).map(([{ state }]) => state.name);
  if (missing.length > 0) {
    throw new CheckpointError(
      `Cannot load ${from.path}: no file has all${namesText(missing, " of ")}`,
      "every element of every tensor in one file",
      "choose another checkpoint (checkpoint.load_step)",
    );
  }
  return all;
}

/** What a rank wants of a state, without padding. */
function within({ state, box }: Wanted): Box {
  const sizes = box.sizes.map((n, d) => Math.max(0, Math.min(n, state.shape[d] - box.starts[d])));
  return { starts: box.starts, sizes };
}

/** The text of a small file of a checkpoint.
 * @throws {CheckpointError} when it is not what was written. */
export function readSmall(checkpoint: Checkpoint, name: string): string {
  const { bytes, sha256: [hash] } = checkpoint.manifest.files[name], content = new Uint8Array(bytes);
  const path = fileOf(checkpoint, name);
  using file = openToRead(path);
  if (readFully(file, content) < bytes || sha256(content) !== hash) {
    throw damaged(path, 0, name, "its bytes are not those that were written");
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

/** A chunk of a file, or a part of it that is needed. Its stretches are known where no byte is changed on its way or goes to two places. */
interface WantedChunk extends Chunk {
  /** What its SHA-256 has to be, where that is compared. */
  readonly hash: string | undefined;
  /** What it has of copies, in the order of the file. */
  readonly copies: readonly Copy[];
}

/** The chunks that copies need. Those with hashes are whole; without, stretches of the file that are no longer than one.
 * @param copies in the order of the file. */
function chunksOf(path: string, { bytes, sha256 }: SavedFile, copies: readonly Copy[], verify: boolean): WantedChunk[] {
  if (!verify || sha256.length === 0) return stretchesOf(path, copies);
  const byNumber = new Map<number, Copy[]>();
  for (const copy of copies) {
    for (let k = Math.floor(copy.begin / CHUNK_BYTES); k * CHUNK_BYTES < copy.begin + copy.bytes; k++) {
      const list = byNumber.get(k) ?? [];
      byNumber.set(k, list);
      list.push(partOf(copy, k * CHUNK_BYTES, (k + 1) * CHUNK_BYTES));
    }
  }
  return [...byNumber].map(([k, inside]): WantedChunk => {
    const start = k * CHUNK_BYTES;
    return {
      ...{ path, start, bytes: Math.min(CHUNK_BYTES, bytes - start), hashed: true, hash: sha256[k] },
      ...{ copies: inside, stretches: placesOf(start, inside) },
    };
  });
}

/** Copies in stretches of a file, each as many as fit into a chunk's bytes. */
function stretchesOf(path: string, copies: readonly Copy[]): WantedChunk[] {
  const found: { start: number; end: number; copies: Copy[] }[] = [];
  for (const copy of copies) {
    const unit = unitOf(copy.saved).bytes, most = Math.floor(CHUNK_BYTES / unit) * unit;
    for (let at = copy.begin; at < copy.begin + copy.bytes; at += most) {
      const part = partOf(copy, at, at + most), last = found.at(-1), end = part.begin + part.bytes;
      if (!last || end > last.start + CHUNK_BYTES) found.push({ start: part.begin, end, copies: [part] });
      else {
        last.copies.push(part);
        last.end = Math.max(last.end, end);
      }
    }
  }
  return found.map(({ start, end, copies }): WantedChunk => {
    return {
      ...{ path, start, bytes: end - start, hashed: false, hash: undefined },
      ...{ copies, stretches: placesOf(start, copies) },
    };
  });
}

/** Where copies go from a chunk that begins at `start`. */
function placesOf(start: number, copies: readonly Copy[]): Chunk["stretches"] {
  const isApart = ({ begin }: Copy, i: number) => i === 0 || copies[i - 1].begin + copies[i - 1].bytes <= begin;
  if (!copies.every((copy, i) => copy.saved === copy.wanted && isApart(copy, i))) return undefined;
  return copies.map(({ begin, bytes, to }) => ({ from: begin - start, to, bytes }));
}

/** What a copy has between two bytes of the file, where it can be cut. */
function partOf(copy: Copy, from: number, to: number): Copy {
  const begin = Math.max(copy.begin, from), end = Math.min(copy.begin + copy.bytes, to);
  const { elements, bytes } = unitOf(copy.saved), element = (at: number) => (at - copy.begin) / bytes * elements;
  const [first, last] = [Math.max(copy.skip, element(begin)), Math.min(copy.skip + copy.length, element(end))];
  return {
    ...copy,
    ...{ begin, bytes: end - begin, skip: first - element(begin), length: last - first },
    to: copy.to + (first - copy.skip) * dtypeBytes[copy.wanted],
  };
}

/** @throws {CheckpointError} where a chunk is not what was written. */
function check({ path, start, bytes, hash, copies }: WantedChunk, read: PartRead): void {
  if (read.length < bytes) throw damaged(path, start, copies[0].name, "the file ends before");
  if (read.hash !== hash) throw damaged(path, start, copies[0].name, "its bytes are not those that were written");
}

/** Puts what a chunk has in place; what lies side by side in memory goes there at once. */
async function scatter(
  chunk: Uint8Array<ArrayBuffer>,
  { start, copies }: WantedChunk,
  memory: Destination,
): Promise<void> {
  const parts = copies.map(({ begin, bytes, skip, length, to, saved, wanted }) => {
    const made = converted(chunk.subarray(begin - start, begin - start + bytes), saved, wanted);
    const size = dtypeBytes[wanted];
    return { bytes: made.subarray(skip * size, (skip + length) * size), to };
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
