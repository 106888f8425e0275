/** A look into checkpoints, without a model and without the native library: what is there, what it holds, whether every byte is
 * what was written, and in what two differ.
 * @module */
import { dtypeBytes, numel, type State } from "../../graph/ir.ts";
import { bytesText, table } from "../plan_report.ts";
import { numbersOf, type TypedArray, typedArray } from "../typed_array.ts";
import { sha256 } from "./files.ts";
import { BLOCK_BYTES, type Checkpoint, type Found } from "./manifest.ts";
import { readStates } from "./read.ts";
import { openToRead, readFully } from "./safetensors.ts";
import type { StateMemory } from "./write.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** A tensor whole, whatever pieces it was saved in; bf16 and f16 as f32.
 * @param verify are bytes compared with their hashes? @throws {CheckpointError} when it is damaged. */
export async function readTensor(checkpoint: Checkpoint, name: string, verify = true): Promise<TypedArray> {
  const { kind, dtype: stored, shape } = checkpoint.manifest.tensors[name], dtype = stored === "f16" ? "f32" : stored;
  const state: State = { name, kind, dtype, shape }, bytes = new Uint8Array(numel(shape) * dtypeBytes[dtype]);
  const memory: StateMemory = {
    read: () => Promise.reject(new Error("nothing reads from here")),
    write: (offset, from) => Promise.resolve(bytes.set(from, offset)),
  };
  const box = { starts: shape.map(() => 0), sizes: shape };
  await readStates(checkpoint, [{ state, offset: 0, dtype, box }], { memory, verify });
  return numbersOf(typedArray(dtype, bytes.buffer, 0, numel(shape)), dtype);
}

/** The checkpoints of a folder, a line each, the latest first; then what is none, and why. */
export function listText({ complete, broken }: Found): string {
  const rows = complete.map(({ path, manifest }) => {
    const bytes = Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0);
    const content = manifest.content === "full" ? "whole run" : "parameters alone";
    return [path, `step ${count(manifest.step)}, ${content}, ${bytesText(bytes)}`] as const;
  });
  return [
    rows.length > 0 ? table(rows) : "no complete checkpoint",
    ...broken.map(({ reason }) => `  ${reason.message.split("\n")[0]}`),
  ].join("\n");
}

/** What a checkpoint holds: its files, and every tensor with type, shape, number of pieces and norm. */
export async function showText(checkpoint: Checkpoint): Promise<string> {
  const { path, manifest: { step, content, files, tensors } } = checkpoint;
  const rows: [string, string][] = [];
  let parameters = 0;
  for (const [name, { kind, dtype, shape, pieces }] of Object.entries(tensors)) {
    let squares = 0;
    for (const x of await readTensor(checkpoint, name)) squares += x * x;
    const norm = Math.sqrt(squares);
    if (kind === "parameter") parameters += numel(shape);
    rows.push([
      name,
      `${dtype}[${shape}], ${pieces.length === 1 ? "1 piece" : `${pieces.length} pieces`}, norm ${norm.toPrecision(6)}`,
    ]);
  }
  return `${path}: step ${count(step)}, ${content === "full" ? "a whole run" : "parameters alone"}, ${
    count(parameters)
  } parameters
Files
${table(Object.entries(files).map(([name, { bytes }]) => [name, bytesText(bytes)] as const))}
Tensors
${table(rows)}`;
}

/** Compares every byte with the manifest's hashes: a line for each file that is not what was written; none where all are. */
export function damages({ path, manifest }: Checkpoint): string[] {
  return Object.entries(manifest.files).flatMap(([name, { bytes, sha256: hashes }]) => {
    using file = openToRead(`${path}/${name}`);
    const block = new Uint8Array(Math.min(BLOCK_BYTES, Math.max(1, bytes)));
    const bad = hashes.findIndex((hash, k) => {
      const part = block.subarray(0, Math.min(block.length, bytes - k * BLOCK_BYTES));
      return readFully(file, part) < part.length || sha256(part) !== hash;
    });
    if (bad < 0) return [];
    const [from, to] = [bad * BLOCK_BYTES, Math.min(bytes, (bad + 1) * BLOCK_BYTES)];
    return [`${name} is damaged in bytes ${from} to ${to - 1}`];
  });
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
