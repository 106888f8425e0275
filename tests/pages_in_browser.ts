/** Opens the planner and the live page in a browser, as people do: `deno run -A tests/pages_in_browser.ts chromium [FOLDER]`. Pictures go
 * into the folder, if one is named. How long the planner compiles, and how late the live page is, is printed.
 * @module */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { toFileUrl } from "@std/path";
import { LiveServer } from "../train/report/live/live_server.ts";
import { plannerPage } from "../tools/planner.ts";
import { Page } from "./browser.ts";
import { assertReadable, drawnBetween, recordTexts } from "./page_checks.ts";

const [program = "chromium", pictures] = Deno.args;
const path = await Deno.makeTempFile({ suffix: ".html" });
await Deno.writeTextFile(path, await plannerPage());
await using page = await Page.open(program);
await recordTexts(page);
await page.resize(1280, 1180);

const ready = `["planned", "refused"].includes(document.body.dataset.state)`;
const text = (id: string) => page.evaluate<string>(`document.getElementById("${id}").textContent`);

/** Opens a choice, and waits for its answer. */
async function choose(name: string, address: string): Promise<void> {
  await page.go("about:blank");
  await page.go(`${toFileUrl(path)}#${address}`);
  await page.until(ready);
  if (pictures) await page.screenshot(`${pictures}/${name}.png`);
  const seconds = await page.evaluate<string>("document.body.dataset.seconds");
  console.log(
    `${name}: ${await text("title")}, compiled in ${seconds} s; ${await text("stage")}${await text("refused")}`,
  );
}

await choose("8B", "");
assertMatch(await text("plan"), /It fits: a rank needs [\d.]+ GiB/);
assertMatch(await text("plan"), /1,000,000,000,000 tokens in/);

// A field is changed: the plan follows, and so do the address and the file.
await page.evaluate(`(() => {
  const field = document.querySelector('[data-flag="parallelism.tensor_parallel_degree"]');
  document.body.dataset.state = "busy";
  field.value = "2";
  field.dispatchEvent(new Event("input"));
})()`);
await page.until(ready);
assertEquals(await text("title"), "llama3/8B on dp_shard 8 x tp 2 = 16 ranks");
console.log(`8B again, with tp 2: ${await text("stage")}`);
assertEquals(await page.evaluate("location.hash"), "#parallelism.tensor_parallel_degree=2");
assertMatch(await page.evaluate(`document.getElementById("toml").value`), /\ntensor_parallel_degree = 2\n/);

await choose(
  "405B",
  "model.flavor=405B&parallelism.data_parallel_shard_degree=64&parallelism.tensor_parallel_degree=8&activation_checkpoint.mode=full",
);
await choose(
  "pipeline",
  "model.flavor=70B&parallelism.pipeline_parallel_degree=4&parallelism.tensor_parallel_degree=8&training.local_batch_size=8",
);
assert(await page.evaluate<boolean>(`document.querySelector('[aria-label="timetable of the pipeline"]') !== null`));
await choose(
  "too large",
  "model.flavor=debugmodel&training.seq_len=512&training.local_batch_size=64&device-memory=1GB",
);
assertMatch(await text("fixes"), /training\.local_batch_size \d+ instead of 64/);
await choose("refused", "parallelism.tensor_parallel_degree=3");
assertMatch(await text("refused"), /expected: a multiple of 6/);

await page.resize(390, 800, { phone: true });
await choose("phone", "");
await assertReadable(page, "planner on a phone");
assertEquals(page.complaints, []);
await Deno.remove(path);

/** The live page: three runs of 10,000 steps and 8 ranks, of which one has ended, one has died, and one goes on. */
const folder = await Deno.makeTempDir();
const STEPS = 10_000;
const names = ["goes on", "ended", "died"];
for (const [i, name] of names.entries()) {
  await Deno.mkdir(`${folder}/${name}`);
  const started = new Date(Date.now() - 3_600_000).toISOString();
  const lines: unknown[] = [{
    run: {
      started,
      model: "6 million parameters",
      ranks: "8 on this host: dp_shard 4 x tp 2",
      device: "CPU, 2 threads",
      memory: {
        arena: 120 * 2 ** 20,
        parameters: 24 * 2 ** 20,
        gradientSums: 24 * 2 ** 20,
        moments: 48 * 2 ** 20,
        kept: 20 * 2 ** 20,
        transient: 4 * 2 ** 20,
      },
      size: 8,
      steps: 2 * STEPS,
      config: { training: { steps: 2 * STEPS }, optimizer: { lr: i } },
    },
  }];
  for (let step = 1; step <= STEPS; step++) lines.push(...reportsOf(step, i));
  if (name === "ended") lines.push({ end: { step: STEPS } });
  await Deno.writeTextFile(
    `${folder}/${name}/metrics.jsonl`,
    lines.map((line) => `${JSON.stringify(line)}\n`).join(""),
  );
}
const own = `${folder}/goes on/metrics.jsonl`, hourAgo = new Date(Date.now() - 3_600_000);
await Deno.utime(`${folder}/died/metrics.jsonl`, hourAgo, hourAgo);

