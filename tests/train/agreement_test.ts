import { assertEquals, assertRejects } from "@std/assert";
import { agree, AgreementError, differences } from "../../train/agreement.ts";

/** A group whose other ranks have these facts. */
const groupOf = (...others: unknown[]) => ({
  exchangeJson: <T>(mine: T) => Promise.resolve([mine, ...others].map((one) => JSON.parse(JSON.stringify(one)) as T)),
});

Deno.test("ranks that have the same facts go on", async () => {
  const facts = () => ({ library: "1", config: { a: [1, { b: null }], c: "x" } });
  await agree(groupOf(facts(), facts()), facts());
});

Deno.test("each fact that differs is named by its path, with who has what", () => {
  assertEquals(
    differences([
      { library: "1", config: { training: { seq_len: 16, steps: 3 }, list: [1, 2] } },
      { library: "1", config: { training: { seq_len: 32, steps: 3 }, list: [1] } },
      { library: "2", config: { training: { seq_len: 16, steps: 3 }, list: [1, 2] } },
    ]),
    [
      'library: "1" on ranks 0, 1; "2" on rank 2',
      "config.training.seq_len: 16 on ranks 0, 2; 32 on rank 1",
      "config.list.1: 2 on ranks 0, 2; nothing on rank 1",
    ],
  );
});

Deno.test("the error names the first differences, how many more there are, and what to do", async () => {
  const facts = (n: number) => Object.fromEntries(Array.from({ length: 11 }, (_, i) => [`k${i}`, n]));
  const { message } = await assertRejects(() => agree(groupOf(facts(1)), facts(0)), AgreementError);
  const lines = message.split("\n");
  assertEquals(lines.slice(0, 2), ["The ranks of this run were not started alike", "  k0: 0 on rank 0; 1 on rank 1"]);
  assertEquals(lines[9], "  and 3 more");
  assertEquals(lines.at(-1)!.startsWith("  fix: start all ranks with the same command line"), true);
});
