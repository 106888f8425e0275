/** Which pieces of tensors the files of a checkpoint have. Their own headers say it, so that a rank reads no more than it needs.
 * @module */
import { numel } from "../../graph/ir.ts";
import { fileBytes } from "../typed_array.ts";
import { readHeader } from "../weights/safetensors.ts";
import { CheckpointError } from "./error.ts";
import { type Checkpoint, fileOf, type Manifest, namesText, type SavedPiece } from "./manifest.ts";

/** So many pieces are remembered. More are read again where they are asked for again: a large run has millions. */
const REMEMBERED = 1_000_000;

/** What a header's metadata say of a tensor that is a part. */
interface Place {
  readonly shape: readonly number[];
  readonly starts: readonly number[];
}

/** What a file's metadata say of pieces of tensors: the whole shape, and where the piece begins. */
export function placesText(
  pieces: readonly {
    readonly state: { readonly name: string; readonly shape: readonly number[] };
    readonly starts: readonly number[];
    readonly sizes: readonly number[];
  }[],
): Record<string, string> {
  const parts = pieces.filter((p) => String(p.sizes) !== String(p.state.shape));
  if (parts.length === 0) return {};
  const places = parts.map((p): [string, Place] => [p.state.name, { shape: p.state.shape, starts: p.starts }]);
  return { pieces: JSON.stringify(Object.fromEntries(places)) };
}

/** A folder with a manifest, whose files are asked for their pieces when somebody needs them. */
export function withHeaders(path: string, manifest: Manifest): Checkpoint {
  const known = new Map<string, readonly SavedPiece[]>();
  let remembered = 0;
  const checkpoint: Checkpoint = {
    path,
    manifest,
    piecesIn(file) {
      const pieces = known.get(file) ?? read(`${path}/${file}`, file, manifest);
      if (!pieces) {
        throw new CheckpointError(
          `${path}/${file} is damaged behind byte 0${namesText(tensorsIn(checkpoint, file), ", in ")}: ` +
            "its header is not the one that was written",
          "the header that its manifest has the hash of",
          "put the file back, or choose another checkpoint (checkpoint.load_step)",
        );
      }
      if (!known.has(file) && (remembered += pieces.length) <= REMEMBERED) known.set(file, pieces);
      return pieces;
    },
  };
  return checkpoint;
}

/** The pieces that a file's header names; undefined where it is not the header that was written. */
function read(path: string, file: string, { files, tensors }: Manifest): SavedPiece[] | undefined {
  const { header: hash } = files[file];
  if (hash === undefined) return [];
  try {
    const header = readHeader(path, hash);
    const places: Record<string, Place> = JSON.parse(header.metadata.pieces ?? "{}");
    return [...header.tensors].filter(([tensor]) => tensor in tensors).map(([tensor, { begin, shape: sizes }]) => {
      return { tensor, file, begin, starts: places[tensor]?.starts ?? sizes.map(() => 0), sizes };
    });
  } catch (error) {
    if (error instanceof CheckpointError) return undefined;
    throw error;
  }
}

/** The tensors that have a piece in a part of a file. Where its header cannot be read: those that no other file has whole. */
export function tensorsIn(checkpoint: Checkpoint, file: string, begin = 0, end = Infinity): string[] {
  const { path, manifest } = checkpoint, { files, tensors } = manifest;
  const own = read(fileOf(checkpoint, file), file, manifest);
  if (own) {
    const inside = own.filter(({ tensor, begin: from, sizes }) => {
      return from < end && from + fileBytes(tensors[tensor].dtype, numel(sizes)) > begin;
    });
    return inside.map(({ tensor }) => tensor);
  }
  const left = new Map(Object.entries(tensors).map(([name, { shape }]) => [name, numel(shape)]));
  for (const other of Object.keys(files)) {
    for (const { tensor, sizes } of read(`${path}/${other}`, other, manifest) ?? []) {
      left.set(tensor, left.get(tensor)! - numel(sizes));
    }
  }
  return [...left].filter(([, elements]) => elements > 0).map(([name]) => name);
}
