/** Collectives between GPUs, of which each rank has one: what they mean, and how it ends when a rank does not keep up. Where TITAN_DEVICE says `cuda`,
 * the module that TITAN_CUDA names is the GPUs with their NCCL, or what emulates both.
 * @module */
import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import type { Traffic } from "../../ffi/comm.ts";
import { resultsOf, testGloo } from "./gloo.ts";
import { type Job, ranks, results, testRanks } from "./mpirun.ts";
import { KIND } from "./native.ts";

/** What the emulated GPU complains of: an abort is no mistake. */
const PROBLEM = /played CUDA runtime: /;

const script = new URL("comm_rank.ts", import.meta.url);
const job = (size: number, task: string, ...args: string[]): Job => ({ size, script, args: [task, ...args] });

if (KIND === "cuda") {
  testRanks("3 GPUs run every collective in every dtype as it means", async () => {
    assertEquals((await results(job(3, "collectives"))).length, 3);
  });

  testGloo("3 GPUs whose ranks meet without MPI exchange what each sends", async () => {
    const gloo = await resultsOf(3, script, ["exchange", '{"module":"gloo"}']);
    for (const { received } of gloo) assert(received as number >= 2);
  });

  testRanks("random graphs on 4 GPUs run as they mean on one CPU", async () => {
    for (const { collectives } of await results(job(4, "some_graphs"))) {
      assert(collectives as number >= 10, `only ${collectives}`);
    }
  });

  testRanks("a simulated link, which GPUs cannot have, is refused", async () => {
    const { code, stderr } = await ranks(job(2, "link", '{"link": {"bytesPerSecond": 1e9, "latencyNs": 0}}'));
    assert(code !== 0);
    assertMatch(stderr, /a link is simulated, which is for ranks on CPUs/);
  });

  testRanks("what GPUs send is what a plan says", async () => {
    for (const { planned, sent } of await results(job(2, "sent"))) {
      for (const [kind, { collectives, sentBytes }] of Object.entries(sent as Record<string, Traffic>)) {
        assertEquals(collectives, 2, kind);
        assertAlmostEquals(sentBytes, (planned as Record<string, number>)[kind], 1e-6, kind);
      }
    }
  });

  testRanks("who waits for a GPU's rank that does not come is told so in time, and what each did last", async () => {
    const { code, stderr } = await ranks(job(2, "sleep", '{"timeoutMs": 1500}'));
    assert(code !== 0);
    assertMatch(stderr, /all_reduce 1 over ranks 0, 1 in layers\.3\.attention did not end within 1\.5 s/);
    assert(!PROBLEM.test(stderr), stderr);
    assertMatch(stderr, /rank 1's last: all_reduce 0 of 400 bytes of f32 over 2 ranks in layers\.3\.attention, ended /);
  });

  testRanks("who waits for a GPU's rank that says that it gives up is told at once why", async () => {
    const { code, stderr } = await ranks(job(2, "fails"));
    assert(code !== 0);
    assertMatch(stderr, /all_reduce 1 over ranks 0, 1 in \S+ cannot end: rank 1 gave up: the disk is full/);
    assert(!PROBLEM.test(stderr), stderr);
  });

  testRanks("where one rank finds a GPU and another finds none, none of them trains", async () => {
    const program = new URL("../../mod.ts", import.meta.url), folder = await Deno.makeTempDir();
    const args = ["--device", "auto", "--mesh", "dp_shard=2", "--training.steps", "2"];
    const { code, stdout, stderr } = await ranks({
      ...{ size: 2, script: program, args: [...args, "--training.dataset", "c4_test", "--job.dump_folder", folder] },
      within: ["sh", "-c", '[ "$OMPI_COMM_WORLD_RANK" = 0 ] || TITAN_CUDA=/nowhere.so; exec "$@"', "sh"],
    });
    await Deno.remove(folder, { recursive: true });
    assert(code !== 0, stdout);
    assertMatch(stdout + stderr, /were not started alike\n.* device\.kind: "cuda" on rank 0; "cpu" on rank 1\n/);
  });
}
