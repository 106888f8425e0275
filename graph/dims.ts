/** Dims signatures in einsum/einops notation: `"... d, d -> ... d, ..."`, `"b t (h k) -> b t h k"`.
 * A term names the dims of one operand; `...` stands for any leading dims (the same in every term that has it);
 * `(h k)` is one dim that holds two; an empty term is a scalar. Shape inference, products and reshapes are read off it.
 * @module */

/** One dim of a term: the labels that it holds, outermost first (one, unless it was written in brackets). */
export type Dim = readonly string[];

/** A parsed signature. */
export interface Signature {
  readonly inputs: readonly (readonly Dim[])[];
  readonly outputs: readonly (readonly Dim[])[];
}

const cache = new Map<string, Signature>();

function parseTerm(term: string, text: string): Dim[] {
  const dims: Dim[] = [];
  for (const match of term.matchAll(/\(([^()]*)\)|(\.\.\.|[A-Za-z_][A-Za-z_0-9]*|1)|(\S)/g)) {
    if (match[3]) throw new SyntaxError(`Cannot read dims signature "${text}": unexpected "${match[3]}"`);
    dims.push(match[2] ? [match[2]] : match[1].trim().split(/\s+/).filter((l) => l !== ""));
  }
  const labels = dims.flat().filter((l) => l !== "1"), twice = labels.find((l, i) => labels.indexOf(l) < i);
  if (twice !== undefined) {
    throw new SyntaxError(
      `Cannot read dims signature "${text}": "${twice}" stands twice in "${term.trim()}"; a diagonal has to be taken first`,
    );
  }
  return dims;
}

/** Parses (and remembers) a signature.
 * @throws {SyntaxError} on anything but labels, brackets, commas and one arrow, and on a label that one term has twice. */
export function parseDims(text: string): Signature {
  const known = cache.get(text);
  if (known) return known;
  const sides = text.split("->");
  if (sides.length !== 2) {
    throw new SyntaxError(`Cannot read dims signature "${text}": expected one "->", found ${sides.length - 1}`);
  }
  const [inputs, outputs] = sides.map((side) => side.split(",").map((t) => parseTerm(t, text)));
  const signature = { inputs, outputs };
  cache.set(text, signature);
  return signature;
}

/** Sizes of all labels, `...` expanded to `...0`, `...1`, ..., outermost first. */
export type Sizes = Map<string, number>;

function expand(term: readonly Dim[], ellipsis: number): Dim[] {
  return term.flatMap((dim) =>
    dim.length === 1 && dim[0] === "..." ? Array.from({ length: ellipsis }, (_, i) => [`...${i}`]) : [dim]
  );
}

/** A signature with `...` spelled out for the given input ranks. */
export function expandDims(text: string, ranks: readonly number[]): Signature {
  const signature = parseDims(text);
  if (ranks.length !== signature.inputs.length) {
    throw new TypeError(`Cannot match "${text}": expected ${signature.inputs.length} operands, got ${ranks.length}`);
  }
  let ellipsis = -1;
  signature.inputs.forEach((term, i) => {
    if (!term.some((d) => d[0] === "...")) return;
    const rank = ranks[i] - (term.length - 1);
    if (ellipsis >= 0 && ellipsis !== rank) {
      throw new TypeError(`Cannot match "${text}": "..." stands for ${ellipsis} dims and for ${rank}`);
    }
    ellipsis = rank;
  });
  if (ellipsis < 0) ellipsis = 0;
  return {
    inputs: signature.inputs.map((t) => expand(t, ellipsis)),
    outputs: signature.outputs.map((t) => expand(t, ellipsis)),
  };
}

/** Binds every label to a size.
 * @param known sizes of labels that the shapes do not give (one part of a bracket, a new dim).
 * @throws {TypeError} when a rank or a size does not fit, with both sizes. */
export function bindDims(
  text: string,
  shapes: readonly (readonly number[])[],
  known: Record<string, number> = {},
): Sizes {
  const signature = expandDims(text, shapes.map((s) => s.length));
  const sizes: Sizes = new Map(Object.entries(known));
  const fail = (why: string): never => {
    throw new TypeError(`Cannot match "${text}" with shapes ${shapes.map((s) => `[${s}]`).join(", ")}: ${why}`);
  };
  signature.inputs.forEach((term, i) => {
    if (term.length !== shapes[i].length) fail(`operand ${i} needs ${term.length} dims, has ${shapes[i].length}`);
    term.forEach((dim, k) => {
      const size = shapes[i][k];
      const open = dim.filter((l) => l !== "1" && !sizes.has(l));
      const rest = dim.reduce((n, l) => n * (l === "1" ? 1 : sizes.get(l) ?? 1), 1);
      if (open.length > 1) fail(`"(${dim.join(" ")})" needs the size of ${open.slice(1).join(", ")}`);
      if (open.length === 1 && size % rest === 0) sizes.set(open[0], size / rest);
      else if (open.length === 1) fail(`dim ${k} of operand ${i} is ${size}, not a multiple of ${rest}`);
      else if (rest !== size) fail(`"${dim.join(" ")}" is ${rest} and ${size}`);
    });
  });
  return sizes;
}

/** Shape of one term under bound sizes. */
export function shapeOf(term: readonly Dim[], sizes: Sizes): number[] {
  return term.map((dim) =>
    dim.reduce((n, l) => {
      if (l === "1") return n;
      const size = sizes.get(l);
      if (size === undefined) throw new TypeError(`Cannot infer a shape: the size of "${l}" is unknown`);
      return n * size;
    }, 1)
  );
}

/** Output shapes of a signature for given input shapes. */
export function inferShapes(
  text: string,
  shapes: readonly (readonly number[])[],
  known: Record<string, number> = {},
): number[][] {
  const sizes = bindDims(text, shapes, known);
  return expandDims(text, shapes.map((s) => s.length)).outputs.map((term) => shapeOf(term, sizes));
}
