/** Reads the golden files that other programs made; `tests/goldens/parity/README.md` says what is in them.
 * @module */

/** A tensor of a safetensors file, row-major. */
export interface GoldenTensor {
  readonly dtype: "F64" | "F32" | "I32";
  readonly shape: readonly number[];
  readonly data: Float64Array | Float32Array | Int32Array;
}

const arrays = { F64: Float64Array, F32: Float32Array, I32: Int32Array } as const;

/** Reads every tensor of a safetensors file whose dtypes are F64, F32 or I32, in file order.
 * @throws TypeError on any other dtype. */
export function readSafetensors(path: string | URL): Map<string, GoldenTensor> {
  const bytes = Deno.readFileSync(path);
  const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)),
  );
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (dtype !== "F64" && dtype !== "F32" && dtype !== "I32") {
      throw new TypeError(`${path}: "${name}" is ${dtype}\n  expected: F64, F32 or I32`);
    }
    // a copy, since a tensor may start where its elements are not aligned
    const data = new arrays[dtype](bytes.slice(8 + headerBytes + begin, 8 + headerBytes + end).buffer);
    tensors.set(name, { dtype, shape, data });
  }
  return tensors;
}

/** The folder `tests/goldens/parity`. */
export const parityFolder: URL = new URL("./goldens/parity/", import.meta.url);
