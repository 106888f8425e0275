/** A look into checkpoints, without a model and without the native library: what is there, what it holds, whether every byte is
 * what was written, and in what two differ.
 * @module */
import { dtypeBytes, numel, type State } from "../../graph/ir.ts";
import { bytesText, table } from "../report/plan_report.ts";
import { computedType, numbersOf, type TypedArray, typedArray } from "../typed_array.ts";
import { readChunks, readerHere } from "./chunk_reader.ts";
import { CheckpointError } from "./error.ts";
import { tensorsIn } from "./headers.ts";
import { type Checkpoint, CHUNK_BYTES, fileOf, MANIFEST, type Manifest, namesText } from "./manifest.ts";
import { findCheckpoints } from "./open.ts";
import { type Destination, readStates } from "./read.ts";
import { STATE_FILE } from "./save.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** A tensor whole, whatever pieces it was saved in; bf16, f16 and blocks of GGUF as f32.
 * @param verify are bytes compared with their hashes? @throws {CheckpointError} when it is damaged. */
export async function readTensor(checkpoint: Checkpoint, name: string, verify = true): Promise<TypedArray> {
  const { kind, dtype: stored, shape } = checkpoint.manifest.tensors[name], dtype = computedType(stored);
  const state: State = { name, kind, dtype, shape }, bytes = new Uint8Array(numel(shape) * dtypeBytes[dtype]);
  const memory: Destination = { write: (offset, from) => Promise.resolve(bytes.set(from, offset)) };
  const box = { starts: shape.map(() => 0), sizes: shape };
  await readStates(checkpoint, [{ state, offset: 0, dtype, box }], { memory, verify });
  return numbersOf(typedArray(dtype, bytes.buffer, 0, numel(shape)), dtype);
}

/** What lies in a folder of checkpoints. */
export interface Listing {
  /** The latest first. */
  readonly checkpoints: readonly { path: string; step: number; content: string; bytes: number }[];
  /** Why others are none. */
  readonly broken: readonly string[];
  /** Folders whose save is under way, or was cut off. */
  readonly unfinished: readonly string[];
}

/** The checkpoints of a folder.
 * @throws {CheckpointError} when there is no such folder, or it is a checkpoint itself. */
export function listing(path: string): Listing {
  const folder = path.replace(/(?<=.)\/+$/, "");
  const refuse = (what: string, fix: string) => {
    return new CheckpointError(`Cannot list ${folder}: ${what}`, "a folder with checkpoints, such as step-100", fix);
  };
  const names = namesIn(folder);
  if (!names) {
    throw refuse("there is no such folder", "correct the path, or save a checkpoint (train --checkpoint.enable)");
  }
  if (names.includes(MANIFEST)) throw refuse("it is itself a checkpoint", `show it: checkpoint show ${folder}`);
  const { complete, broken } = findCheckpoints(folder);
  return {
    checkpoints: complete.map(({ path, manifest }) => {
      const bytes = Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0);
      return { path, step: manifest.step, content: contentText(manifest), bytes };
    }),
    broken: broken.map(({ reason }) => reason.message.split("\n")[0]),
    unfinished: names.filter((name) => /^step-\d+\.tmp$/.test(name)).sort().map((name) => `${folder}/${name}`),
  };
}

/** The checkpoints of a folder, a line each; then what is none, and why.
 * @throws {CheckpointError} as {@linkcode listing} does. */
export function listText(path: string): string {
  const { checkpoints, broken, unfinished } = listing(path), folder = path.replace(/(?<=.)\/+$/, "");
  const width = Math.max(...checkpoints.map(({ path }) => path.length));
  const within = findCheckpoints(`${folder}/checkpoint`).complete.length > 0;
  return [
    checkpoints.length > 0
      ? checkpoints.map(({ path, step, content, bytes }) =>
        `  ${path.padEnd(width)}  step ${count(step)}, ${content}, ${bytesText(bytes)}`
      ).join("\n")
      : `no complete checkpoint in ${folder}${within ? `; there are some in ${folder}/checkpoint` : ""}`,
    ...broken.map((reason) => `  ${reason}`),
    ...unfinished.map((path) => `  ${path} is no checkpoint: its save is under way, or was cut off`),
  ].join("\n");
}

/** What lies in a folder; undefined where there is none. */
function namesIn(folder: string): string[] | undefined {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new CheckpointError(
      `Cannot list ${folder}: ${(error as Error).message}`,
      "a folder that this process may read",
      "name another",
    );
  }
}

/** What it is that was saved. */
function contentText({ content, files }: Pick<Manifest, "content" | "files">): string {
  if (!(STATE_FILE in files)) return "weights as transformers saves them";
  return content === "full" ? "whole run" : "parameters alone";
}

/** A tensor of a checkpoint. */
export interface ShownTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly pieces: number;
  readonly norm: number;
}

/** What a checkpoint holds but its tensors. */
export function contentOf({ path, manifest: { step, files, tensors, content } }: Checkpoint): {
  path: string;
  /** Of a run; null where nobody counted. */
  step: number | null;
  content: string;
  parameters: number;
  /** Bytes of each. */
  files: Record<string, number>;
} {
  const parameters = Object.values(tensors).reduce(
    (n, { kind, shape }) => kind === "parameter" ? n + numel(shape) : n,
    0,
  );
  return {
    ...{ path, step: STATE_FILE in files ? step : null, content: contentText({ content, files }), parameters },
    files: Object.fromEntries(Object.entries(files).map(([name, { bytes }]) => [name, bytes])),
  };
}

