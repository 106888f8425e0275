/** Makes `data/sample_chat/`: short conversations about capitals, and a tokenizer for them with the template ChatML.
 *
 *     npx -y deno run --allow-read --allow-write=data/sample_chat tools/make_chat_sample.ts
 * @module */
import { newTokenizer } from "../data/new_tokenizer.ts";
import { WordCounts } from "../data/train_bpe.ts";

const FOLDER = new URL("../data/sample_chat/", import.meta.url);
const VOCAB_SIZE = 512;

const CAPITALS: Readonly<Record<string, string>> = {
  ...{
    Austria: "Vienna",
    Belgium: "Brussels",
    Brazil: "Brasília",
    Canada: "Ottawa",
    Chile: "Santiago",
    China: "Beijing",
  },
  ...{ Cuba: "Havana", Denmark: "Copenhagen", Egypt: "Cairo", Finland: "Helsinki", France: "Paris", Germany: "Berlin" },
  ...{
    Ghana: "Accra",
    Greece: "Athens",
    Hungary: "Budapest",
    Iceland: "Reykjavík",
    India: "New Delhi",
    Ireland: "Dublin",
  },
  ...{ Italy: "Rome", Japan: "Tokyo", Kenya: "Nairobi", Mexico: "Mexico City", Morocco: "Rabat", Nepal: "Kathmandu" },
  ...{ Norway: "Oslo", Peru: "Lima", Poland: "Warsaw", Portugal: "Lisbon", Spain: "Madrid", Sweden: "Stockholm" },
};

/** Ways to ask, and to answer. */
const TALKS: readonly (readonly [string, string])[] = [
  ["What is the capital of COUNTRY?", "The capital of COUNTRY is CAPITAL."],
  ["Which country has CAPITAL as its capital?", "That is COUNTRY."],
];

const countries = Object.keys(CAPITALS);
const say = (text: string, country: string) =>
  text.replaceAll("COUNTRY", country).replaceAll("CAPITAL", CAPITALS[country]);

/** One turn about each country and way to ask, and two turns about each two neighbours. */
const chats = TALKS.flatMap((talk) => [
  ...countries.map((country) => [[talk, country]] as const),
  ...countries.map((country, n) => [[talk, country], [TALKS[0], countries[(n + 7) % countries.length]]] as const),
]);
const lines = chats.map((turns) => ({
  messages: turns.flatMap(([[question, answer], country]) => [
    { role: "user", content: say(question, country) },
    { role: "assistant", content: say(answer, country) },
  ]),
}));

const words = new WordCounts();
for (const { messages } of lines) for (const { content } of messages) words.add(content);
const { json, config } = newTokenizer(words, { vocabSize: VOCAB_SIZE, chat: true });
const write = (name: string, text: string) => Deno.writeTextFileSync(new URL(name, FOLDER), text);
write("chats.jsonl", lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
write("tokenizer.json", `${JSON.stringify(json)}\n`);
write("tokenizer_config.json", `${JSON.stringify(config, null, 2)}\n`);
