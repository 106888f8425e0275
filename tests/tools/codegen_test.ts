import { assertEquals, assertThrows } from "@std/assert";
import { dtypes, elementTypes } from "../../graph/element_types.ts";
import { kernels, mapOps } from "../../graph/kernels.ts";
import { elementTypesSource, generated, kernelsSource, opsSource, symbolsSource } from "../../tools/codegen.ts";

const root = new URL("../../", import.meta.url);

for (const { path, text } of await generated(root)) {
  Deno.test(`${path} is byte for byte what its source gives`, async () => {
    assertEquals(await Deno.readTextFile(new URL(path, root)), text);
  });
}

Deno.test("the kernel table tells optional, repeated and scratch operands apart", () => {
  const { index, inputs, outputs, scratch, attributes } = kernels.adamw;
  assertEquals([index, scratch, attributes[0]], [18, false, { name: "n", type: "i64" }]);
  assertEquals(inputs.map(({ variadic }) => variadic), [true, true, true, true, false, false, false]);
  assertEquals(outputs.map(({ name }) => name), ["p", "m", "v"]);
  assertEquals(kernels.rmsnorm_backward.inputs.at(-1), {
    name: "residual",
    variadic: false,
    optional: true,
    bf16: true,
    float8: false,
  });
  assertEquals(kernels.rmsnorm_backward.inputs.map(({ bf16 }) => bf16), [true, false, true, true, true]);
  assertEquals(kernels.gemm.inputs.map(({ bf16, float8 }) => bf16 && float8), [true, true]);
  assertEquals(kernels.gemm.outputs.map(({ bf16, float8 }) => bf16 && !float8), [true]);
  assertEquals(kernels.rmsnorm_backward.scratch, true);
  assertEquals(kernels.map.attributes.map(({ type }) => type), ["i64", "i64", "i64[]", "f64[]"]);
  assertEquals(mapOps.round_f8e5m2, { code: Object.keys(mapOps).length - 1, arity: 1 });
});

Deno.test("structs are laid out as C lays them out", () => {
  const header = "#define TITAN_ABI_VERSION 4\ntypedef struct t {\n  uint32_t a;\n  uint64_t b;\n  char c[3];\n} t;\n";
  const source = symbolsSource(header, "");
  for (
    const line of [
      "bytes: 24,",
      'b: { offset: 8, type: "u64", length: 1 }',
      'c: { offset: 16, type: "text", length: 3 }',
    ]
  ) {
    assertEquals(source.includes(line), true, line);
  }
});

Deno.test("collectives are numbered by themselves, in the order of the table", () => {
  const table = ["gather", "shift"].map((name) => `COLLECTIVE(${name}, "x* -> y*?", "", "f32")\n`).join(
    "MAP(neg, 1)\n",
  );
  const source = symbolsSource("#define TITAN_ABI_VERSION 1\n", `KERNEL(copy, "x -> y", "", "f32")\n${table}`);
  assertEquals(source.includes("export const Collective = {\n  gather: 0,\n  shift: 1,\n}"), true);
  assertEquals(
    kernelsSource(table).includes('{ name: "y", variadic: true, optional: true, bf16: false, float8: false }'),
    true,
  );
});

Deno.test("a C type that Deno cannot pass is refused", () => {
  const header = "#define TITAN_ABI_VERSION 1\n/** Adds. */\nTITAN_API int32_t titan_add(float a);\n";
  assertThrows(() => symbolsSource(header, ""), Error, "titan.h uses the type float");
  assertThrows(() => symbolsSource("", ""), Error, "no TITAN_ABI_VERSION");
});

Deno.test("element types have the numbers of their lines, and graphs have those that kernels take", () => {
  const table = ["f32, 32, real", "f8e4m3, 8, stored_real"].map((line) => `ELEMENT_TYPE(${line})\n`).join("");
  const source = elementTypesSource(table, 'KERNEL(copy, "x -> y", "", "f32")\n');
  assertEquals(source.includes('f8e4m3: { number: 1, bits: 8, kind: "stored_real" },'), true);
  assertEquals(source.includes('dtypes: readonly DType[] = ["f32"];'), true);
  assertThrows(
    () => elementTypesSource(table, 'KERNEL(copy, "x -> y", "", "f32 i4")\n'),
    Error,
    "kernels.def has a kernel of i4",
  );
  assertEquals([elementTypes.bf16.number, elementTypes.f64.bits, elementTypes.bytes.kind], [4, 64, "bytes"]);
  assertEquals([...dtypes].sort(), ["bf16", "f32", "f64", "f8e4m3", "f8e5m2", "i32"]);
});

Deno.test("a kernel without attributes or scratch has empty ones", () => {
  const source = kernelsSource('KERNEL(copy, "x -> y", "", "f32")\n');
  assertEquals(source.includes('attributes: [],\n    dtypes: ["f32"],'), true);
  assertEquals(source.includes("scratch: false,"), true);
});

Deno.test("what an editor leaves beside the ops is no op", () => {
  const source = opsSource(["add.ts", ".#add.ts", "add.ts~", "#add.ts#", "mod.ts"]);
  assertEquals(source.match(/import \* as \S+/g), ["import * as add"]);
});
