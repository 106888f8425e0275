import { assertEquals, assertMatch } from "@std/assert";
import { ended, root, spawn, tinyRun } from "./command_line.ts";

Deno.test("on a terminal a run draws a bar, and a quiet one draws nothing", async () => {
  await using tiny = await tinyRun();
  const drawn = async (...flags: string[]) => {
    const words = [Deno.execPath(), "run", "--quiet", "-A", "mod.ts", "train", ...tiny.config, ...flags];
    const script = new Deno.Command("script", {
      args: ["-qec", words.join(" "), "/dev/null"],
      cwd: root,
      env: { NO_COLOR: "1" },
      stdin: "null",
    });
    const { code, stdout } = await script.output();
    return { code, bar: new TextDecoder().decode(stdout).match(/step \d+ of \d+ \[/g)?.length ?? 0 };
  };
  assertEquals(await drawn("--quiet"), { code: 0, bar: 0 });
  const { code, bar } = await drawn();
  assertEquals([code, bar > 0], [0, true]);
});

Deno.test("a quiet run prints its warnings and errors on standard error, and nothing else; its numbers are written", async () => {
  await using tiny = await tinyRun();
  const surprising = [...tiny.config, "--lr_scheduler.warmup_steps=500"];
  for (const flags of [["--quiet"], ["-q", "--nproc=2", "--mesh=dp_shard=2"]]) {
    const { code, out, error } = await ended(spawn([...surprising, ...flags]));
    assertEquals([code, out], [0, ""]);
    assertMatch(
      error,
      /^(\[rank0\] )?warning: lr_scheduler\.warmup_steps = 500 is cut to the 3 steps of the schedule\n$/,
    );
  }
  const failed = await ended(spawn([...tiny.config, "--quiet", "--training.stpes=3"]));
  assertEquals([failed.code, failed.out], [1, ""]);
  assertMatch(failed.error, /^error: training\.stpes/);
  assertEquals(Deno.statSync(`${tiny.folder}/out/metrics.jsonl`).size > 0, true);
});
