import { assert, assertEquals } from "@std/assert";
import { arr, forEachIndex } from "../../graph/array.ts";
import { type Gemm, gemmLabels, gemmOf } from "../../graph/gemm.ts";
import { contract } from "../../graph/ops/contract.ts";
import { isPacked, packed, throughDims, type View } from "../../graph/view.ts";
import { assertClose, forSeeds, Random } from "./random_graphs.ts";

/** What the kernel does: `c[b,m,n] = sum over k of a[b,m,k] b[b,k,n]`, over memory. */
function multiply({ a, b, c }: Gemm, left: Float64Array, right: Float64Array, out: Float64Array): void {
  const [batch, m, k] = a.shape, n = c.shape[2];
  assertEquals([b.shape, c.shape], [[batch, k, n], [batch, m, n]]);
  const shape = [batch, m, n, k],
    strides = [
      [a.strides[0], a.strides[1], 0, a.strides[2]],
      [b.strides[0], 0, b.strides[2], b.strides[1]],
      [c.strides[0], c.strides[1], c.strides[2], 0],
    ];
  forEachIndex(shape, strides, ([i, j, o]) => out[c.offset + o] += left[a.offset + i] * right[b.offset + j]);
}

/** A view of a shape whose dims lie in memory in some order, perhaps with room around it, perhaps repeated. */
function randomView(random: Random, shape: readonly number[], repeats: boolean): View & { size: number } {
  const order = random.oneIn(2) ? shape.map((_, d) => d) : random.shuffle(shape.map((_, d) => d));
  const room = shape.map((n) => random.oneIn(6) ? n + 1 : n), strides = shape.map(() => 0);
  let size = 1;
  for (const d of order.toReversed()) {
    if (repeats && random.oneIn(10)) continue;
    strides[d] = size;
    size *= room[d];
  }
  return { offset: random.int(0, 2), shape, strides, size: size + 2 };
}

/** Some einsum of two operands, with sizes of its labels. */
function randomEinsum(random: Random): { dims: string; sizes: Record<string, number> } {
  const labels = [..."abcdefgh"], sizes: Record<string, number> = {};
  const part = (most: number): string[] => {
    const own = labels.splice(0, random.int(0, most));
    own.forEach((l) => sizes[l] = random.int(1, 3));
    return own;
  };
  const [batch, m, n, k] = [part(2), part(2), part(2), part(2)];
  const term = (...parts: string[][]): string =>
    (random.oneIn(2) ? parts.flat() : random.shuffle(parts.flat())).join(" ");
  return { dims: `${term(batch, m, k)}, ${term(batch, k, n)} -> ${term(batch, m, n)}`, sizes };
}

const options = { fewestRows: 64 };

