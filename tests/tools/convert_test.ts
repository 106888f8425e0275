import { assertEquals, assertRejects } from "@std/assert";
import { run } from "../../tools/convert.ts";
import { UsageError } from "../../tools/tool.ts";
import { CheckpointError } from "../../train/checkpoint/error.ts";
import { openGguf } from "../../train/weights/gguf.ts";
import { temporaryFolder } from "../data/fixture.ts";
import { sample, smallCheckpoint, smallConfig } from "../train/weights/fixture.ts";

async function command(...args: string[]): Promise<{ code: number; text: string }> {
  const lines: string[] = [], code = await run(args, (text) => lines.push(text));
  return { code, text: lines.join("\n") };
}

Deno.test("two paths are converted, in the type and with the tokenizer that are named before or behind them", async () => {
  await using folder = await temporaryFolder();
  const from = await smallCheckpoint(`${folder.path}/step-3`, smallConfig, {}), to = `${folder.path}/a.gguf`;
  await assertRejects(() => command(from, to), CheckpointError, "--tokenizer FOLDER");
  const { code, text } = await command("--dtype=q8_0", from, to, "--tokenizer", sample);
  assertEquals([code, text], [0, `${to} has the model of ${from}, in q8_0`]);
  assertEquals(openGguf(to).manifest.tensors["output.weight"].dtype, "q8_0");
});

Deno.test("anything but two paths is refused with how it is called, and a type that there is not is refused by name", async () => {
  for (const args of [[], ["a"], ["a", "b", "c"], ["a", "--what"]]) {
    await assertRejects(() => command(...args), UsageError, "\n\nUsage: npx -y deno task convert");
  }
  assertEquals((await command("--help")).code, 0);
  await assertRejects(() => command("--dtype", "q4_0", "a", "b.gguf"), CheckpointError, "Cannot convert to q4_0");
});
