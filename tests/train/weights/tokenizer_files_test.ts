import { assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { Tokenizer } from "../../../data/tokenizer.ts";
import { copyTokenizer } from "../../../train/weights/tokenizer_files.ts";
import { temporaryFolder } from "../../data/fixture.ts";

const sample = new URL("../../../data/sample", import.meta.url).pathname;

Deno.test("the tokens that begin and end a text come from how the model generates, else the model, else the tokenizer", async () => {
  await using folder = await temporaryFolder();
  const from = `${folder.path}/from`;
  await Deno.mkdir(from);
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(`${sample}/${file}`, `${from}/${file}`);
  }
  const write = (file: string, content: unknown) => Deno.writeTextFileSync(`${from}/${file}`, JSON.stringify(content));
  let n = 0;
  const copied = async () => {
    const to = `${folder.path}/${n++}`;
    await Deno.mkdir(to);
    const special = await copyTokenizer(from, to);
    return { special, generation: JSON.parse(await Deno.readTextFile(`${to}/generation_config.json`)), to };
  };
  const tokens = Object.fromEntries(
    JSON.parse(await Deno.readTextFile(`${sample}/tokenizer.json`)).added_tokens.map(
      ({ id, content }: { id: number; content: string }) => [content, id],
    ),
  );
  const own = { bos_token_id: tokens["<|begin_of_text|>"], eos_token_id: tokens["<|end_of_text|>"] };
  let { special, generation, to } = await copied();
  assertEquals([special, generation], [own, own]);
  write("config.json", { model_type: "llama", eos_token_id: 7 });
  ({ special, generation } = await copied());
  assertEquals([special, generation], [{ eos_token_id: 7 }, { eos_token_id: 7 }]);
  const full = { bos_token_id: 3, eos_token_id: [4, 5], temperature: 0.6 };
  write("generation_config.json", full);
  await Deno.writeTextFile(`${from}/chat_template.jinja`, "{{ messages }}");
  ({ special, generation, to } = await copied());
  assertEquals([special, generation], [{ bos_token_id: 3, eos_token_id: [4, 5] }, full]);
  assertEquals(await Deno.readTextFile(`${to}/chat_template.jinja`), "{{ messages }}");
  assertEquals([...Deno.readDirSync(to)].some(({ name }) => name === "config.json"), false);
});

Deno.test("beside a tokenizer.model comes the tokenizer.json that says the same", async () => {
  const golden = new URL("../../goldens/tokenizers/sentencepiece_bpe", import.meta.url).pathname;
  await using folder = await temporaryFolder();
  assertEquals(await copyTokenizer(golden, folder.path), { bos_token_id: 1, eos_token_id: 2 });
  const [own, copy] = [await Tokenizer.open(golden), await Tokenizer.open(`${folder.path}/tokenizer.json`)];
  assertEquals(Deno.readFileSync(`${folder.path}/tokenizer.model`), Deno.readFileSync(`${golden}/tokenizer.model`));
  assertEquals([...copy.encode("Fellow citizens, \u{1f600}")], [...own.encode("Fellow citizens, \u{1f600}")]);
});

Deno.test("a folder without a tokenizer is refused", async () => {
  await using folder = await temporaryFolder();
  await assertRejects(() => copyTokenizer(folder.path, folder.path), CheckpointError, "has no tokenizer.json");
});
