/** What fails on one GPU ends the run on all, with one clear error, and no host waits for ever. Where TITAN_DEVICE says `cuda`.
 * @module */
import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { rankOf, resultOf, testGloo } from "./gloo.ts";
import { type Encoded, encoded, train } from "./gpu_model.ts";
import { hasGpus, playedGpu } from "./gpus.ts";
import { KIND } from "./native.ts";

const script = new URL("gpu_failures_rank.ts", import.meta.url);
const gpu = KIND === "cuda" ? playedGpu() : undefined;
const BUILD = new URL("../../build/cmake", import.meta.url).pathname;

/** What a rank says of the end of another, which sends itself this signal. */
async function lastWords(signal: "SIGKILL" | "SIGSTOP"): Promise<Record<string, unknown>> {
  const folder = await Deno.makeTempDir();
  const [first, second] = [0, 1].map((index) => rankOf({ size: 2, script, args: [signal], folder }, index).spawn());
  const others = second.output();
  try {
    return resultOf(await first.output());
  } finally {
    try {
      second.kill("SIGKILL"); // one that is halted does not end by itself
    } catch {
      // It has ended.
    }
    await others;
    await Deno.remove(folder, { recursive: true });
  }
}

/** Those that fail in turn: so many, all over a run, or as many as TITAN_FAILING_CALLS says. */
function failing<T>(calls: readonly T[], some: number): T[] {
  const count = Math.min(calls.length, Number(Deno.env.get("TITAN_FAILING_CALLS") ?? some));
  return Array.from({ length: count }, (_, i) => calls[Math.floor((i + 0.5) * calls.length / count)]);
}

/** A call of a rank, by its number among those of the same function, so that it is the same whatever the others do. */
interface RanksCall {
  readonly rank: number;
  readonly name: string;
  readonly number: number;
}

/** What a rank says at its end: its error, or the output of each run. */
interface Said {
  /** `well`, or how its process ended. */
  readonly ended: string;
  readonly left: number;
  /** How many, by function, and how many of them before its program was given back. */
  readonly calls: Readonly<Record<string, number>>;
  readonly before: Readonly<Record<string, number>>;
  /** The function whose call failed. */
  readonly failed: string;
  readonly message?: string;
  readonly outputs?: readonly string[];
  /** The error of who is done and leaves the others. */
  readonly leaving?: string;
}

/** Has ranks train once for each call, which fails; in processes of `csrc/tests/gpu_trials.cpp`.
 * @returns what all of them say, by call as `name` writes it. */
