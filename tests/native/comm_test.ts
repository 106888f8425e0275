/** Ranks as real processes: what they compute together, and how it ends when one of them does not keep up. Needs `mpirun` and the
 * communication module (`deno task setup --mpi`); without them the tests are skipped.
 * @module */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Traffic } from "../../ffi/comm.ts";
import { resultsOf, testGloo } from "./gloo.ts";
import { type Job, ranks as runRanks, results, testRanks as test } from "./mpirun.ts";

const script = new URL("comm_rank.ts", import.meta.url);
type Options = [size: number, task: string, env?: Record<string, string>, ...args: string[]];
const job = (...[size, task, env, ...args]: Options): Job => ({ size, script, args: [task, ...args], env });
const ranks = (...options: Options) => runRanks(job(...options));
const succeed = (...options: Options) => results(job(...options));

/** Gives up soon. */
const PATIENCE = '{"timeoutMs": 1500}';
const MESSAGES = { TITAN_EXCHANGE: "messages" };

test("ranks gather bytes, and say how they exchange", async () => {
  const all = [[0, 7], [1, 7], [2, 7]];
  for (const result of await succeed(3, "gather")) {
    const { rank: _, ...rest } = result;
    assertEquals(rest, { all, exchange: "shared memory", hostSize: 3 });
  }
  for (const { all: found, exchange } of await succeed(3, "gather", MESSAGES)) {
    assertEquals([found, exchange], [all, "messages (TITAN_EXCHANGE)"]);
  }
});

for (const size of [2, 3, 4]) {
  test(`${size} processes run every collective in every dtype as it means, by shared memory and by messages`, async () => {
    const shared = await succeed(size, "collectives");
    assertEquals(await succeed(size, "collectives", MESSAGES), shared);
  });

  test(`random graphs on ${size} processes run as they mean on one, the same to the last bit however they exchange`, async () => {
    const shared = await succeed(size, "graphs");
    for (const { collectives } of shared) assert(collectives as number >= 200, `only ${collectives} collectives`);
    assertEquals(await succeed(size, "graphs", MESSAGES), shared);
  });
}

test("many tensors by one collective have the same bits as one by one, however they travel", async () => {
  const shared = await succeed(2, "grouped");
  for (const { tensors } of shared) assertEquals(tensors, 9 * 40);
  assertEquals(await succeed(2, "grouped", MESSAGES), shared);
});

for (const size of [2, 3, 4]) {
  test(`an exchange among ${size} processes brings everyone what it is sent, by shared memory and by messages`, async () => {
    const shared = await succeed(size, "exchange");
    for (const { received } of shared) assert(received as number >= 2);
    assertEquals(await succeed(size, "exchange", MESSAGES), shared);
  });
}

for (const size of [2, 3]) {
  testGloo(`without MPI, ${size} processes get the same bits, by shared memory and by messages`, async () => {
    const gloo = (task: string, env?: Record<string, string>) =>
      resultsOf(size, script, [task, '{"module":"gloo"}'], env);
    for (const task of ["collectives", "exchange", "grouped"].slice(0, size === 2 ? 3 : 2)) {
      const shared = await gloo(task);
      assertEquals(await gloo(task, MESSAGES), shared, task);
      if (task === "grouped") { for (const { tensors } of shared) assertEquals(tensors, 9 * 40); }
    }
    const all = Array.from({ length: size }, (_, rank) => [rank, 7]);
    for (const { all: found, exchange } of await gloo("gather", MESSAGES)) {
      assertEquals([found, exchange], [all, "messages (TITAN_EXCHANGE)"]);
    }
  });
}

