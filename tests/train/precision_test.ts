import { assertEquals, assertThrows } from "@std/assert";
import { isFasterInBf16, multipliesBf16, precisionOf, precisionText } from "../../train/precision.ts";

const processor = "AMD EPYC 9J14", intel = "Intel(R) Xeon(R) Processor";
const [fast, slow] = [{ level: "avx512_bf16", processor }, { level: "avx2", processor }];

Deno.test("products take bf16 by default where the processor is faster with it, else f32", () => {
  const levels = ["amx", "avx512_bf16", "avx512", "avx2", "neon_bf16", "portable"];
  assertEquals(levels.filter((level) => multipliesBf16({ level, processor })), ["amx", "avx512_bf16", "neon_bf16"]);
  assertEquals(isFasterInBf16({ level: "sm_90", processor: "NVIDIA H100 80GB HBM3" }), true);
  assertEquals(levels.filter((level) => isFasterInBf16({ level, processor })), ["amx", "avx512_bf16"]);
  assertEquals(levels.filter((level) => isFasterInBf16({ level, processor: intel })), ["amx"]);
  assertEquals(precisionOf({}, "f32", { level: "avx512_bf16", processor: intel }).param, "f32");
  assertEquals(precisionOf({}, "f32", fast), { param: "bf16", reduce: "f32", stored: "f32" });
  assertEquals(precisionOf({}, "f32", slow), { param: "f32", reduce: "f32", stored: "f32" });
  assertEquals(precisionOf({}, "f32").param, "f32");
});

Deno.test("what is asked for is done, whatever the processor", () => {
  assertEquals(precisionOf({ param: "f32" }, "f32", fast).param, "f32");
  assertEquals(precisionOf({ param: "bf16", reduce: "bf16", stored: "bf16" }, "f32", slow), {
    param: "bf16",
    reduce: "bf16",
    stored: "bf16",
  });
});

Deno.test("f64 takes no bf16, and says so when it is asked to", () => {
  assertEquals(precisionOf({}, "f64", fast), { param: "f32", reduce: "f32", stored: "f32" });
  assertThrows(() => precisionOf({ reduce: "bf16" }, "f64", fast), RangeError, "Cannot use bf16 for reduce");
});

Deno.test("the header says what is multiplied, stored and summed", () => {
  assertEquals(
    precisionText(precisionOf({ reduce: "bf16" }, "f32", fast), "f32"),
    "products of bf16 with f32 sums, parameters, gradient sums and moments in f32, gradients rounded to bf16 before they " +
      "are summed",
  );
  assertEquals(precisionText(precisionOf({}, "f64"), "f64"), "everything in f64");
});

Deno.test("the header says where bf16 is asked for and the processor does not multiply it", () => {
  const asked = precisionOf({ param: "bf16" }, "f32", slow), words = "multiplied in f32";
  assertEquals(precisionText(asked, "f32", slow).includes(words), true);
  assertEquals(precisionText(asked, "f32", fast).includes(words), false);
  assertEquals(precisionText(precisionOf({}, "f32", slow), "f32", slow).includes(words), false);
});
