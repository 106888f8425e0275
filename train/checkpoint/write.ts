/** Writing a rank's share of a checkpoint: its pieces of states, from native memory into safetensors files. A file goes chunk by chunk
 * through three stages that work beside each other: copied out of native memory, hashed, written.
 * @module */
import { type DType, dtypeBytes, type StateKind } from "../../graph/ir.ts";
import type { Box } from "../../graph/layout.ts";
import { storedBytes, type StoredType } from "../typed_array.ts";
import type { Loadable } from "./chunk_reader.ts";
import { sha256, writeFully } from "./files.ts";
import { CHUNK_BYTES, type SavedFile } from "./manifest.ts";
import { placesText } from "./headers.ts";
import { type Piece, pieceBytes, stretches } from "./pieces.ts";
import { encodeElements, encodeHeader } from "../weights/safetensors.ts";
import type { Staging } from "./staging.ts";

/** Native memory of states, by byte offset. */
export interface StateMemory extends Loadable {
  /** Fills `into` from an offset on. */
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Copies `from` to an offset. */
  write(offset: number, from: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** Where a rank has its part of a state. */
export interface LocalState {
  /** Byte offset in native memory. */
  readonly offset: number;
  /** Which part of the whole it is; sizes with padding. */
  readonly box: Box;
  /** Element type of what lies there. */
  readonly dtype: DType;
}

/** What a rank has written. */
export type WrittenShare = Readonly<Record<string, SavedFile>>;

/** A share on its way. */
export interface WritingShare {
  /** Fulfilled when nothing more is read of the states, also where that ended in a failure. */
  readonly copied: Promise<void>;
  /** Fulfilled when all files are on the disk. */
  readonly written: Promise<WrittenShare>;
}

/** What {@linkcode writeShare} needs to know. */
export interface ShareOptions {
  readonly rank: number;
  readonly ranks: number;
  readonly step: number;
  readonly memory: StateMemory;
  readonly localOf: (name: string) => LocalState;
  /** The most that is copied ahead of the disk. */
  readonly staging: Staging;
}

/** The files that states of a kind go to. */
const fileOf: Partial<Record<StateKind, string>> = { parameter: "model", moment: "optimizer", buffer: "buffers" };

/** So many chunks are filled at once: enough to use the memory's bandwidth, few enough to leave most of it to a step that runs. */
const COPIERS = 2;

/** Writes pieces of states into a folder, in the element type that a piece's state has, a file for each kind of state: `model-00001-of-00004.safetensors` of four ranks, and
 * `model.safetensors` where there is one.
 * @param pieces that this rank writes, in order. */
export function writeShare(folder: string, pieces: readonly Piece[], options: ShareOptions): WritingShare {
  const { memory, staging } = options, files = planFiles(pieces, options);
  const chunks = files.flatMap((file) => file.chunks);
  let next = 0, failure: { readonly error: unknown } | undefined;
  const fail = (error: unknown) => failure ??= { error };
  const copy = async () => {
    while (next < chunks.length) {
      const { start, bytes, parts, filled } = chunks[next++];
      const into = failure ? undefined : await staging.take(); // who writes gives chunks back also after a failure
      if (into) await fill(into.subarray(0, bytes), { start, parts, memory }).catch(fail);
      filled.resolve(into);
    }
  };
  const written = Promise.all(files.map(async (file): Promise<SavedFile> => {
    const hashes: string[] = [];
    let output: Deno.FsFile | undefined;
    const failed = (error: unknown) => fail(new Error(`${file.name}: ${(error as Error).message}`));
    try {
      output = await Deno.open(`${folder}/${file.name}`, { write: true, createNew: true });
    } catch (error) {
      failed(error);
    }
    for (const { bytes, filled } of file.chunks) {
      const chunk = await filled.promise;
      if (chunk && output && !failure) {
        const part = chunk.subarray(0, bytes), writing = writeFully(output, part).catch(failed);
        hashes.push(sha256(part)); // on this thread, which has nothing else to do: a step leaves the others no time
        await writing;
      }
      if (chunk) staging.give(chunk);
    }
    if (!failure) await output?.sync().catch(failed);
    output?.close();
    return { bytes: file.bytes, sha256: hashes, header: file.header };
  })).then((saved): WrittenShare => {
    if (failure) throw failure.error;
    return Object.fromEntries(files.map(({ name }, i) => [name, saved[i]]));
  });
  const copied = Promise.all(Array.from({ length: COPIERS }, copy)).then(() => {});
  return { copied, written };
}

/** Bytes of a file that come from one place. */
interface Part {
  /** First byte in the file, and the one behind the last. */
  readonly begin: number;
  readonly end: number;
  /** They are there already, or in native memory from this offset on, in this element type. */
  readonly from: Uint8Array | { readonly offset: number; readonly dtype: DType };
  /** Element type in the file. */
  readonly dtype: StoredType;
  /** Name of the tensor; "" of what is none. */
  readonly name: string;
}

interface Chunk {
  /** First byte in the file. */
  readonly start: number;
  readonly bytes: number;
  readonly parts: Part[];
  /** Undefined: there was a failure before. */
  readonly filled: PromiseWithResolvers<Uint8Array<ArrayBuffer> | undefined>;
}

interface PlannedFile {
  readonly name: string;
  readonly bytes: number;
  readonly chunks: readonly Chunk[];
  /** Its hash. */
  readonly header: string;
}

/** A number as names of files have it. */
export function numberText(n: number): string {
  return String(n).padStart(5, "0");
}

function planFiles(pieces: readonly Piece[], { rank, ranks, step, localOf }: ShareOptions): PlannedFile[] {
  const suffix = ranks === 1 ? "" : `-${numberText(rank + 1)}-of-${numberText(ranks)}`;
  return [...Map.groupBy(pieces, (p) => p.state.kind)].map(([kind, own]): PlannedFile => {
    const name = `${fileOf[kind]!}${suffix}.safetensors`;
    // Larger elements first: each tensor then begins at a multiple of its element's size.
    const ordered = own.toSorted((a, b) => storedBytes[b.state.dtype] - storedBytes[a.state.dtype]);
    const tensors = ordered.map((piece) => {
      const { state: { name, dtype }, sizes } = piece;
      return { name, dtype, shape: sizes, bytes: pieceBytes(piece) };
    });
    const { bytes, header } = encodeHeader(tensors, { format: "pt", step: String(step), ...placesText(ordered) });
    const parts: Part[] = [{ begin: 0, end: bytes.length, from: bytes, dtype: "i32", name: "" }];
    for (const piece of ordered) {
      const { begin } = header.tensors.get(piece.state.name)!;
      parts.push(...partsOf(piece, localOf(piece.state.name), begin));
    }
    return { name, bytes: header.fileBytes, chunks: chunksOf(parts), header: sha256(bytes) };
  });
}

function* partsOf(piece: Piece, local: LocalState, begin: number): Generator<Part> {
  const { name, dtype } = piece.state, size = storedBytes[dtype];
  let at = begin;
  for (const { from, length } of stretches(local.box, piece)) {
    const end = at + length * size;
    yield {
      begin: at,
      end,
      dtype,
      name,
      from: { offset: local.offset + from * dtypeBytes[local.dtype], dtype: local.dtype },
    };
    at = end;
  }
}

/** Cuts a file, whose parts lie one behind another, into chunks. */
function chunksOf(parts: readonly Part[]): Chunk[] {
  const bytes = parts.at(-1)!.end, chunks: Chunk[] = [];
  for (let start = 0; start < bytes; start += CHUNK_BYTES) {
    chunks.push({ start, bytes: Math.min(CHUNK_BYTES, bytes - start), parts: [], filled: Promise.withResolvers() });
  }
  for (const part of parts) {
    for (let k = Math.floor(part.begin / CHUNK_BYTES); k * CHUNK_BYTES < part.end; k++) chunks[k].parts.push(part);
  }
  return chunks;
}

/** Puts what a chunk is made of into `into`. */
async function fill(
  into: Uint8Array<ArrayBuffer>,
  { start, parts, memory }: Pick<Chunk, "start" | "parts"> & { readonly memory: StateMemory },
): Promise<void> {
  for (const { begin, end, from, dtype, name } of parts) {
    const first = Math.max(begin, start), last = Math.min(end, start + into.length);
    const own = into.subarray(first - start, last - start);
    if (from instanceof Uint8Array) {
      own.set(from.subarray(first, last));
      continue;
    }
    const element = (first - begin) / storedBytes[dtype], offset = from.offset + element * dtypeBytes[from.dtype];
    if (from.dtype === dtype) await memory.read(offset, own);
    else {
      const stored = new Uint8Array(own.length / storedBytes[dtype] * dtypeBytes[from.dtype]);
      await memory.read(offset, stored);
      own.set(encodeElements(stored, { name, from: from.dtype, to: dtype }));
    }
  }
}