async function trials(ranks: readonly Encoded[], calls: readonly RanksCall[]): Promise<Map<string, Said[]>> {
  const folder = await Deno.makeTempDir(),
    numbers = [ranks.length, ranks[0].runs.length, navigator.hardwareConcurrency];
  try {
    for (const [rank, { program, runs }] of ranks.entries()) {
      await Deno.writeFile(`${folder}/program.${rank}`, program);
      for (const [i, { actions, input }] of runs.entries()) {
        await Deno.writeFile(`${folder}/actions.${rank}.${i}`, actions);
        await Deno.writeFile(`${folder}/input.${rank}.${i}`, input);
      }
    }
    const { out, errors } = await run(
      `${BUILD}/gpu_trials`,
      ...[folder, ...numbers.map(String), ...calls.map(nameOf)],
    );
    assertEquals(errors, ""); // what a rank did with its GPU behind the failure is allowed
    const lines = out.trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(lines.length, calls.length);
    return new Map(lines.map(({ trial, ranks }) => [trial, ranks]));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function nameOf({ rank, number, name }: RanksCall): string {
  return `${rank}:${number}:${name}`;
}

function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(hex.match(/../g)!, (byte) => parseInt(byte, 16));
}

/** What a program prints that ends well. */
async function run(program: string, ...args: string[]): Promise<{ readonly out: string; readonly errors: string }> {
  const command = new Deno.Command(program, { args, env: { OMP_WAIT_POLICY: "passive" } });
  const { code, stdout, stderr } = await command.output();
  const [out, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals(code, 0, `${program}: ${errors}`);
  return { out, errors };
}

/** How an error of a GPU or of NCCL begins. */
const OWN_ERROR = /^(instruction \d+ \([^)]+\): )?(the GPU failed in |NCCL failed in |there is no GPU )/;

/** What gives something back tells no error, as all calls behind the last run. */
const GIVES_BACK = /Destroy$|Abort$|^cudaFree/;

/** How the run of one GPU ends whose call of this number fails: its error, or its losses. */
async function ending(call: number): Promise<TitanError | number[]> {
  gpu!.titan_played_gpu_fails(BigInt(call), null);
  try {
    using device = new Device({ kind: KIND, threads: 1 });
    return await train(device);
  } catch (error) {
    if (error instanceof TitanError) return error;
    throw error;
  }
}

if (KIND === "cuda" && hasGpus(2)) {
  testGloo(
    "a rank that is killed ends the run of another GPU, which says in which collective it is missed",
    async () => {
      const { message, kernel, scope } = await lastWords("SIGKILL");
      assertMatch(message as string, /^[a-z_]+ \d+ over ranks 0, 1 in \S+ cannot end: rank 1 /);
      assertMatch(`${kernel} in ${scope}`, /^(all_gather|reduce_scatter|all_reduce) in \S+$/);
    },
  );

  testGloo("a rank that halts ends the run of another GPU, after the time-out at the latest", async () => {
    const { message } = await lastWords("SIGSTOP");
    assertMatch(
      message as string,
      /^[a-z_]+ \d+ over ranks 0, 1 in \S+ .*rank 1 .*; this rank's last: [a-z_]+ \d+ of /s,
    );
  });
}

if (gpu) {
  Deno.test("whichever call to a GPU fails while a model trains, one error tells it and nothing is left", async () => {
    const losses = await ending(-1), calls = Number(gpu.titan_played_gpu_calls());
    assert(Array.isArray(losses));
    let told = 0;
    for (const call of failing(Array.from({ length: calls }, (_, n) => n), 40)) {
      const end = await ending(call);
      if (end instanceof TitanError) assertMatch(end.message, OWN_ERROR, `call ${call} of ${calls}`), told++;
      else assertEquals(end, losses, `call ${call} of ${calls}`); // what gives something back tells none
      assertEquals(gpu.titan_played_gpu_left(), 0n, `call ${call} of ${calls}`);
    }
    assert(told >= 20, `${told} errors`);
    gpu.titan_played_gpu_fails(-1n, null);
  });

  for (const [size, axes] of [[2, { dp_shard: 2 }], [4, { dp_shard: 2, tp: 2 }]] as const) {
    testGloo(
      `whichever call fails on one of ${size} GPUs, all end with its error unless they are done, and nothing is left`,
      async () => {
        await run("cmake", "--build", BUILD, "--target", "gpu_trials", "--parallel", "2");
        const mesh = new Mesh(axes, size), ranks = Array.from({ length: size }, (_, rank) => encoded({ mesh, rank }));
        const none = { rank: 0, name: "none", number: -1 }, whole = (await trials(ranks, [none])).get(nameOf(none))!;
        const alone = await ending(-1);
        assert(Array.isArray(alone));
        for (const [rank, { outputs, message }] of whole.entries()) {
          assert(outputs, message);
          alone.forEach((loss, i) => assertAlmostEquals(ranks[rank].lossOf(bytesOf(outputs[i + 1])), loss, 1e-4));
        }
        // The first rank begins all groups, and the last none.
        const calls = [0, size - 1].flatMap((rank) =>
          Object.entries(whole[rank].calls).flatMap(([name, count]) =>
            Array.from({ length: count }, (_, number): RanksCall => ({ rank, name, number }))
          )
        );
        assert(calls.length > 2000, `${calls.length} calls`);
        const fails = failing(calls, 24), ends = await trials(ranks, fails);
        for (const call of fails) {
          const said = ends.get(nameOf(call))!, { message = "" } = said[call.rank];
          const where = [nameOf(call), ...said.map((one) => one.message ?? `done. ${one.leaving}`)].join("\n");
          if (message) assertMatch(message, OWN_ERROR, where);
          for (const [rank, { ended, left, failed, message: heard, outputs, leaving = "" }] of said.entries()) {
            const own = rank === call.rank, gaveUp = message && `rank ${call.rank} gave up: ${message}`.slice(0, 60);
            assertEquals({ ended, left, failed }, { ended: "well", left: 0, failed: own ? call.name : "" }, where);
            if (heard === undefined) assertEquals(outputs, whole[rank].outputs, where); // it was done before
            if (!own && gaveUp) assert((heard ?? leaving).includes(gaveUp), where);
            if (!message) assertEquals([heard, leaving], [undefined, ""], where);
          }
          const givesBack = GIVES_BACK.test(call.name) || call.number >= (whole[call.rank].before[call.name] ?? 0);
          assertEquals(!message, givesBack, where);
        }
      },
    );
  }
}