/** Its tensors, one after the other, as each is read for its norm. */
export async function* shownTensors(checkpoint: Checkpoint): AsyncGenerator<ShownTensor, void> {
  const { files, tensors } = checkpoint.manifest, pieces = new Map<string, number>();
  for (const { tensor } of Object.keys(files).flatMap((file) => checkpoint.piecesIn(file))) {
    pieces.set(tensor, (pieces.get(tensor) ?? 0) + 1);
  }
  for (const [name, { dtype, shape }] of Object.entries(tensors)) {
    let squares = 0;
    for (const x of await readTensor(checkpoint, name)) squares += x * x;
    yield { name, dtype, shape, pieces: pieces.get(name) ?? 0, norm: Math.sqrt(squares) };
  }
}

/** What a checkpoint holds, line by line: its files, and every tensor with type, shape, number of pieces and norm. */
export async function* showLines(checkpoint: Checkpoint): AsyncGenerator<string, void> {
  const { path, step, content, parameters, files } = contentOf(checkpoint);
  yield `${path}: ${step === null ? "" : `step ${count(step)}, `}${content}, ${count(parameters)} parameters`;
  yield "Files";
  yield table(Object.entries(files).map(([name, bytes]) => [name, bytesText(bytes)] as const));
  yield "Tensors";
  const width = Math.max(...Object.keys(checkpoint.manifest.tensors).map((name) => name.length));
  for await (const { name, dtype, shape, pieces, norm } of shownTensors(checkpoint)) {
    const parts = pieces === 1 ? "1 piece" : `${pieces} pieces`;
    yield `  ${name.padEnd(width)}  ${dtype}[${shape}], ${parts}, norm ${norm.toPrecision(6)}`;
  }
}

/** Compares every byte with the manifest's hashes, several chunks at once: a line for each file that is not what was written; none
 * where all are.
 * @param progress is told the bytes that have been compared, and those of all files.
 * @throws {CheckpointError} when there are no hashes, so that nothing can be said, or a file cannot be read. */
export async function damages(
  checkpoint: Checkpoint,
  progress: (done: number, all: number) => void = () => {},
): Promise<string[]> {
  const { path, manifest } = checkpoint;
  const files = Object.entries(manifest.files), all = files.reduce((sum, [, { bytes }]) => sum + bytes, 0);
  if (files.every(([, { sha256 }]) => sha256.length === 0)) {
    throw new CheckpointError(
      `Cannot verify ${path}: nobody has made hashes of its files`,
      "a checkpoint that a run has saved",
      "compare the files with the hashes of whoever published them (sha256sum)",
    );
  }
  const damaged = new Map<string, number[]>();
  let done = 0;
  await readChunks(chunksOf(checkpoint), readerHere, ({ name, number, bytes, hash }, read) => {
    if (read.length < bytes || read.hash !== hash) damaged.set(name, [...damaged.get(name) ?? [], number]);
    progress(done += bytes, all);
  });
  return files.flatMap(([name, { bytes }]) => {
    const bad = damaged.get(name)?.sort((a, b) => a - b);
    if (!bad) return [];
    const range = (chunk: number) => [chunk * CHUNK_BYTES, Math.min(bytes, (chunk + 1) * CHUNK_BYTES)] as const;
    const hit = new Set(bad.flatMap((chunk) => tensorsIn(checkpoint, name, ...range(chunk)))),
      [from, to] = range(bad[0]);
    const more = bad.length > 1
      ? `, and in ${bad.length - 1} more chunk${bad.length > 2 ? "s" : ""} of ${bytesText(CHUNK_BYTES)}`
      : "";
    return [`${name} is damaged in bytes ${from} to ${to - 1}${more}${namesText([...hit], ", where it has ")}`];
  });
}

/** The chunks of all files, each with the hash that it should have. */
function chunksOf(checkpoint: Checkpoint) {
  return Object.entries(checkpoint.manifest.files).flatMap(([name, { bytes, sha256 }]) =>
    Array.from({ length: Math.max(1, Math.ceil(bytes / CHUNK_BYTES)) }, (_, number) => {
      const start = number * CHUNK_BYTES, path = fileOf(checkpoint, name), hash = sha256[number];
      return { name, number, path, start, bytes: Math.min(CHUNK_BYTES, bytes - start), hashed: true, hash };
    })
  );
}

/** In what two checkpoints differ, a line for each tensor; none where all tensors are the same, bit for bit. */
export async function differences(a: Checkpoint, b: Checkpoint): Promise<string[]> {
  const names = [...new Set([a, b].flatMap((c) => Object.keys(c.manifest.tensors)))], lines: string[] = [];
  for (const name of names) {
    const [one, other] = [a, b].map((c) => c.manifest.tensors[name]);
    if (!one || !other) {
      lines.push(`${name} is only in ${one ? a.path : b.path}`);
      continue;
    }
    const types = [one, other].map(({ dtype, shape }) => `${dtype}[${shape}]`);
    if (String(one.shape) !== String(other.shape)) {
      lines.push(`${name} is ${types.join(" and ")}`);
      continue;
    }
    const [x, y] = [await readTensor(a, name), await readTensor(b, name)];
    let [largest, differ] = [0, 0];
    x.forEach((value, i) => {
      if (Object.is(value, y[i])) return;
      differ++;
      largest = Math.max(largest, Math.abs(value - y[i])); // not a number where one is none
    });
    const typed = types[0] === types[1] ? "" : `${types.join(" and ")}, `;
    if (differ > 0) {
      lines.push(
        `${name}: ${typed}${count(differ)} of ${count(x.length)} values differ, by ${largest.toPrecision(3)} at most`,
      );
    } else if (typed !== "") lines.push(`${name}: ${typed}the same values`);
  }
  return lines;
}