testGloo("ranks on two hosts, two on each, exchange in two levels what they would by messages", async () => {
  // Two addresses of this machine stand for two hosts.
  const hosts = (task: string) =>
    resultsOf(4, script, [task, '{"module":"gloo"}'], (rank) => ({ TITAN_ADDRESS: `127.0.0.${rank < 2 ? 1 : 2}` }));
  for (const { exchange, hostSize } of await hosts("gather")) {
    assertEquals([exchange, hostSize], ["shared memory within a host, messages between hosts", 2]);
  }
  assertEquals(
    await hosts("collectives"),
    await resultsOf(4, script, ["collectives", '{"module":"gloo"}'], MESSAGES),
  );
  for (const { tensors } of await hosts("grouped")) assertEquals(tensors, 9 * 40);
});

test("who waits for a rank that does not come is told so in time: who, where, and what each did last", async () => {
  const { code, stderr, seconds } = await ranks(3, "sleep", {}, PATIENCE);
  assert(code !== 0 && seconds < 40, `it ended after ${seconds} s with ${code}\n${stderr}`);
  assertMatch(
    stderr,
    /all_reduce 1 over ranks 0, 1, 2 in layers\.3\.attention did not end within 1\.5 s: rank 1 has not come/,
  );
  assertMatch(
    stderr,
    /rank 1's last: all_reduce 0 of 400 bytes of f32 over 3 ranks in layers\.3\.attention, ended \d+\.\d s ago/,
  );
  assertMatch(stderr, /fix: /);
  assertMatch(stderr, /rank 1: 1 collectives, the last of them:\n {2}all_reduce 0 /); // the flight recorder
});

test("by messages, who waits is told what it waits for", async () => {
  const { code, stderr, seconds } = await ranks(2, "sleep", MESSAGES, PATIENCE);
  assert(code !== 0 && seconds < 40, `it ended after ${seconds} s with ${code}\n${stderr}`);
  assertMatch(stderr, /all_reduce 1 over ranks 0, 1 in layers\.3\.attention did not end within 1\.5 s/);
});

test("a rank that ends takes the others with it, and its own error is there", async () => {
  const { code, stderr, seconds } = await ranks(3, "die");
  assert(code !== 0 && seconds < 25, `it ended after ${seconds} s with ${code}\n${stderr}`);
  assertMatch(stderr, /rank 1: the disk is full/);
});

for (const [how, env] of [["by shared memory", {}], ["by messages", MESSAGES]] as const) {
  test(`who waits for a rank that says that it gives up is told at once why, ${how}`, async () => {
    const { code, stderr, seconds } = await ranks(3, "fails", env);
    assert(code !== 0 && seconds < 15, `it ended after ${seconds} s with ${code}\n${stderr}`);
    assertMatch(stderr, /all_reduce 1 over ranks 0, 1, 2 in \S+ cannot end: rank 1 gave up: the disk is full/);
  });
}

test("opening MPI leaves the code of libraries as it is, while other threads run it", async () => {
  for (const { libraries, written } of await succeed(2, "code")) {
    assert(libraries as number > 10);
    assertEquals(written, []);
  }
});

/** Does this system give huge pages to memory that processes share, when it is asked again? */
async function givesHugePages(): Promise<boolean> {
  const [major, minor] = Deno.osRelease().split(".").map(Number);
  const setting = await Deno.readTextFile("/sys/kernel/mm/transparent_hugepage/enabled").catch(() => "");
  return setting !== "" && (major > 6 || (major === 6 && minor >= 1));
}

test("memory that ranks share is in huge pages, as far as the machine has them and time for it", async () => {
  for (const { arenaBytes, hugeBytes } of await succeed(2, "pages")) {
    const [all, huge] = [arenaBytes, hugeBytes] as number[];
    assert(huge % 2 ** 21 === 0 && huge <= all, `${huge} of ${all}`);
    assert(huge > 0 || !await givesHugePages(), "none");
  }
});

const within = ["unshare", "--pid", "--fork", "--mount-proc"];
const mayCountOtherwise = await new Deno.Command(within[0], { args: [...within.slice(1), "true"] }).output()
  .then(({ success }) => success, () => false); // it takes root

