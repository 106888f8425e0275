import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { library } from "../../ffi/library.ts";
import { partOf, readHosts } from "../../launch/hosts.ts";
import { LaunchError } from "../../launch/world.ts";
import { temporaryFolder } from "../data/fixture.ts";
import { testGloo } from "../native/gloo.ts";
import { Launcher } from "./launcher.ts";

const env = (variables: Record<string, string>) => new Map(Object.entries({ TITAN_TOKEN: "t", ...variables }));
const script = new URL("../train/command/command_rank.ts", import.meta.url);

Deno.test("hosts are names or addresses with how many ranks each has, none of them twice", () => {
  const hosts = (text: string) => readHosts(text)?.map(({ name, ranks }) => [name, ranks]);
  assertEquals(hosts("a:4,b-1.x"), [["a", 4], ["b-1.x", 1]]);
  assertEquals(hosts("10.0.0.1:2,[fe80::1]:3"), [["10.0.0.1", 2], ["fe80::1", 3]]);
  for (const wrong of ["", "a:0", "a:x", "a,,b", "a:1,a:2", "a b", "fe80::1"]) {
    assertEquals(hosts(wrong), undefined, wrong);
  }
});

Deno.test("a host knows its part of the job: its ranks, the first host, and the secret", () => {
  const hosts = readHosts("a:4,b:2,c:1")!;
  assertEquals(partOf(hosts, "b", env({})), {
    ...{ size: 7, firstRank: 4, nproc: 2, master: "a", port: 29500, own: "b", token: "t" },
  });
  assertEquals(partOf(hosts, "c", env({ MASTER_PORT: "29501" })).port, 29501);
  assertEquals(partOf(readHosts(`elsewhere.invalid:1,${Deno.hostname()}:2`)!, undefined, env({})).firstRank, 1);
  assertEquals(partOf(readHosts("elsewhere.invalid:1,127.0.0.1:2")!, undefined, env({})).own, "127.0.0.1");
  const refused = (asked: string | undefined, variables: Record<string, string>) =>
    assertThrows(() => partOf(hosts, asked, env(variables)), LaunchError).message;
  assertStringIncludes(refused("d", {}), "--host d is none of --hosts\n  expected: a, b, c");
  assertStringIncludes(refused(undefined, {}), "fix: say which of them this machine is, such as --host a");
  assertStringIncludes(refused("a", { TITAN_TOKEN: "" }), "TITAN_TOKEN is not set");
  assertStringIncludes(refused("a", { MASTER_PORT: "x" }), 'MASTER_PORT is "x"');
});

/** Two hosts, which are addresses of this one: each is given the same command. */
function startBoth(folder: string, steps: number, faults: readonly [string, string] = ["none", "none"]): Launcher[] {
  const port = `${20_000 + Deno.pid % 10_000}`;
  const keys = {
    ...{
      "job.dump_folder": folder,
      "model.dim": 16,
      "model.n_layers": 1,
      "model.n_heads": 2,
      "model.ffn_hidden_dim": 16,
    },
    ...{ "training.local_batch_size": 2, "training.seq_len": 16, "training.steps": steps, "metrics.log_freq": 1 },
    ...{ "device.threads": 1, "parallelism.tensor_parallel_degree": 2 },
  };
  return ["127.0.0.1", "127.0.0.2"].map((own, i) =>
    new Launcher(script, [
      ...["--hosts", "127.0.0.1:2,127.0.0.2:2", "--host", own, "--validation.no_enable", "--log-rank", "all"],
      ...Object.entries(keys).flatMap(([key, value]) => [`--${key}`, `${value}`]),
    ], { TITAN_TOKEN: "secret", MASTER_PORT: port, TITAN_LIB: library().path, FAULT: faults[i] })
  );
}

testGloo("two hosts that are given the same command train as one, and stop as one", async () => {
  await using folder = await temporaryFolder();
  const jobs = startBoth(folder.path, 10_000);
  await jobs[0].until(/step: {2}3 /);
  jobs[1].kill("SIGTERM"); // one of them is told, all stop
  const ended = await Promise.all(jobs.map((job) => job.ended()));
  assertEquals(ended.map(({ code }) => code), [0, 143], jobs.map(({ err }) => err).join("\n"));
  assertMatch(
    jobs[0].out,
    /ranks {3}4 = dp_shard 2 x tp 2, 2 of them on this host, by shared memory within a host, messages between hosts \(Gloo/,
  );
  const losses = (out: string, rank: number) =>
    [...out.matchAll(new RegExp(`^\\[rank${rank}\\] step: .*? loss: +(\\S+)`, "gm"))].map((m) => m[1]);
  const all = losses(jobs[0].out, 0);
  assert(all.length >= 3);
  assertEquals([losses(jobs[0].out, 1), losses(jobs[1].out, 2), losses(jobs[1].out, 3)], [all, all, all]);
});

for (const [signal, how] of [["SIGKILL", "ended without a word"], ["SIGSTOP", "not been heard of for 4 s"]] as const) {
  testGloo(
    `when ${signal} hits the ranks of one host, the others end within ten seconds, and name that host`,
    async () => {
      await using folder = await temporaryFolder();
      const jobs = startBoth(folder.path, 100_000), [, pids] = await Promise.all(jobs.map((job) => job.pids(2)));
      await jobs[0].until(/step: {2}3 /);
      const begun = performance.now(), send = () => pids.forEach((pid) => Deno.kill(pid, signal));
      send();
      const again = signal === "SIGSTOP" ? setInterval(send, 20) : undefined; // somebody else may have them go on
      const { code } = await jobs[0].ended();
      clearInterval(again);
      assert(code !== 0 && performance.now() - begun < 10_000, `${code} after ${performance.now() - begun} ms`);
      assertMatch(
        jobs[0].err,
        new RegExp(`^\\[rank\\d\\] error: .* cannot end: rank [23] on 127\\.0\\.0\\.2 has ${how}`),
      );
      if (again !== undefined) pids.forEach((pid) => Deno.kill(pid, "SIGCONT"));
      assert((await jobs[1].ended()).code !== 0);
    },
  );
}
