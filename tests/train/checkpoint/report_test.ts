import { assertEquals } from "@std/assert";
import type { Start } from "../../../train/checkpoint/checkpoints.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { PARTS } from "../../../train/checkpoint/policy.ts";
import { changes, savedText, stagingLines, startLines } from "../../../train/checkpoint/report.ts";

const config = { job: { dump_folder: "a" }, training: { seq_len: 16, steps: 10 }, optimizer: { lr: 0.1 } };
const start: Start = {
  ...{
    path: "out/checkpoint/step-1000",
    parts: PARTS,
    notices: ["x is no checkpoint"],
    step: 1000,
    scheduleFrom: 0,
    optimizerFrom: 0,
    tokensSeen: 16000,
  },
  ...{ loader: undefined, config },
};

Deno.test("a header says where a run goes on from, what was passed over, and what has changed since", () => {
  const now = { ...config, job: { dump_folder: "b" }, training: { seq_len: 32, steps: 10 } };
  assertEquals(startLines(start, now), [
    "  from    out/checkpoint/step-1000: step 1,000, 16,000 tokens seen",
    "          passed over: x is no checkpoint",
    "  changed training.seq_len 32, was 16",
  ]);
  assertEquals(startLines({ ...start, parts: ["model"], notices: [], config: null }, now), [
    "  from    out/checkpoint/step-1000: step 0; taken from it: model",
  ]);
});

Deno.test("keys that are new or gone are changes too, and those that change nothing are none", () => {
  assertEquals(changes({ a: { b: 1 }, metrics: { log_freq: 1 } }, { a: { c: 2 }, metrics: { log_freq: 2 } }), [
    "a.b not set, was 1",
    "a.c 2, was not set",
  ]);
});

Deno.test("a save is told with its size and speed, and one that failed with why", () => {
  const saved = { path: "out/step-5", content: "full", bytes: 3 * 2 ** 20, ms: 1500, stallMs: 1500 } as const;
  assertEquals(savedText(saved), "saved out/step-5: 3.0 MiB in 1.50 s, 2.0 MiB/s");
  assertEquals(
    savedText({ ...saved, stallMs: 40 }),
    "saved out/step-5: 3.0 MiB in 1.50 s, 2.0 MiB/s; training stood still for 0.04 s of them",
  );
  assertEquals(
    savedText({ ...saved, content: "model" }),
    "saved out/step-5: parameters alone, 3.0 MiB in 1.50 s, 2.0 MiB/s",
  );
  const failure = new CheckpointError("Cannot save", "room", "make room");
  assertEquals(
    savedText({ ...saved, failure }),
    "warning: Cannot save\n  expected: room\n  fix: make room   (checkpoint)\n  the run goes on",
  );
});

Deno.test("a buffer that is smaller than what goes through it is told, where training goes on meanwhile", () => {
  const host = { inputBytes: 0, outputBytes: 0, prefetchBytes: 0, shareBytes: 3 * 2 ** 30, stagingBytes: 2 ** 28 };
  assertEquals(stagingLines(host, true).map((line) => line.slice(0, 62)), [
    "checkpoints: 256.0 MiB of 3.0 GiB are copied ahead of the disk",
  ]);
  assertEquals([stagingLines(host, false), stagingLines({ ...host, stagingBytes: 2 ** 32 }, true)], [[], []]);
});
