/** Reading states from a checkpoint: each rank takes the bytes that it needs, whatever pieces they were saved in.
 * @module */
import { type DType, dtypeBytes, type State } from "../../graph/ir.ts";
import { converted, storedBytes, type StoredType } from "../typed_array.ts";
import { CheckpointError } from "./error.ts";
import { sha256 } from "./files.ts";
import { BLOCK_BYTES, type Checkpoint, type SavedFile } from "./manifest.ts";
import { stretches } from "./pieces.ts";
import { openToRead, readFully } from "./safetensors.ts";
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

/** What is read, and how. */
export interface ReadOptions {
  readonly memory: StateMemory;
  /** Are bytes compared with the manifest's hashes? */
  readonly verify: boolean;
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
  for (const [file, list] of copies) {
    await readFile(`${from.path}/${file}`, from.manifest.files[file], list.sort((a, b) => a.begin - b.begin), options);
  }
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
  for (const { name, shape } of states) {
    const saved = manifest.tensors[name];
    if (!saved) {
      refuse(
        manifest.content === "model" && name.startsWith("moment")
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

/** Goes through a file block by block, as far as blocks are needed. */
async function readFile(
  path: string,
  { bytes, sha256: hashes }: SavedFile,
  copies: readonly Copy[],
  { memory, verify }: ReadOptions,
): Promise<void> {
  if (copies.length === 0) return;
  using file = openToRead(path);
  const block = new Uint8Array(Math.min(BLOCK_BYTES, bytes));
  /** The first copy that is not done with. */
  let next = 0;
  for (let k = -1; next < copies.length;) {
    k = Math.max(k + 1, Math.floor(copies[next].begin / BLOCK_BYTES));
    const start = k * BLOCK_BYTES, part = block.subarray(0, Math.min(BLOCK_BYTES, bytes - start));
    let last = next;
    while (last < copies.length && copies[last].begin < start + part.length) last++;
    const inside = copies.slice(next, last);
    file.seekSync(start, Deno.SeekMode.Start);
    if (readFully(file, part) < part.length) throw damaged(path, start, inside[0].name, "the file ends before");
    if (verify && hashes.length > 0 && sha256(part) !== hashes[k]) {
      throw damaged(path, start, inside[0].name, "its bytes are not those that were written");
    }
    await scatter(part, start, inside, memory);
    while (next < copies.length && copies[next].begin + copies[next].bytes <= start + part.length) next++;
  }
}

/** Puts what a block has of some copies in place; what lies side by side in memory goes there at once. */
async function scatter(
  block: Uint8Array<ArrayBuffer>,
  start: number,
  copies: readonly Copy[],
  memory: StateMemory,
): Promise<void> {
  const parts: { bytes: Uint8Array<ArrayBuffer>; to: number }[] = [];
  for (const { begin, bytes, to, saved, wanted } of copies) {
    const [first, end] = [Math.max(begin, start), Math.min(begin + bytes, start + block.length)];
    if (first >= end) continue;
    const own = block.subarray(first - start, end - start);
    const at = to + (first - begin) / storedBytes[saved] * dtypeBytes[wanted];
    parts.push({ bytes: converted(own, saved, wanted), to: at });
  }
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
