import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { type TraceEvent, traceEvents, traceJson } from "../../../train/report/chrome_trace.ts";
import { someProfile, twoMicrobatches } from "./profiles.ts";

const HOST = 1, COMPUTE = 2;
const profiles = [twoMicrobatches(9), twoMicrobatches(10)];

type Slice = TraceEvent & { readonly ph: "X" };
const slices = (tid: number): Slice[] =>
  traceEvents([profiles]).filter((e): e is Slice => e.ph === "X" && e.tid === tid);

/** Slices as lines indented by what they lie in; fails where one sticks out of another. */
function outline(list: readonly Slice[]): string[] {
  const ends: number[] = [];
  return list.map(({ ts, dur, name, cat }) => {
    while (ends.length > 0 && ends.at(-1)! <= ts) ends.pop();
    assert(ends.length === 0 || ts + dur <= ends.at(-1)!, `${name} at ${ts} sticks out`);
    ends.push(ts + dur);
    return `${"  ".repeat(ends.length - 1)}${name} (${cat})`;
  });
}

Deno.test("a trace is JSON in the trace event format, field by field", () => {
  const trace = JSON.parse(traceJson([profiles]));
  assertEquals(Object.keys(trace), ["displayTimeUnit", "traceEvents"]);
  assertEquals(trace.displayTimeUnit, "ms");
  assertEquals(trace.traceEvents, traceEvents([profiles]));
  let slicesBegun = false;
  for (const event of trace.traceEvents) {
    assertEquals(event.pid, 1);
    assert([HOST, COMPUTE].includes(event.tid));
    assertEquals(Object.getPrototypeOf(event.args), Object.prototype);
    if (event.ph === "M") {
      assertEquals(Object.keys(event).sort(), ["args", "name", "ph", "pid", "tid"]);
      assert(!slicesBegun, "rows are named first");
      continue;
    }
    slicesBegun = true;
    assertEquals(Object.keys(event).sort(), ["args", "cat", "dur", "name", "ph", "pid", "tid", "ts"]);
    assertEquals(event.ph, "X");
    for (const text of [event.name, event.cat]) assert(typeof text === "string" && text.length > 0);
    for (const time of [event.ts, event.dur]) {
      assert(Number.isInteger(8 * time) && time >= 0, `${time} is no number of eighths of a microsecond`);
    }
  }
});

Deno.test("rank 0 is a process with rows for the host and the stream", () => {
  const names = traceEvents([profiles]).filter((e) => e.ph === "M" && e.name !== "thread_sort_index");
  assertEquals(names.map(({ name, tid, args }) => [name, tid, args.name]), [
    ["process_name", HOST, "rank 0"],
    ["thread_name", HOST, "host"],
    ["thread_name", COMPUTE, "compute"],
  ]);
});

Deno.test("instructions lie inside of modules, those inside of forward, backward and update", () => {
  const microbatch = (k: number): string[] =>
    `microbatch ${k} (microbatch)
  forward (forward)
    tok_embeddings (forward)
      embedding (forward)
    layers.0 (forward)
      attention (forward)
        wq (forward)
          gemm (forward)
        attention (forward)
    layers.1 (forward)
      attention (forward)
        wq (forward)
          gemm (forward)
  backward (backward)
    layers.1' (backward)
      attention' (backward)
        wq' (backward)
          gemm (backward)
    layers.0' (backward)
      attention' (backward)
        wq' (backward)
          gemm (backward)`.split("\n");
  const update = ["update (update)", "  adamw (update)", "  output loss (update)", "    copy (update)"];
  const step = [...microbatch(0), ...microbatch(1), ...update];
  assertEquals(outline(slices(COMPUTE)), [...step, ...step]);
});

Deno.test("an instruction tells its module, FLOPs and bytes", () => {
  const { name, args } = slices(COMPUTE).find((e) => e.name === "gemm" && e.cat === "backward")!;
  assertEquals([name, args], ["gemm", { module: "layers.1.attention.wq'", flops: 16e6, bytes: 2e3 }]);
});

Deno.test("the host waits and calls, and what the call runs is in the middle of it", () => {
  assertEquals(
    outline(slices(HOST)),
    [9, 10].flatMap((step) => [
      `step ${step} (host)`,
      "  wait for data (host)",
      "  titan_program_run (host)",
    ]),
  );
  const [, wait, call] = slices(HOST), compute = slices(COMPUTE);
  assertEquals([wait.ts, wait.dur, call.ts, call.dur], [0, 500, 500, 290]);
  assertEquals(compute[0].ts, 600);
  const ends = compute.filter(({ ts }) => ts < 1000).map(({ ts, dur }) => ts + dur);
  assertAlmostEquals(Math.max(...ends), 690, 0.2);
});

Deno.test("each rank is a process on one clock, with collectives in a row of their own", () => {
  const [gather] = someProfile(1, [{ section: "microbatch", ran: [["all_gather", "layers.0", 30]] }]).instructions;
  const ranks = [0, 1].map((rank) => {
    const profile = twoMicrobatches(1), beginNs = profile.instructions[0].beginNs + 1000 * rank;
    // The host's clock of the second rank began 5 ms before that of the first.
    const host = {
      startMs: profile.startMs + 5 * rank,
      calledMs: profile.calledMs + 5 * rank,
      endMs: profile.endMs + 5 * rank,
    };
    return [{
      ...profile,
      ...host,
      instructions: [...profile.instructions, { ...gather, stream: 1, beginNs, endNs: beginNs + 3e4 }],
    }];
  });
  const events = traceEvents(ranks);
  const names = events.flatMap((e) =>
    e.ph === "M" && e.name !== "thread_sort_index" ? [`${e.pid}.${e.tid} ${e.args.name}`] : []
  );
  assertEquals(names, [
    "1.1 rank 0",
    "1.1 host",
    "1.2 compute",
    "1.3 comm",
    "2.1 rank 1",
    "2.1 host",
    "2.2 compute",
    "2.3 comm",
  ]);
  const gathers = events.filter((e): e is Slice => e.ph === "X" && e.name === "all_gather");
  assertEquals(gathers.map(({ pid, tid, dur }) => [pid, tid, dur]), [[1, 3, 30], [2, 3, 30]]);
  assertAlmostEquals(gathers[1].ts - gathers[0].ts, 1, 0.2);
  const steps = events.filter((e): e is Slice => e.ph === "X" && e.name === "step 1");
  assertAlmostEquals(steps[1].ts - steps[0].ts, 0, 0.2);
});
