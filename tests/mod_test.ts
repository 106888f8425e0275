import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as titan from "../mod.ts";
import {
  compile,
  f32,
  grad,
  interpret,
  Linear,
  llama,
  Module,
  namedParameters,
  numParameters,
  print,
  type Tensor,
  trace,
  verify,
} from "../mod.ts";

Deno.test("the package exports what experiments are written with", () => {
  const values = Object.keys(titan);
  for (
    const name of [
      "llama",
      "Module",
      "Linear",
      "Tensor",
      "texts",
      "train",
      "Trainer",
      "trace",
      "grad",
      "compile",
      "load",
      "generate",
      "openDecoder",
    ]
  ) {
    assert(values.includes(name), `no ${name} among ${values}`);
  }
});

Deno.test("a block of one's own is ordinary TypeScript, and its parameters are named by their properties", () => {
  class GatedMixer extends Module {
    readonly gate: Linear;
    readonly value: Linear;
    constructor(dim: number) {
      super();
      this.gate = new Linear(dim, dim);
      this.value = new Linear(dim, dim);
    }
    forward(x_BTD: Tensor): Tensor {
      return this.gate.forward(x_BTD).sigmoid().mul(this.value.forward(x_BTD));
    }
  }
  assertEquals([...namedParameters(new GatedMixer(4)).keys()], ["gate.weight", "value.weight"]);
});

Deno.test("functions have gradients, and a text", () => {
  const f = (x: Tensor) => x.matmul(x.transpose(0, 1)).softmax(-1).sum();
  const graph = verify(trace(grad(f), f32(8, 8)));
  assertStringIncludes(print(graph), `output %`);
  assertEquals(Object.values(interpret(graph, { inputs: { x0: new Float32Array(64).fill(1) } }))[0].shape, [8, 8]);
  assertEquals(compile(grad(f), f32(8, 8)).graph.inputs.length, 1);
});

Deno.test("importing the package needs no permission, and so loads no native code", async () => {
  const file = await Deno.makeTempFile({ suffix: ".ts" }), root = new URL("..", import.meta.url);
  try {
    await Deno.writeTextFile(
      file,
      `import { llama, numParameters } from "${root}mod.ts"; console.log(numParameters(llama("8B")));`,
    );
    const args = ["run", "--quiet", "--no-check", "--no-prompt", "--config", new URL("deno.json", root).pathname, file];
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assertEquals([out, error], [`${numParameters(llama("8B"))}\n`, ""]);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("a file in another folder runs README.md's example, by README.md's deno.json and command", async () => {
  const root = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
  const readme = (await Deno.readTextFile(`${root}/README.md`)).replaceAll("/path/to/titan", root);
  const config = /^```json\n([^]*?)```/m.exec(readme)![1],
    command = /`npx -y (deno run [^`]* main\.ts)`/.exec(readme)![1];
  const main = [...readme.matchAll(/^```ts\n([^]*?)```/gm)].map(([, code]) => code).find((code) => /grad/.test(code))!;
  const cwd = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${cwd}/deno.json`, config);
    await Deno.writeTextFile(`${cwd}/main.ts`, main);
    const env = { NO_COLOR: "1", PATH: `${root}/node_modules/.bin:${Deno.env.get("PATH")}` };
    const { code, stdout, stderr } = await new Deno.Command("sh", { args: ["-c", command], cwd, env }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    assert(new TextDecoder().decode(stdout).endsWith('output %7 "gradient/x0"\n\nFloat32Array(3) [ 2, 4, 6 ]\n'));
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
});
