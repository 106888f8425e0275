import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { temporaryFolder } from "../data/fixture.ts";
import { lastRun, lossSvg, type Point } from "../../tools/plot_loss.ts";

const lines = (...values: Record<string, unknown>[]) => values;
const training = (step: number, loss: number | null) => ({ step, "loss_metrics/global_avg_loss": loss, "lr": 1 });
const config = (description: string) => ({ run: { started: "", config: { job: { description } } } });
const curve = { title: "a run", tokensPerStep: 2048, validation: [] as Point[] };

Deno.test("the last run of a file is drawn, without losses that are not numbers", () => {
  const text = lines(
    config("old"),
    training(1, 9),
    config("new"),
    training(1, 8),
    training(2, null),
    training(3, 7.5),
    { step: 3, "validation_metrics/loss": 7.25, "validation_metrics/unigram_entropy": 6.5 },
  );
  const run = lastRun(text);
  assertEquals(run.config.job.description, "new");
  assertEquals(run.training, [{ step: 1, loss: 8 }, { step: 3, loss: 7.5 }]);
  assertEquals(run.validation, [{ step: 3, loss: 7.25 }]);
  assertEquals(run.unigramEntropy, 6.5);
});

Deno.test("a run that went on from a checkpoint is drawn whole, without the steps that it made again", () => {
  const resumed = (from: number) => ({ run: { started: "", from, config: { job: { description: "on" } } } });
  const points = (...values: Record<string, unknown>[]) => lastRun(lines(...values)).training.map((p) => p.loss);
  const begun = [config("begun"), training(1, 9), training(2, 8), training(3, 7)];
  assertEquals(points(...begun, resumed(2), training(3, 7.5), training(4, 6)), [9, 8, 7.5, 6]);
  assertEquals(points(...begun, resumed(3), training(4, 6), resumed(1), training(2, 5)), [9, 5]);
  assertEquals(points(...begun, config("anew"), training(1, 4)), [4]);
});

Deno.test("a file without a run is refused", () => {
  assertThrows(() => lastRun(lines(training(1, 8))), SyntaxError, "no run with a finite loss");
  assertThrows(() => lastRun(lines(config("empty"))), SyntaxError, "no run with a finite loss");
});

Deno.test("the training loss is a line whose points lie where the axes say", () => {
  const svg = lossSvg({ ...curve, training: [{ step: 5, loss: 8 }, { step: 10, loss: 4 }] });
  assertStringIncludes(svg, 'd="M400.0 52.0L736.0 364.0"');
  assertStringIncludes(svg, "training, 4.00 at the end");
  assertStringIncludes(svg, "step (2,048 tokens each)");
  assertEquals(svg.includes("<circle"), false);
  assertEquals(svg.includes("entropy"), false);
});

Deno.test("validations are dots, and the unigram entropy a dashed line", () => {
  const svg = lossSvg({
    ...curve,
    training: [{ step: 10, loss: 8 }],
    validation: [{ step: 10, loss: 4 }],
    unigramEntropy: 6,
  });
  assertStringIncludes(svg, '<circle cx="736.0" cy="364.0"');
  assertStringIncludes(svg, '<path d="M64 208.0H736" stroke="#57606a" stroke-width="1.5" stroke-dasharray="6 4"/>');
  assertStringIncludes(svg, "its unigram entropy, 6.00");
});

Deno.test("a run whose loss is one whole number has a picture too", () => {
  const svg = lossSvg({ ...curve, training: [{ step: 1, loss: 8 }] });
  assertEquals(/NaN|Infinity/.test(svg), false);
});

Deno.test("a title is text, whatever it holds", () => {
  const svg = lossSvg({ ...curve, title: "a < b & c", training: [{ step: 10, loss: 8 }] });
  assertStringIncludes(svg, "<title>a &lt; b &amp; c</title>");
});

Deno.test("a file with a torn line is drawn without it, which is told with file and line", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`, picture = `${folder.path}/loss.svg`;
  const run = { config: { job: { description: "a run" }, training: { local_batch_size: 1, seq_len: 8 } } };
  const text = [{ run }, training(1, 8), training(2, 7)].map((line) => JSON.stringify(line)).join("\n");
  await Deno.writeTextFile(path, text.replace(/"lr":1}$/, ""));
  const tool = new URL("../../tools/plot_loss.ts", import.meta.url);
  const args = ["run", "--quiet", "--allow-read", `--allow-write=${folder.path}`, tool.pathname];
  const plot = async (...more: string[]) => {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), { args: [...args, ...more] }).output();
    return { code, error: new TextDecoder().decode(stderr) };
  };
  assertEquals(await plot(path, picture), {
    code: 0,
    error: `warning: ${path}:3 is no line of JSON and is left out\n`,
  });
  assertStringIncludes(await Deno.readTextFile(picture), "training, 8.00 at the end");
  assertEquals(await plot(), {
    code: 1,
    error: "Usage: deno run --allow-read --allow-write tools/plot_loss.ts METRICS_JSONL SVG\n",
  });
});