/** What a run reports of a step. */
function reportsOf(step: number, run: number): unknown[] {
  const loss = 3 + 5 * Math.exp(-step / 1500) + 0.1 * Math.sin(step * (1 + run)) + 0.2 * run;
  const eight = (of: (rank: number) => number) => Array.from({ length: 8 }, (_, rank) => of(rank));
  return [
    {
      step,
      "loss_metrics/global_avg_loss": loss,
      "loss_metrics/global_max_loss": loss + 0.1,
      grad_norm: 0.5 + 0.2 * Math.cos(step),
      "throughput(tps)": 17_000 + 500 * Math.sin(step) + 400 * run,
      "time_metrics/end_to_end(s)": 0.12,
      "time_metrics/data_loading(%)": 0.4,
      "memory/max_reserved(GiB)": 0.4,
      n_tokens_seen: 2048 * step,
      lr: 8e-4 * Math.min(1, step / 200),
    },
    ...(step % 10 === 0
      ? [{
        step,
        ranks: {
          native_ms: eight((r) => 100 + 10 * r),
          loading_ms: eight((r) => r === 5 && step % 900 < 200 ? 9 : 1),
          memory_gib: eight(() => 0.4),
          loss: eight(() => loss),
        },
      }]
      : []),
    ...(step % 500 === 0
      ? [
        { step, "validation_metrics/loss": loss + 0.1, "validation_metrics/unigram_entropy": 6.3438 },
        { step, sample: `The run is at step ${step}, and <b>this</b> is no markup.` },
      ]
      : []),
  ];
}

const live = LiveServer.open({ paths: [folder], own });
await page.resize(1280, 1180);
await page.go(live.address);
const stepShown = "Number(document.documentElement.dataset.step)";
const shows = (step: number) => page.until(`${stepShown} === ${step}`);
await shows(STEPS);
const look = async (name: string) => {
  await new Promise((resolve) => setTimeout(resolve, 1500)); // slow parts of the page are drawn once a second
  if (pictures) await page.screenshot(`${pictures}/live ${name}.png`, true);
  await assertReadable(page, `live page, ${name}`);
};
const words = () => page.evaluate<string>("document.body.innerText");

/** Holds that each run's curve is whole: the loss goes on without a gap from the first step to beyond half of the axis, which ends with
 * the last step of a forecast. */
async function assertWhole(name: string): Promise<void> {
  for (const color of ["--c0", "--c1", "--c2"]) {
    const [begin, end] = await drawnBetween(page, "Loss", color);
    assert(begin < 0.06 && end > 0.5, `${name}: the curve of ${color} goes from ${begin} to ${end}`);
  }
}
await look("three runs");
await assertWhole("three runs");
assertMatch(await words(), /goes on\s+step 10,000 of 20,000/);
assertMatch(await words(), /died\s+no word for 1 h/);
assertMatch(await words(), /ended\s+finished after 10,000 steps/);

/** Milliseconds from the report of each of some steps until the page shows it. */
async function latencies(first: number, count: number): Promise<number[]> {
  const late: number[] = [];
  for (let step = first; step < first + count; step++) {
    const shown = page.evaluate<number>(`new Promise((found) => {
      const ask = () => ${stepShown} === ${step} ? found(performance.timeOrigin + performance.now()) : requestAnimationFrame(ask);
      ask();
    })`);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const at = performance.timeOrigin + performance.now();
    await Deno.writeTextFile(own, reportsOf(step, 0).map((line) => `${JSON.stringify(line)}\n`).join(""), {
      append: true,
    });
    live.write();
    late.push(await shown - at);
  }
  return late.toSorted((a, b) => a - b);
}
const late = await latencies(STEPS + 1, 40);
console.log(
  `live page: a step is shown after ${late[20].toFixed(0)} ms in the median, ${
    late[38].toFixed(0)
  } ms at most but for one`,
);

await page.go("about:blank"); // a reload in mid-run
await page.go(live.address);
await shows(STEPS + 40);
await look("reloaded");
await assertWhole("reloaded");
await page.resize(1280, 1180, { dark: true });
await look("dark");
await page.resize(390, 800, { phone: true });
await look("phone");
await page.resize(390, 800, { phone: true, dark: true });
await look("phone, dark");
await page.resize(1280, 1180);
const sideBySide = `[...document.querySelectorAll("label")].find((label) => label.textContent === "side by side")`;
await page.evaluate(`${sideBySide}.click()`);
await look("side by side");
await page.evaluate(`${sideBySide}.click()`);
assertMatch(await words(), /this.* is no markup|<b>this<\/b>/);
assertEquals(page.complaints, []);
await live[Symbol.asyncDispose](); // the run dies
await page.until(`/its process has gone since .*, after step 10,040/.test(document.body.innerText)`);
await look("server gone");
await assertWhole("server gone");
await Deno.remove(folder, { recursive: true });
