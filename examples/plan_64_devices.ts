/**
 * Plans 70 billion parameters on 64 devices of 80 GB: for each way to lay them out, does it fit, and how long is a step? No device and no
 * second process is needed.
 *
 * npx -y deno run --no-prompt --allow-read --allow-sys --allow-env --allow-write --allow-ffi=build/libtitan.so examples/plan_64_devices.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { main } from "jsr:@libtitan/titan";

const file = await Deno.makeTempFile(), log = console.log;
for (const mesh of ["dp_shard=64", "dp_shard=8,tp=8", "dp_shard=8,tp=4,cp=2"]) {
  console.log = () => {}; // the plan itself goes to the file
  const code = await main([
    ...["--dry-run", "--model.flavor=70B", `--mesh=${mesh}`, `--plan-json=${file}`],
    ...["--training.seq_len=8192", "--training.local_batch_size=1", "--training.mixed_precision_param=bfloat16"],
    ...["--activation_checkpoint.mode=full", "--device-memory=80GB"],
    ...["--device-tflops=400", "--device-bandwidth=3TB/s", "--link=tp=450GB/s,400Gb/s"],
  ]);
  console.log = log;
  const { memory, step, time } = JSON.parse(await Deno.readTextFile(file));
  const speed = (step.tokens / time.most).toFixed(0);
  console.log(
    `${mesh}: ${(memory.arena / 1e9).toFixed(1)} GB of a device, ${
      code === 0 ? "fits" : "does not fit"
    }, at least ${speed} tokens a second`,
  );
}
await Deno.remove(file);
