import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { run } from "../../tools/checkpoint.ts";
import { UsageError } from "../../tools/tool.ts";
import { CheckpointError } from "../../train/checkpoint/error.ts";
import { writeLasting } from "../../train/checkpoint/files.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../train/weights/hugging_face.ts";
import { differences } from "../../train/checkpoint/inspect.ts";
import { readHeader } from "../../train/weights/safetensors.ts";
import { temporaryFolder } from "../data/fixture.ts";
import { saved, tensorsOf, writeWeights } from "../train/checkpoint/fixture.ts";

async function command(...args: string[]): Promise<{ code: number; text: string }> {
  const lines: string[] = [], code = await run(args, (text) => lines.push(text));
  return { code, text: lines.join("\n") };
}

Deno.test("each command prints what it says, and ends with 1 where something is not as it should be", async () => {
  await using at = await saved();
  assertMatch((await command("ls", at.folder)).text, /step-1 +step 1, whole run/);
  assertStringIncludes((await command("show", at.path)).text, "Tensors\n");
  assertEquals(await command("verify", at.path), { code: 0, text: "all bytes of 3 files are those that were written" });
  assertEquals(await command("diff", at.path, at.path), { code: 0, text: "all tensors are the same, bit for bit" });
  await assertRejects(() => command("export", at.path, `${at.folder}/out`), CheckpointError, "of no known family");
  assertMatch((await command("show", new URL("../goldens/hf/tied", import.meta.url).pathname)).text, /transformers/);
  const file = `${at.path}/model.safetensors`, bytes = await Deno.readFile(file);
  bytes[bytes.length - 1] ^= 1;
  await Deno.writeFile(file, bytes);
  const { code, text } = await command("verify", at.path);
  assertEquals([code, text.split(" ")[0]], [1, "model.safetensors"]);
  await assertRejects(() => command("show", `${at.folder}/step-9`), CheckpointError, "step-9: there is no such folder");
});

Deno.test("a checkpoint is exported in the type that is asked for, also one from before heads had a size of their own", async () => {
  await using folder = await temporaryFolder();
  const golden = new URL("../goldens/hf/grouped", import.meta.url).pathname, step = `${folder.path}/step-1`;
  const tensors = await tensorsOf(openHuggingFace(golden)), { manifest } = writeWeights(step, tensors);
  const { headDim: _, ...llama } = readHuggingFaceConfig(golden).sizes;
  const files = {
    ...manifest.files,
    "state.json": await writeLasting(`${step}/state.json`, JSON.stringify({ llama })),
  };
  await Deno.writeTextFile(`${step}/manifest.json`, JSON.stringify({ ...manifest, files }));
  for (const [dtype, file] of [["f16", "F16"], ["bf16", "BF16"], ["f32", "F32"]]) {
    const out = `${folder.path}/${dtype}`;
    assertEquals((await command("export", "--dtype", dtype, step, out)).code, 0);
    const { tensors } = readHeader(`${out}/model.safetensors`);
    assertEquals(new Set([...tensors.values()].map((t) => t.dtype)), new Set([file]));
  }
  assertEquals(await differences(openHuggingFace(golden), openHuggingFace(`${folder.path}/f32`)), []);
  await assertRejects(() => command("export", step, "x", "--dtype", "f8"), CheckpointError, "Cannot export as f8");
  await assertRejects(() => command("export", step, "x", "--dtype"), CheckpointError, "Cannot export as nothing");
});

Deno.test("with --json each command prints one object that says the same", async () => {
  await using at = await saved();
  const json = async (...args: string[]) => {
    const { code, text } = await command(...args, "--json");
    return { code, value: JSON.parse(text) };
  };
  const { bytes, ...listed } = (await json("ls", at.folder)).value.checkpoints[0];
  assertEquals(listed, { path: at.path, step: 1, content: "whole run" });
  const shown = (await json("show", at.path)).value;
  assertEquals([shown.step, Object.values<number>(shown.files).reduce((sum, n) => sum + n)], [1, bytes]);
  const lines = (await command("show", at.path)).text.split("\n");
  for (const { name, dtype, shape, pieces, norm } of shown.tensors) {
    const parts = `${dtype}[${shape}], ${pieces} piece${pieces === 1 ? "" : "s"}, norm ${norm.toPrecision(6)}`;
    assertEquals(
      lines.filter((line) => line.trim().startsWith(`${name} `)).map((line) => line.trim().split(/ {2,}/)[1]),
      [
        parts,
      ],
    );
  }
  assertEquals(await json("verify", at.path), { code: 0, value: { files: 3, damages: [] } });
  assertEquals(await json("diff", at.path, at.path), { code: 0, value: { differences: [] } });
  const file = `${at.path}/model.safetensors`, content = await Deno.readFile(file);
  content[content.length - 1] ^= 1;
  await Deno.writeFile(file, content);
  const damaged = await json("verify", at.path);
  assertEquals([damaged.code, damaged.value.damages.length], [1, 1]);
});

Deno.test("anything else is refused with the usage", async () => {
  for (
    const args of [[], ["show"], ["diff", "a"], ["list", "a"], ["show", "a", "--dtype", "f16"], [
      "export",
      "a",
      "b",
      "--json",
    ]]
  ) {
    await assertRejects(() => command(...args), UsageError, "\n\nUsage: npx -y deno task checkpoint COMMAND");
  }
  assertEquals((await command("--help")).code, 0);
});
