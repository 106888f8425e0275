import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { library } from "../../../ffi/library.ts";
import { LaunchError } from "../../../launch/world.ts";
import { fewer, withRestarts } from "../../../train/command/restarts.ts";
import { loadConfig } from "../../../train/config/config.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { Launcher } from "../../launch/launcher.ts";
import { testGloo } from "../../native/gloo.ts";

const script = new URL("command_rank.ts", import.meta.url);
const configOf = async (...args: string[]) => (await loadConfig(args, () => "")).config;

Deno.test("ranks are started anew after a failure, as often as is asked for, and not behind a success", async () => {
  const config = await configOf("--checkpoint.enable");
  const run = async (restarts: number, ...codes: number[]) => {
    let starts = 0;
    const code = await withRestarts(config, 2, { restarts }, () => Promise.resolve({ code: codes[starts++] }));
    return [code, starts];
  };
  assertEquals(await run(0, 3), [3, 1]);
  assertEquals(await run(2, 0), [0, 1]);
  assertEquals(await run(2, 3, 0), [0, 2]);
  assertEquals(await run(1, 3, 4), [4, 2]);
});

Deno.test("without checkpoints there is nothing to go on from", async () => {
  const start = () => Promise.resolve({ code: 1 });
  await assertRejects(
    async () => await withRestarts(await configOf(), 2, { restarts: 1 }, start),
    LaunchError,
    "--restarts 1 without checkpoints\n  expected: checkpoints, from which ranks go on\n  fix: add --checkpoint.enable",
  );
});

Deno.test("an elastic job goes on with the most ranks that its mesh and batch allow, and with batches as large as before", async () => {
  const config = await configOf(
    "--checkpoint.enable",
    "--mesh",
    "dp_shard=-1,tp=2",
    "--training.local_batch_size",
    "3",
  );
  assertEquals([fewer(config, 8), fewer(config, 4), fewer(config, 2)], [4, 2, 2]); // 12 rows are no multiple of 3 x 3
  const fixed = await configOf("--mesh", "dp_shard=4");
  assertEquals(fewer(fixed, 4), 4);
  const seen: [number, readonly string[]][] = [];
  const ends = [{ code: 1, cause: { rank: 0, code: 1 } }, { code: 137, cause: { rank: 5, code: 137 } }, { code: 0 }];
  await withRestarts(config, 8, { restarts: 3, elastic: true }, (size, more) => {
    seen.push([size, more]);
    return Promise.resolve(ends[seen.length - 1]);
  });
  const batch = ["--training.global_batch_size", "12"];
  assertEquals(seen, [[8, batch], [8, batch], [4, batch]]); // an error takes no rank away
});

/** Six steps of four ranks, one of which is killed behind the second; by step, their losses and how many ranks made them. */
async function losses(fault: string, ...more: string[]) {
  await using folder = await temporaryFolder();
  const keys = {
    ...{
      "job.dump_folder": folder.path,
      "model.dim": 16,
      "model.n_layers": 1,
      "model.n_heads": 2,
      "model.ffn_hidden_dim": 16,
    },
    ...{ "training.local_batch_size": 2, "training.seq_len": 16, "training.steps": 6, "metrics.log_freq": 1 },
    ...{ "checkpoint.interval": 1, "checkpoint.keep_latest_k": 0, "device.threads": 1 },
  };
  const job = new Launcher(script, [
    ...["--nproc", "4", "--mesh", "dp_shard=-1", "--checkpoint.enable", "--validation.no_enable", ...more],
    ...Object.entries(keys).flatMap(([key, value]) => [`--${key}`, `${value}`]),
  ], { FAULT: fault, TITAN_LIB: library().path });
  const { code } = await job.ended();
  assertEquals(code, 0, job.err);
  const found = new Map<number, string>();
  for (const [, step, loss] of job.out.matchAll(/^\[rank0\] step: +(\d+) +loss: +(\S+)/gm)) {
    found.set(Number(step), loss);
  }
  return { job, losses: [...found.values()] };
}

testGloo("a run that loses a rank goes on from its checkpoint, and has the losses of one that does not", async () => {
  const whole = await losses("none");
  assertEquals(whole.losses.length, 6);
  const again = await losses("killed_later", "--restarts", "2");
  assertMatch(again.job.err, /restart 1 of 2: 4 ranks go on from the newest checkpoint/);
  assertEquals(again.losses, whole.losses);
  const fewerRanks = await losses("killed_later", "--restarts", "2", "--elastic");
  assertMatch(fewerRanks.job.err, /restart 1 of 2: 2 ranks go on from the newest checkpoint/);
  assert(/ranks {3}2 = dp_shard 2/.test(fewerRanks.job.out), fewerRanks.job.out);
  assertEquals(
    fewerRanks.losses.map(Number).map((loss) => loss.toFixed(3)),
    whole.losses.map(Number).map((loss) => loss.toFixed(3)),
  );
});
