import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { temporaryFolder } from "../../data/fixture.ts";
import { command, reportsIn } from "./command_line.ts";

const preset = (name: string) => fromFileUrl(new URL(`../config/torchtitan/${name}.toml`, import.meta.url));

/** The losses of ten steps of torchtitan's debug model, on short rows. */
async function losses(...keys: string[]): Promise<unknown[]> {
  await using folder = await temporaryFolder();
  const short = ["--training.seq_len=64", "--training.local_batch_size=2", "--lr_scheduler.warmup_steps=0"];
  const { code, out, errors } = await command(
    ...["--config", preset("debug_model"), `--job.dump_folder=${folder.path}`, ...short, ...keys],
  );
  assertEquals([code, errors], [0, []], out);
  assertStringIncludes(out, "libtitan: Llama 3 debug training");
  assertStringIncludes(out, "the tokenizer of the sample stands in");
  return reportsIn(`${folder.path}/metrics.jsonl`).map((line) => line["loss_metrics/global_avg_loss"]);
}

Deno.test("torchtitan's debug model trains its ten steps, and an offload to the CPU changes no bit of them", async () => {
  const plain = await losses();
  assertEquals(plain.length, 10);
  assertEquals(await losses("--training.enable_cpu_offload", "--compile.enable"), plain);
});

Deno.test("an early step trains as one whose gradients are never clipped", async () => {
  const early = await losses("--optimizer.early_step_in_backward", "--training.max_norm=1e-3");
  assertEquals(early, await losses("--training.max_norm=1e9"));
  assertEquals(JSON.stringify(early) === JSON.stringify(await losses("--training.max_norm=1e-3")), false);
});

Deno.test("flex and varlen flavors train as the debug model with attention within documents", async () => {
  const within = await losses("--model.attn_mask_type=block_causal");
  for (const flavor of ["debugmodel_flex_attn", "debugmodel_varlen_attn"]) {
    assertEquals(await losses("--model.flavor", flavor), within);
  }
});

Deno.test("torchtitan's 8B, 70B and 405B are planned for the ranks that their files are made for, the last in float8", async () => {
  const meshes = [
    ["llama3_8b", 64, "dp_shard 64 = 64 ranks"],
    ["llama3_70b", 64, "dp_shard 8 x tp 8 = 64 ranks"],
    ["llama3_405b", 128, "dp_shard 16 x tp 8 = 128 ranks"],
  ] as const;
  for (const [name, ranks, mesh] of meshes) {
    const { code, out, errors } = await command("--config", preset(name), "--dry-run", "--nproc", `${ranks}`);
    assertEquals([code, errors], [0, []]);
    assertStringIncludes(out, `Mesh\n  ${mesh}\n`);
    assertMatch(out, /\n {2}arena +[\d.]+ GiB = /);
  }
});
