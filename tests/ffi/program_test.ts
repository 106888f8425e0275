import { assert, assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { Actions, Struct } from "../../ffi/buffer.ts";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { HASH_BYTES, NativeFile } from "../../ffi/file.ts";
import { library } from "../../ffi/library.ts";
import { Program, type Stretch } from "../../ffi/program.ts";
import { Flag } from "../../ffi/symbols.ts";
import { encoded, type TestProgram } from "./encoded.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

/** c = a b for 2x3 and 3x2 matrices from the input; section "sum" keeps a sum of the products in the arena. */
const product: TestProgram = {
  arenaBytes: 64,
  inputBytes: 48,
  outputBytes: 16,
  tensors: [
    { space: "input", dims: [1, 2, 3] },
    { space: "input", offset: 24, dims: [1, 3, 2] },
    { space: "output", dims: [1, 2, 2] },
    { dims: [1, 2, 2] },
  ],
  sections: {
    product: [{ kernel: "gemm", operands: [0, 1, 2], attributes: [0n, 0n], scope: "layers.0.wq" }],
    sum: [{ kernel: "gemm", operands: [0, 1, 3], attributes: [2n, 0n] }, { kernel: "copy", operands: [3, 2] }],
  },
};

Deno.test("a program multiplies what lies in its input and leaves the result in its output", async () => {
  using device = new Device({ threads: 1 });
  using program = await Program.create(device, encoded(product));
  const input = new Float32Array(program.input.buffer);
  const output = new Float32Array(program.output.buffer);
  input.set([1, 2, 3, 4, 5, 6, 1, 0, 0, 1, 1, 1]);
  await program.run(new Actions([{ section: 0 }]));
  assertEquals([...output], [4, 5, 10, 11]);
});

Deno.test("accumulation overwrites in the action flagged first and adds in the others, each at its own bases", async () => {
  using device = new Device({ threads: 1 });
  using program = await Program.create(device, encoded(product), { inputBytes: 96, outputBytes: 32 });
  const input = new Float32Array(program.input.buffer);
  const output = new Float32Array(program.output.buffer);
  input.set([1, 2, 3, 4, 5, 6, 1, 0, 0, 1, 1, 1]);
  input.set([1, 0, 0, 0, 0, 0, 7, 8, 0, 0, 0, 0], 12);
  const actions = new Actions([{ section: 1, flags: Flag.FIRST }, { section: 1, inputBase: 48, outputBase: 16 }]);
  for (let step = 0; step < 2; step++) {
    output.fill(-1);
    await program.run(actions);
    assertEquals([...output], [4, 5, 10, 11, 11, 13, 10, 11]);
  }
});

Deno.test("what two actions of one section keep in different slots does not mix", async () => {
  using device = new Device({ threads: 1 });
  const tensors = [
    { space: "input" as const, dims: [4] },
    { space: "slot" as const, offset: 32, dims: [4] },
    { space: "output" as const, dims: [4] },
  ];
  const bytes = encoded({
    arenaBytes: 64 + 2 * 64,
    inputBytes: 16,
    outputBytes: 16,
    slots: 2,
    slotBytes: 64,
    tensors,
    sections: { keep: [{ kernel: "copy", operands: [0, 1] }], give: [{ kernel: "copy", operands: [1, 2] }] },
  });
  using program = await Program.create(device, bytes, { inputBytes: 32, outputBytes: 32 });
  const input = new Float32Array(program.input.buffer), output = new Float32Array(program.output.buffer);
  input.set([1, 2, 3, 4, 5, 6, 7, 8]);
  const keep = [{ section: 0, slot: 0 }, { section: 0, slot: 1, inputBase: 16 }];
  const give = [{ section: 1, slot: 1, outputBase: 16 }, { section: 1, slot: 0 }];
  await program.run(new Actions([...keep, ...give]));
  assertEquals([...output], [1, 2, 3, 4, 5, 6, 7, 8]);
  await program.run(new Actions([keep[0], { ...keep[1], slot: 0 }, ...give]));
  assertEquals([...output], [5, 6, 7, 8, 5, 6, 7, 8]);
  const error = await assertRejects(() => program.run(new Actions([{ section: 0, slot: 2 }])), TitanError);
  assertEquals(error.message, "action 0 has slot 2\n  expected: below 2   (invalid_argument)");
});

Deno.test("an element type that no kernel takes is refused by its name", async () => {
  using device = new Device({ threads: 1 });
  for (
    const [dtype, kernel, expected] of [["f8e4m3", "softmax", "f32 or f64"], [
      "i64",
      "softmax",
      "f32 or f64",
    ]] as const
  ) {
    const sections = { run: [{ kernel, operands: [0, 0] }] };
    const bytes = encoded({ arenaBytes: 64, tensors: [{ dtype, dims: [4] }], sections });
    const error = await assertRejects(() => Program.create(device, bytes), TitanError);
    assertEquals(
      error.message,
      `instruction 0: x is ${dtype}, which ${kernel} does not take there\n  expected: ${expected}   (invalid_program)`,
    );
  }
});

Deno.test("the arena starts as zeros, and is written and read by offset", async () => {
  using device = new Device({ threads: 1 });
  using program = await Program.create(device, encoded(product));
  const values = new Float32Array(4).fill(1);
  await program.read(0, values);
  assertEquals([...values], [0, 0, 0, 0]);
  await program.write(4, Float32Array.of(5, 6));
  await program.read(0, values);
  assertEquals([...values], [0, 5, 6, 0]);
  const error = await assertRejects(() => program.read(56, values), TitanError);
  assertEquals(error.status, "INVALID_ARGUMENT");
  assertEquals(
    error.message,
    "16 bytes from 56 on are outside the arena\n  expected: to end by 64   (invalid_argument)",
  );
});

Deno.test("parts of files are loaded to their places in the arena, each with its hash, and nothing else is touched", async () => {
  using device = new Device({ threads: 1 });
  using program = await Program.create(device, encoded(product));
  const path = await Deno.makeTempFile(), content = Uint8Array.from({ length: 100 }, (_, i) => i + 1);
  try {
    await Deno.writeFile(path, content);
    using file = await NativeFile.open(path);
    const hashes = new Uint8Array(2 * HASH_BYTES), bytes = new Uint8Array(64);
    const read = await program.load(
      [
        { file, start: 10, stretches: [{ from: 1, to: 40, bytes: 3 }, { from: 8, to: 0, bytes: 2 }] },
        { file, start: 50, stretches: [{ from: 0, to: 60, bytes: 4 }] },
      ],
      10,
      hashes,
    );
    assertEquals(read, [10, 10]);
    await program.read(0, bytes);
    const expected = new Uint8Array(64);
    expected.set([12, 13, 14], 40);
    expected.set([19, 20], 0);
    expected.set([51, 52, 53, 54], 60);
    assertEquals(bytes, expected);
    for (const [i, start] of [10, 50].entries()) {
      const hash = createHash("sha256").update(content.subarray(start, start + 10)).digest("hex");
      assertEquals(hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES).toHex(), hash);
    }
    assertEquals(await program.load([{ file, start: 98, stretches: [{ from: 0, to: 8, bytes: 8 }] }], 8), [2]);
    const refused = async (stretches: Stretch[], message: string) => {
      const error = await assertRejects(() => program.load([{ file, start: 0, stretches }], 8), TitanError, message);
      assertEquals(error.status, "INVALID_ARGUMENT");
    };
    await refused([{ from: 0, to: 57, bytes: 8 }], "8 bytes from 57 on are outside the arena");
    await refused([{ from: 4, to: 0, bytes: 5 }], "stretch 0 has 5 bytes from 4 on");
    await refused(
      [{ from: 4, to: 0, bytes: 4 }, { from: 7, to: 9, bytes: 1 }],
      "expected: stretches behind each other",
    );
    await assertRejects(
      () => program.load([{ file, start: 0, stretches: [] }], 8, new Uint8Array(HASH_BYTES - 1)),
      RangeError,
      "expected: 32 for each of 1 parts",
    );
    await program.read(0, bytes);
    expected.set([99, 100], 8);
    assertEquals(bytes, expected);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a run that checks for finite numbers names kernel, scope and output of the first that is not", async () => {
  using device = new Device({ threads: 1 });
  using program = await Program.create(device, encoded(product));
  const input = new Float32Array(program.input.buffer);
  input.set([1, 2, 3, 4, NaN, 6, 1, 0, 0, 1, 1, 1]);
  await program.run(new Actions([{ section: 0 }]));
  const checked = new Actions([{ section: 0, flags: Flag.CHECK_FINITE }]);
  const error = await assertRejects(() => program.run(checked), TitanError);
  const { status, kernel, scope, section, instruction } = error;
  assertEquals({ status, kernel, scope, section, instruction }, {
    status: "NOT_FINITE",
    kernel: "gemm",
    scope: "layers.0.wq",
    section: 0,
    instruction: 0,
  });
  input.fill(1);
  await program.run(checked);
});

Deno.test("a check for finite numbers looks at what is stored as bf16 too, and passes its largest", async () => {
  using device = new Device({ threads: 1 });
  using program = await Program.create(
    device,
    encoded({
      arenaBytes: 64,
      inputBytes: 8,
      tensors: [{ space: "input", dtype: "bf16", dims: [2, 2] }, { dtype: "bf16", dims: [2, 2], strides: [3, 1] }],
      sections: { copy: [{ kernel: "copy", operands: [0, 1] }] },
    }),
  );
  const input = new Uint16Array(program.input.buffer),
    checked = new Actions([{ section: 0, flags: Flag.CHECK_FINITE }]);
  input.set([0x3f80, 0x7f7f, 0xff7f, 0x0001]);
  await program.run(checked);
  for (const bits of [0x7f80, 0xff80, 0x7fc0, 0x7f81]) {
    input[2] = bits;
    const error = await assertRejects(() => program.run(checked), TitanError);
    assertEquals([error.status, error.kernel], ["NOT_FINITE", "copy"]);
    assert(error.message.includes("first at element 2"), error.message);
  }
});

Deno.test("a run that is to be recorded writes a record per instruction, and the one after it none", async () => {
  using device = new Device({ threads: 1 });
  using program = await Program.create(device, encoded(product));
  const actions = new Actions([{ section: 1, flags: Flag.FIRST }, { section: 0 }]);
  const records = new Struct("titan_profile_record", 4);
  await program.profile(records);
  const before = performance.now();
  await program.run(actions);
  const elapsed = 1e6 * (performance.now() - before);
  const fields = (i: number) => (["action", "instruction", "stream"] as const).map((f) => records.get(f, i));
  assertEquals([0, 1, 2, 3].map(fields), [[0, 1, 0], [0, 2, 0], [1, 0, 0], [0, 0, 0]]);
  const times = [0, 1, 2].flatMap((i) => [records.get("begin_ns", i), records.get("end_ns", i)]);
  assertEquals(times, times.toSorted((a, b) => a - b));
  assert(times[5] - times[0] <= elapsed);
  await program.run(actions);
  assertEquals(records.get("begin_ns", 0), times[0]);
  await program.profile(new Struct("titan_profile_record", 2));
  const error = await assertRejects(() => program.run(actions), TitanError);
  assertEquals(
    error.message,
    "the run has 3 instructions\n  expected: at most 2, the records that there is room for   (invalid_argument)",
  );
  await program.run(actions);
});

Deno.test("a malformed program is refused with the instruction, its kernel and what was expected", async () => {
  using device = new Device({ threads: 1 });
  const tensors = [{ dims: [1, 2, 3] }, { dims: [1, 2, 2] }];
  const sections = { product: [{ kernel: "gemm" as const, operands: [0, 1, 1], attributes: [0n, 0n], scope: "head" }] };
  const bytes = encoded({ arenaBytes: 64, tensors, sections });
  const error = await assertRejects(() => Program.create(device, bytes), TitanError);
  assertEquals([error.status, error.kernel, error.scope, error.instruction], ["INVALID_PROGRAM", "gemm", "head", 0]);
  assertEquals(
    error.message,
    "instruction 0: operand 1 (b) has dims [1, 2, 2]\n  expected: [-1, 3, 2] (-1: any size)   (invalid_program)",
  );
});

Deno.test("actions outside the program or its buffers are refused before anything runs", async () => {
  using device = new Device({ threads: 1 });
  using program = await Program.create(device, encoded(product));
  const messages: string[] = [];
  for (
    const action of [{ section: 2 }, { section: 0, inputBase: 8 }, { section: 0, outputBase: 2 ** 52 }, {
      section: 0,
      flags: 8,
    }]
  ) {
    const error = await assertRejects(() => program.run(new Actions([{ section: 0 }, action])), TitanError);
    messages.push(error.message.split("\n")[0]);
  }
  assertEquals(messages, [
    "action 1 runs section 2",
    "action 1 (product) needs 48 bytes of input from its base 8 on",
    "action 1 (product) needs 16 bytes of output from its base 4503599627370496 on",
    "action 1 has flags 8",
  ]);
  assertEquals([...program.output], Array(16).fill(0));
});

Deno.test("a program for another target is refused", async () => {
  using device = new Device({ threads: 1 });
  const error = await assertRejects(() => Program.create(device, encoded({ ...product, target: "cuda" })), TitanError);
  assertEquals(
    error.message,
    'the program is for the target "cuda"\n  expected: "cpu", that of the device\n' +
      "  fix: compile it for the device, or load it on one that it is for   (invalid_program)",
  );
});

Deno.test("a program compiled for more threads than the device has says how to go on", async () => {
  using device = new Device({ threads: 1 });
  const error = await assertRejects(() => Program.create(device, encoded({ ...product, threads: 2 })), TitanError);
  assertEquals(
    error.message,
    "the program was compiled for 2 threads\n  expected: 1 to 1, the threads of the device\n" +
      "  fix: compile it for those, or open the device with more   (invalid_program)",
  );
});

Deno.test("a disposed program or device is an error, and two runs at once are refused", async () => {
  const device = new Device({ threads: 1 });
  const program = await Program.create(device, encoded(product));
  const actions = new Actions([{ section: 0 }]);
  const running = program.run(actions);
  await assertRejects(() => program.run(actions), Error, "The program is running");
  program[Symbol.dispose]();
  device[Symbol.dispose]();
  await running;
  const error = await assertRejects(() => program.run(actions), TitanError);
  assertEquals(error.status, "INVALID_HANDLE");
  await assertRejects(() => Program.create(device, encoded(product)), TitanError, "no open device");
});
