import { assertEquals } from "@std/assert";
import { RunLog } from "../../../../train/report/live/run_log.ts";
import { temporaryFolder } from "../../../data/fixture.ts";

const train = (step: number) => ({ step, "loss_metrics/global_avg_loss": 1 / 3, grad_norm: null, lr: 0.1 });
const text = (...lines: unknown[]) => lines.map((line) => `${JSON.stringify(line)}\n`).join("");
const begin = { run: { started: "2026-01-01T00:00:00Z", config: {} } };

Deno.test("a file is read as it grows, line by line: half a line waits for its rest, and a torn one tells nothing", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`, log = new RunLog(path);
  assertEquals(log.read(), []);
  const second = text(train(2)), add = (more: string) => Deno.writeTextFileSync(path, more, { append: true });
  add(text(begin, train(1)) + second.slice(0, 20));
  const rows = (updates: ReturnType<RunLog["read"]>) =>
    updates === "anew" ? updates : updates.flatMap(({ rows }) => rows ?? []).map((row) => row.slice(0, 5));
  assertEquals(rows(log.read()), [[1, 0.333333, null, null, 0.1]]);
  assertEquals(log.updates[0], { begin: begin.run });
  assertEquals(log.read(), []);
  add(second.slice(20) + '{"step": 3, "loss\n' + text(train(4)));
  assertEquals(rows(log.read()), [[2, 0.333333, null, null, 0.1], [4, 0.333333, null, null, 0.1]]);
});

Deno.test("validations, texts, ranks and the end are told apart", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`,
    log = new RunLog(path),
    ranks = { step: 5, ranks: { loading_ms: [1, 2] } };
  const validation = { step: 5, "validation_metrics/loss": 2, "validation_metrics/unigram_entropy": 6 };
  Deno.writeTextFileSync(path, text(begin, validation, { step: 5, sample: "a <b>" }, ranks, { end: { step: 5 } }));
  assertEquals(log.read(), [
    { begin: begin.run },
    { validations: [[5, 2, 6, null]], samples: [[5, "a <b>"]], ranks: [ranks] },
    { end: { step: 5 } },
  ]);
});

Deno.test("another file under the same name begins anew", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`, log = new RunLog(path);
  Deno.writeTextFileSync(path, text(begin, train(1), train(2)));
  log.read();
  Deno.renameSync(path, `${folder.path}/metrics.1.jsonl`);
  Deno.writeTextFileSync(path, text(begin, train(7), train(8), train(9)));
  assertEquals(log.read(), "anew");
  assertEquals(log.updates.flatMap(({ rows }) => rows ?? []).map(([step]) => step), [7, 8, 9]);
});

Deno.test("a long run comes in parts", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`, log = new RunLog(path);
  Deno.writeTextFileSync(path, text(begin, ...Array.from({ length: 5000 }, (_, i) => train(i + 1))));
  log.read();
  assertEquals(log.updates.map(({ rows }) => rows?.length ?? 0), [0, 2000, 2000, 1000]);
});