Deno.test("the matrix product of views is the einsum", () => {
  let products = 0;
  const reasons = new Set<string>();
  forSeeds(1500, (seed) => {
    const random = new Random(seed), { dims, sizes } = randomEinsum(random);
    const shapes = dims.split(/,|->/).map((t) => t.trim().split(" ").filter((l) => l !== "").map((l) => sizes[l]));
    const [a, b, c] = shapes.map((shape, i) => randomView(random, shape, i < 2));
    const gemm = gemmOf(dims, { a, b, c }, options);
    if (typeof gemm === "string") {
      reasons.add(gemm.replace(/"[^"]*"/, '"..."'));
      return;
    }
    products++;
    for (const { shape, strides } of [gemm.a, gemm.b, gemm.c]) {
      assert(strides[1] === 1 || strides[2] === 1 || shape[1] === 1 || shape[2] === 1, `${dims}: no dense dim`);
      assert([1, 2].every((d) => shape[d] === 1 || strides[d] > 0), `${dims}: rows or columns repeat`);
    }
    const [left, right, out] = [a, b, c].map(({ size }) =>
      Float64Array.from({ length: size }, () => random.real(-1, 1))
    );
    out.fill(0);
    const load = (view: View, memory: Float64Array) => {
      const x = arr(view.shape);
      forEachIndex(view.shape, [view.strides], ([at], flat) => x.data[flat] = memory[view.offset + at]);
      return x;
    };
    const type = { dtype: "f64", shape: c.shape } as const;
    const [expected] = contract.reference!([load(a, left), load(b, right)], { dims }, [type]);
    multiply(gemm, left, right, out);
    assertClose(load(c, out), expected, 1e-14, dims);
  });
  assert(products > 300, `${products} products`);
  const operands = ["first operand", "second operand", "result"];
  assertEquals(
    [...reasons].sort(),
    [
      ...operands.map((o) => `dims "..." of the ${o} have no common stride`),
      ...operands.map((o) => `the ${o} has no dense dim`),
      ...operands.slice(0, 2).map((o) => `the ${o} repeats elements`),
    ].sort(),
  );
});

Deno.test("labels are batch, rows, columns and summed", () => {
  assertEquals(gemmLabels("b t h k, b s h k -> b h t s"), { batch: ["b", "h"], m: ["t"], n: ["s"], k: ["k"] });
  assertEquals(gemmLabels("b t i, o i -> b t o"), { batch: [], m: ["b", "t"], n: ["o"], k: ["i"] });
  assertEquals(gemmLabels("i, i -> "), { batch: [], m: [], n: [], k: ["i"] });
  assertEquals(gemmLabels("i, j -> j i"), { batch: [], m: ["i"], n: ["j"], k: [] });
});

/** A product of packed operands; rows and columns of the result as they lie. */
function ofPacked(dims: string, a: number[], b: number[], c: number[]): Gemm {
  const gemm = gemmOf(dims, { a: packed(a), b: packed(b), c: packed(c) }, options);
  if (typeof gemm === "string") throw new Error(gemm);
  return gemm;
}

Deno.test("a linear layer and its gradients are one product over all tokens, without a copy", () => {
  const [x, w, y] = [[2, 3, 4], [5, 4], [2, 3, 5]];
  const forward = ofPacked("b t i, o i -> b t o", x, w, y);
  assertEquals([forward.a.shape, forward.b.shape, forward.b.strides], [[1, 6, 4], [1, 4, 5], [1, 1, 4]]);
  assert(isPacked(forward.c));
  const dx = ofPacked("b t o, o i -> b t i", y, w, x), dw = ofPacked("b t o, b t i -> o i", y, x, w);
  assertEquals([dx.a.shape, dx.c.shape], [[1, 6, 5], [1, 6, 4]]);
  assertEquals([dw.a.shape, dw.a.strides, dw.b.shape, dw.c.shape], [[1, 5, 6], [1, 1, 5], [1, 6, 4], [1, 5, 4]]);
});

Deno.test("a slice of every sequence is a batch of products, where it is long enough", () => {
  const random = new Random(1), dims = "b t i, o i -> b t o";
  const slice = (rows: number): View => ({ offset: 8, shape: [3, rows, 4], strides: [2 * rows * 4, 4, 1] });
  const [a, b, c] = [slice(64), packed([5, 4]), { ...packed([3, 64, 5]), strides: [1000, 5, 1] }];
  const gemm = gemmOf(dims, { a, b, c }, options);
  if (typeof gemm === "string") throw new Error(gemm);
  const memory = (n: number) => Float64Array.from({ length: n }, () => random.real(-1, 1));
  const [left, right, out] = [memory(1600), memory(20), new Float64Array(3000)];
  multiply(gemm, left, right, out);
  const of = (view: View, memory: Float64Array) => {
    const x = arr(view.shape);
    forEachIndex(view.shape, [view.strides], ([at], flat) => x.data[flat] = memory[view.offset + at]);
    return x;
  };
  const [expected] = contract.reference!([of(a, left), of(b, right)], { dims }, [{ dtype: "f64", shape: c.shape }]);
  assertClose(of(c, out), expected, 1e-14, dims);
  const few = gemmOf(dims, { a: slice(63), b: packed([5, 4]), c: packed([3, 63, 5]) }, options);
  assertEquals(few, 'dims "b t" of the first operand have no common stride');
});

Deno.test("dims that lie apart, and rows that nothing makes dense, are refused by name", () => {
  const turned = throughDims(packed([2, 3, 4]), "b t i -> t b i")!;
  assertEquals(
    gemmOf("t b i, o i -> t b o", { a: turned, b: packed([5, 4]), c: packed([3, 2, 5]) }, options),
    'dims "t b" of the first operand have no common stride',
  );
  const sparse: View = { offset: 0, shape: [3, 4], strides: [8, 2] };
  assertEquals(
    gemmOf("m k, k n -> m n", { a: sparse, b: packed([4, 5]), c: packed([3, 5]) }, options),
    "the first operand has no dense dim",
  );
  const repeated: View = { offset: 0, shape: [3, 4], strides: [0, 1] };
  assertEquals(
    gemmOf("m k, k n -> m n", { a: repeated, b: packed([4, 5]), c: packed([3, 5]) }, options),
    "the first operand repeats elements",
  );
});
