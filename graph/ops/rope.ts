/** Rotary position embedding in the adjacent-pair form (Su et al. 2021): the pair (x[2i], x[2i+1]) of a head is turned by the
 * angle p f_i, with f_i = theta^(-2i/K).
 * @module */
import { STORED } from "../attributes.ts";
import { arr } from "../array.ts";
import { type Attrs, isReal } from "../ir.ts";
import { defineOp, mayBeBf16, num, type Op, str } from "../op.ts";

/** Frequencies f_i, i < K/2, with Llama 3.1's scaling: wavelengths over original/low are stretched by `factor`, those under
 * original/high are kept, those between are blended linearly in original/wavelength. `factor` 1 turns it off. */
export function ropeFrequencies(size: number, attrs: Attrs): number[] {
  const [theta, factor, low, high, original] = ["theta", "factor", "low", "high", "original"].map((k) => num(attrs[k]));
  return Array.from({ length: size / 2 }, (_, i) => {
    const f = theta ** (-2 * i / size), wave = 2 * Math.PI / f;
    if (wave < original / high) return f;
    if (wave > original / low) return f / factor;
    const s = (original / wave - low) / (high - low);
    return (1 - s) * f / factor + s * f;
  });
}

/** Positions `[...]` to rows of (cos, sin) pairs `[..., K]`. */
export const ropeTable: Op = defineOp({
  name: "rope_table",
  attrs: {
    theta: { type: "number", doc: "base of the frequencies" },
    factor: { type: "number", doc: "by which long wavelengths are stretched" },
    low: { type: "number", doc: "wavelengths over original/low are long" },
    high: { type: "number", doc: "wavelengths under original/high are kept" },
    original: { type: "number", doc: "the context that the model was made for" },
    dtype: { type: "text", doc: "type of the rows" },
    size: { type: "integer", doc: "of a head" },
  },
  dims: "... -> ... k",
  infer: ([positions], attrs) => {
    const dtype = str(attrs.dtype) as "f32" | "f64", size = num(attrs.size);
    if (isReal(positions.dtype)) throw new TypeError(`positions are ${positions.dtype}, expected i32`);
    if (size % 2 !== 0) throw new TypeError(`head size ${size} is odd; rotation needs pairs`);
    return [{ dtype, shape: [...positions.shape, size] }];
  },
  reference: ([positions], attrs, [type]) => {
    const size = num(attrs.size), f = ropeFrequencies(size, attrs), out = arr(type.shape);
    positions.data.forEach((p, n) =>
      f.forEach((fi, i) => {
        out.data[n * size + 2 * i] = Math.cos(p * fi);
        out.data[n * size + 2 * i + 1] = Math.sin(p * fi);
      })
    );
    return [out];
  },
  vjp: () => [],
  split: { whole: ["k"] },
  recompute: "cheap",
});

/** Turns the pairs of every head `[..., H, K]` by the angles of a table `[..., K]`; `inverse` turns back. */
export const rope: Op = defineOp({
  name: "rope",
  attrs: { inverse: { type: "flag", optional: true, doc: "turn back?" }, ...STORED },
  integers: [],
  dims: "... h k, ... k -> ... h k",
  bf16: mayBeBf16([0], [0]),
  reference: ([x, table], attrs) => {
    const size = x.shape.at(-1)!, heads = x.shape.at(-2)!, out = arr(x.shape), sign = attrs.inverse ? -1 : 1;
    for (let i = 0; i < x.data.length; i += 2) {
      const row = Math.floor(i / (size * heads)) * size + i % size;
      const cos = table.data[row], sin = sign * table.data[row + 1];
      out.data[i] = x.data[i] * cos - x.data[i + 1] * sin;
      out.data[i + 1] = x.data[i] * sin + x.data[i + 1] * cos;
    }
    return [out];
  },
  vjp: ({ inputs: [, table], cotangents: [dy], attrs }) => dy!.apply("rope", [table], { inverse: !attrs.inverse }),
  split: { whole: ["k"], linear: [[0]] },
  takesRounded: true,
  recompute: "cheap",
});
