import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { testRanks } from "../native/mpirun.ts";
import { Launcher } from "./launcher.ts";

const script = new URL("launch_rank.ts", import.meta.url);
testRanks("lines of all ranks come whole, each with its rank", async () => {
  const job = new Launcher(script, ["lines"]);
  assertEquals((await job.ended()).code, 0, job.err);
  const lines = job.out.trimEnd().split("\n").filter((line) => !line.includes("pid"));
  const found = lines.map((line) => /^\[rank(\d)\] line (\d+) of \1 x{1000} end$/.exec(line));
  for (const rank of ["0", "1", "2"]) {
    const own = found.filter((match) => match?.[1] === rank).map((match) => Number(match![2]));
    assertEquals(own, Array.from({ length: 200 }, (_, i) => i), `rank ${rank}`);
  }
  assertEquals(lines.length, 600);
  assertEquals(job.err.trimEnd().split("\n").sort(), [0, 1, 2].map((rank) => `[rank${rank}] a warning`));
});

testRanks("the error of the rank that failed first comes first, and the exit code is that rank's", async () => {
  const job = new Launcher(script, ["fail"]), { code, seconds } = await job.ended();
  assertEquals([code, seconds < 10], [3, true]);
  const then = "then error: step 7 cannot end: rank 1 gave up: the disk is full";
  const lines = job.err.trimEnd().split("\n");
  assertEquals(lines.slice(0, 2), ["[rank1] error: the disk is full", "[rank1]   fix: make room"]);
  assertEquals(lines.slice(2).sort(), [`[rank0] ${then}`, `[rank2] ${then}`]);
});

testRanks("a rank that is killed ends the others, and the launcher says so for it", async () => {
  const job = new Launcher(script, ["sleep"]), [, pid] = await job.pids(3), begun = performance.now();
  Deno.kill(pid, "SIGKILL");
  assertEquals((await job.ended()).code, 137);
  assert(performance.now() - begun < 10_000);
  assertEquals(job.err.split("\n")[0], "[rank1] error: this process was killed by signal 9");
});

testRanks("ranks that do not end although one has failed are ended", async () => {
  const job = new Launcher(script, ["hang"]), { code, seconds } = await job.ended();
  assert(code !== 0 && seconds < 12, `${code} after ${seconds} s`);
  assertEquals(job.err, "[rank2] error: rank 0 has not come\n");
});

for (const [signal, expected] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  testRanks(`${signal} is passed on, and the exit code is ${expected} when all have stopped`, async () => {
    const file = await Deno.makeTempFile();
    try {
      const job = new Launcher(script, ["stop", file]);
      await job.pids(3);
      job.kill(signal);
      assertEquals((await job.ended()).code, expected, job.err);
      assertEquals(job.out.match(new RegExp(`stopped by ${signal}$`, "gm"))?.length, 3, job.out);
      assertEquals(job.err, "");
    } finally {
      await Deno.remove(file);
    }
  });
}

testRanks("ranks that do not stop are ended after their time of grace, or by a second signal", async () => {
  for (const twice of [false, true]) {
    const job = new Launcher(script, ["deaf"]);
    await job.pids(3);
    job.kill("SIGTERM");
    await job.until(/not now, SIGTERM/);
    if (twice) job.kill("SIGINT");
    const begun = performance.now();
    assertEquals((await job.ended()).code, 143);
    assert(performance.now() - begun < 10_000);
  }
});

testRanks("when the launcher is killed, its ranks end, and clean up behind it", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const job = new Launcher(script, ["sleep"], { TMPDIR: folder });
    await job.pids(3);
    job.kill("SIGKILL");
    await job.ended();
    const left = () => [...Deno.readDirSync(folder)].filter(({ name }) => name.startsWith("libtitan"));
    const begun = performance.now();
    while (left().length > 0 && performance.now() - begun < 10_000) {
      await new Promise((resolve) => setTimeout(resolve, 50)); // the ranks may outlive what the launcher held open
    }
    assertEquals(left(), []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** What it says on starting ranks with such permissions and a path without programs, or its own. */
async function refusal(flags: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const args = ["run", "--quiet", "--no-prompt", "--allow-env", ...flags, script.pathname, "sleep"];
  const { stderr } = await new Deno.Command(Deno.execPath(), { args, env: { NO_COLOR: "1", ...env } }).output();
  return new TextDecoder().decode(stderr);
}

Deno.test("without mpirun, a launch says what installs it", async () => {
  const text = await refusal(["--allow-read", "--allow-write", "--allow-sys", "--allow-run"], { PATH: "/nowhere" });
  assertStringIncludes(
    text,
    "there is no mpirun\n  expected: Open MPI, and libtitan's module for it\n  fix: npx -y deno task setup --mpi",
  );
});

testRanks("a launch without the permissions for it says which", async () => {
  const text = await refusal(["--allow-read", "--allow-write", "--allow-sys"]);
  assertStringIncludes(text, "this process may not run mpirun\n  expected: --allow-run=mpirun\n  fix: add that flag");
  assertStringIncludes(await refusal(["--allow-write", "--allow-run"]), "this process may read some files at most");
});
