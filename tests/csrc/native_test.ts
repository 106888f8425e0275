/** The native tests, built where `deno task build` configured, and allocations counted in a process of their own. */
import { assertEquals, assertMatch } from "@std/assert";
import { encoded, type TestProgram } from "../ffi/encoded.ts";
import { build, run } from "./run.ts";

await run("cmake", "--build", build, "--target", "titan_tests", "--parallel", "2");

for (const [, name] of (await run("ctest", "--test-dir", build, "--show-only")).matchAll(/Test +#\d+: (\w+)/g)) {
  Deno.test(`native ${name.replaceAll("_", " ")} passes`, async () => {
    assertMatch(
      await run("ctest", "--test-dir", build, "--tests-regex", `^${name}$`, "--output-on-failure"),
      /100% tests passed/,
    );
  });
}

const N = 96;
/** Large and batched products, a transposing copy, accumulation: whatever might allocate. */
const program: TestProgram = {
  threads: 2,
  arenaBytes: 3 * N * N * 4,
  inputBytes: N * N * 4,
  outputBytes: 8,
  tensors: [
    { space: "input", dims: [1, N, N] },
    { offset: 0, dims: [1, N, N] },
    { offset: N * N * 4, dims: [1, N, N] },
    { offset: 2 * N * N * 4, dims: [1, N, N], strides: [N * N, 1, N] },
    { offset: 0, dims: [8, N / 8, N] },
    { offset: N * N * 4, dims: [8, N, N / 8] },
    { offset: 2 * N * N * 4, dims: [8, N / 8, N / 8] },
    { offset: 2 * N * N * 4, dims: [2] },
    { space: "output", dims: [2] },
  ],
  sections: {
    step: [
      { kernel: "copy", operands: [0, 1] },
      { kernel: "accumulate", operands: [0, 2], attributes: [2n] },
      { kernel: "gemm", operands: [1, 2, 3], attributes: [0n, 0n] },
      { kernel: "copy", operands: [3, 1] },
      { kernel: "gemm", operands: [4, 5, 6], attributes: [0n, 0n] },
      { kernel: "copy", operands: [7, 8] },
    ],
  },
};

Deno.test("a step after the first allocates nothing, and gives the same bits from the same start", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeFile(`${folder}/program`, encoded(program));
    const input = Float32Array.from({ length: N * N }, (_, i) => Math.sin(i));
    await Deno.writeFile(`${folder}/input`, new Uint8Array(input.buffer));
    const steps = (n: number) =>
      run(`${build}/run_program`, `${folder}/program`, `${folder}/input`, "2", `${n}`, "0:1:0:0", "0:0:0:0");
    const [one, ten] = [await steps(1), await steps(10)];
    assertMatch(one, /^level .*\nallocations 0\noutput [0-9a-f]{16}\n$/);
    assertEquals(ten.split("\n")[1], "allocations 0");
    assertEquals(ten.split("\n").at(-2), one.split("\n").at(-2));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
