/** Opens the planner in a browser, as people do: `deno run -A tests/docs/pages_in_browser.ts chromium [FOLDER]`. Pictures of it go into the
 * folder, if one is named. What it compiles and how long that takes is printed.
 * @module */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { toFileUrl } from "@std/path";
import { plannerPage } from "../../tools/planner.ts";
import { Page } from "../browser.ts";

const [program = "chromium", pictures] = Deno.args;
const path = await Deno.makeTempFile({ suffix: ".html" });
await Deno.writeTextFile(path, await plannerPage());
await using page = await Page.open(program);
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
assertEquals(await page.evaluate("location.hash"), "#parallelism.tensor_parallel_degree=2");
assertMatch(await page.evaluate(`document.getElementById("toml").value`), /\ntensor_parallel_degree = 2\n/);

await choose(
  "405B",
  "model.flavor=405B&parallelism.data_parallel_shard_degree=64&parallelism.tensor_parallel_degree=8",
);
await choose(
  "pipeline",
  "model.flavor=70B&parallelism.pipeline_parallel_degree=4&parallelism.tensor_parallel_degree=8&training.local_batch_size=8",
);
assert(await page.evaluate<boolean>(`document.querySelector('[aria-label="timetable of the pipeline"]') !== null`));
await choose("too large", "training.local_batch_size=64");
assertMatch(await text("fixes"), /training\.local_batch_size \d+ instead of 64/);
await choose("refused", "parallelism.tensor_parallel_degree=3");
assertMatch(await text("refused"), /expected: a multiple of 6/);

await page.resize(390, 800, { phone: true });
await choose("phone", "");
assert(await page.evaluate<boolean>("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone");
assertEquals(page.complaints, []);
await Deno.remove(path);
