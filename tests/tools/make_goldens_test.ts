import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { parityFolder, readSafetensors } from "../goldens.ts";
import parity from "../goldens/parity/parity.json" with { type: "json" };

const read = (name: string) => readSafetensors(new URL(`${name}.safetensors`, parityFolder));
const parameters = read("parameters");
const batches = read("batches");
const cases = ["plain", "scaled", "documents"] as const;

Deno.test("golden parameters follow the formula that make_goldens.py documents", () => {
  [...parameters].forEach(([name, { shape, data }], p) => {
    const isNorm = name.includes("norm");
    const scale = isNorm ? 0.25 : name.includes("embeddings") ? 0.9 : 1.5 / Math.sqrt(shape[shape.length - 1]);
    data.forEach((value, i) => {
      const expected = (isNorm ? 1 : 0) + scale * Math.sin(1 + 0.7 * i + 1.3 * p + 0.011 * i * i);
      assertAlmostEquals(value, expected, 1e-10);
    });
  });
});

Deno.test("golden losses are the cross-entropy of the golden logits over the valid targets", () => {
  const { data: targets } = batches.get("targets.0")!;
  for (const name of cases) {
    const { shape: [, , vocab], data: logits } = read(name).get("logits")!;
    let lossSum = 0, count = 0;
    targets.forEach((target, row) => {
      if (target === parity.ignore_index) return;
      const scores = Array.from(logits.subarray(row * vocab, (row + 1) * vocab));
      lossSum += Math.log(scores.reduce((sum, score) => sum + Math.exp(score), 0)) - scores[target];
      count++;
    });
    assertEquals(parity[name].count, count);
    assertAlmostEquals(parity[name].loss_sum, lossSum, 1e-11);
    assertAlmostEquals(parity[name].loss, lossSum / count, 1e-12);
  }
});

Deno.test("each golden case has one gradient per parameter, and the head's sums to zero over the vocabulary", () => {
  for (const name of cases) {
    const tensors = read(name);
    for (const [parameter, { shape }] of parameters) assertEquals(tensors.get(`gradient/${parameter}`)?.shape, shape);
    assertEquals(tensors.size, 1 + parameters.size);
    const { shape: [vocab, dim], data } = tensors.get("gradient/output.weight")!;
    for (let d = 0; d < dim; d++) {
      let sum = 0;
      for (let v = 0; v < vocab; v++) sum += data[v * dim + d];
      assertAlmostEquals(sum, 0, 1e-14);
    }
  }
});

Deno.test("the golden training starts from the plain case and moves every parameter", () => {
  assertEquals(parity.steps[0].loss_sum, parity.plain.loss_sum);
  let squares = 0;
  for (const [name, { data }] of read("plain")) {
    if (name !== "logits") squares = Array.from(data).reduce((sum, value) => sum + value * value, squares);
  }
  assertAlmostEquals(parity.steps[0].grad_norm, Math.sqrt(squares), 1e-12);
  const trained = read("trained");
  for (const [name, { data }] of parameters) {
    const moved = Math.max(...data.map((value, i) => Math.abs(value - trained.get(name)!.data[i])));
    assertEquals(moved > 0 && moved < 0.05, true, `${name} moved by at most ${moved}`);
  }
});

Deno.test("the reader names a tensor whose dtype it does not know", () => {
  const path = Deno.makeTempFileSync({ suffix: ".safetensors" });
  try {
    const header = new TextEncoder().encode('{"x":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}');
    const bytes = new Uint8Array(8 + header.length + 2);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
    bytes.set(header, 8);
    Deno.writeFileSync(path, bytes);
    assertThrows(() => readSafetensors(path), TypeError, '"x" is BF16');
  } finally {
    Deno.removeSync(path);
  }
});