(mayCountOtherwise ? test : Deno.test.ignore)(
  "ranks that count processes otherwise do not take each other's memory for their own, and say how they exchange",
  async () => {
    // Open MPI's own shared memory ends such processes by a signal.
    const env = { OMPI_MCA_pml: "ob1", OMPI_MCA_btl: "self,tcp", OMPI_MCA_btl_tcp_if_include: "lo" };
    for (const { exchange } of await results({ ...job(2, "gather", env), within })) {
      // What has the other's number here is a file of one's own, or there is none.
      assertMatch(
        exchange as string,
        /^messages: .*(not the memory of another rank|cannot open the memory of process 1 )/,
      );
    }
  },
);

test("ranks with different programs are told so before anything hangs", async () => {
  const { code, stderr, seconds } = await ranks(2, "disagree");
  assert(code !== 0 && seconds < 40, `it ended after ${seconds} s with ${code}\n${stderr}`);
  assertMatch(stderr, /load different programs: their 1 collectives over ranks 0, 1 differ in kind, dtype or shape/);
});

test("members that list an exchange differently are told so before anything hangs", async () => {
  const { code, stderr, seconds } = await ranks(2, "mistake");
  assert(code !== 0 && seconds < 40, `it ended after ${seconds} s with ${code}\n${stderr}`);
  assertMatch(stderr, /load different programs: one exchanges over ranks [01], [01] where the other does not/);
});

test("the flight recorder has the last collectives of every rank", async () => {
  for (const { record } of await succeed(2, "record")) {
    assertMatch(
      record as string,
      /rank 0: 2 collectives, the last of them:\n {2}all_reduce 0 .*\n {2}all_reduce 1 .*\nrank 1: 2/,
    );
  }
});

test("the flight recorder is as long as it is asked to be", async () => {
  for (const { record } of await succeed(2, "record", {}, '{"records": 1}')) {
    assertMatch(record as string, /^rank 0: 2 collectives, the last of them:\n {2}all_reduce 1 .*\nrank 1: 2 /);
  }
  for (const { record } of await succeed(2, "record", MESSAGES, '{"records": 0}')) {
    assertMatch(record as string, /^rank \d: 2 collectives\n$/);
  }
});

test("libtitan counts as many bytes as a plan does, on any number of ranks, however they exchange", async () => {
  for (const size of [2, 3, 4]) {
    for (const env of [{}, MESSAGES]) {
      for (const result of await succeed(size, "sent", env)) {
        const planned = result.planned as Record<string, number>, sent = result.sent as Record<string, Traffic>;
        assertEquals(Object.keys(sent), Object.keys(planned));
        // To cut a value along another dim takes one n-th of what gathering it takes.
        assertEquals(sent.all_to_all.sentBytes * size, sent.all_gather.sentBytes);
        for (const [op, { collectives, tensors, sentBytes }] of Object.entries(sent)) {
          assertEquals(
            [collectives, op === "exchange" || tensors === 2, Math.abs(sentBytes - planned[op]) < 1e-6],
            [2, true, true],
            `${op} ${sentBytes}`,
          );
        }
      }
    }
  }
});

test("no collective is faster than over the link that is simulated", async () => {
  // Of 4 messages in a ring of 3, and of two thirds of 400 bytes, twice.
  const least = 4 * 20 + 2 * 400 * 2 / 3 / 8000 * 1000, link = { bytesPerSecond: 8000, latencyNs: 20e6 };
  for (const env of [{}, MESSAGES]) {
    for (const { ms } of await succeed(3, "link", env, JSON.stringify({ link }))) {
      assert(ms as number >= least, `${ms} ms`);
    }
  }
});

test("ranks of a host have processors of their own, where there are enough", async () => {
  const many = navigator.hardwareConcurrency;
  for (const { processors } of await succeed(many + 1, "processors")) {
    assertMatch(
      processors as string,
      new RegExp(`^threads not bound: ${many + 1} ranks with ${many + 1} threads share`),
    );
  }
  const own = (await succeed(many, "processors")).map(({ processors }) => processors as string);
  own.forEach((text) => assertMatch(text, /^threads bound to processor \d+$/));
  assertEquals(new Set(own).size, many);
});
