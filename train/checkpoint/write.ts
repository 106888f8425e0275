/** Writing a rank's share of a checkpoint: its pieces of states, from native memory into safetensors files.
 * @module */
import { type DType, dtypeBytes, numel, type StateKind } from "../../graph/ir.ts";
import type { Box } from "../../graph/layout.ts";
import { converted } from "../typed_array.ts";
import { HashingWriter } from "./files.ts";
import { BLOCK_BYTES, type SavedFile, type SavedPiece } from "./manifest.ts";
import { type Piece, pieceBytes, stretches } from "./pieces.ts";
import { encodeHeader } from "./safetensors.ts";

/** Native memory of states, by byte offset. */
export interface StateMemory {
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
export interface WrittenShare {
  readonly files: Readonly<Record<string, SavedFile>>;
  /** By state. */
  readonly pieces: Readonly<Record<string, SavedPiece>>;
}

/** The files that states of a kind go to. */
const fileOf: Partial<Record<StateKind, string>> = { parameter: "model", moment: "optimizer" };

/** Writes pieces of states into a folder, in the element type that a piece's state has, a file for each kind of state: `model-00001-of-00004.safetensors` of four ranks, and
 * `model.safetensors` where there is one.
 * @param pieces that this rank writes, in order. */
export async function writeShare(
  folder: string,
  pieces: readonly Piece[],
  options: {
    readonly rank: number;
    readonly ranks: number;
    readonly step: number;
    readonly memory: StateMemory;
    readonly localOf: (name: string) => LocalState;
  },
): Promise<WrittenShare> {
  const { rank, ranks, step, memory, localOf } = options;
  const number = (n: number) => String(n).padStart(5, "0");
  const suffix = ranks === 1 ? "" : `-${number(rank + 1)}-of-${number(ranks)}`;
  const files: Record<string, SavedFile> = {}, written: Record<string, SavedPiece> = {};
  for (const [kind, own] of Map.groupBy(pieces, (p) => p.state.kind)) {
    const file = `${fileOf[kind]!}${suffix}.safetensors`;
    // Larger elements first: each tensor then begins at a multiple of its element's size.
    const ordered = own.toSorted((a, b) => dtypeBytes[b.state.dtype] - dtypeBytes[a.state.dtype]);
    const { bytes, header } = encodeHeader(
      ordered.map((piece) => ({
        name: piece.state.name,
        dtype: piece.state.dtype,
        shape: piece.sizes,
        bytes: pieceBytes(piece),
      })),
      { format: "pt", step: String(step), ...placesOf(ordered) },
    );
    using writer = new HashingWriter(`${folder}/${file}`);
    writer.write(bytes);
    for (const piece of ordered) {
      await writePiece(writer, piece, localOf(piece.state.name), memory);
      const { begin } = header.tensors.get(piece.state.name)!;
      written[piece.state.name] = { file, begin, starts: piece.starts, sizes: piece.sizes };
    }
    files[file] = writer.finish();
  }
  return { files, pieces: written };
}

/** In the metadata of a file: of tensors that are parts, the whole shape and where the part begins. */
function placesOf(pieces: readonly Piece[]): Record<string, string> {
  const parts = pieces.filter((p) => String(p.sizes) !== String(p.state.shape));
  if (parts.length === 0) return {};
  const places = parts.map((p) => [p.state.name, { shape: p.state.shape, starts: p.starts }]);
  return { pieces: JSON.stringify(Object.fromEntries(places)) };
}

async function writePiece(writer: HashingWriter, piece: Piece, local: LocalState, memory: StateMemory): Promise<void> {
  const size = dtypeBytes[local.dtype], chunk = new Uint8Array(Math.min(BLOCK_BYTES, numel(piece.sizes) * size));
  for (const { from, length } of stretches(local.box, piece)) {
    for (let at = 0; at < length * size; at += chunk.length) {
      const part = chunk.subarray(0, Math.min(chunk.length, length * size - at));
      await memory.read(local.offset + from * size + at, part);
      writer.write(converted(part, local.dtype, piece.state.dtype));
    }
  }
}
