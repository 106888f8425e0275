import { assert } from "@std/assert";

Deno.test("a signal that comes again at once, as from a terminal and deno task, is one; later it is another", async () => {
  const module = new URL("../../launch/stop.ts", import.meta.url);
  const source = `import { onStop } from "${module}"; onStop((signal) => console.log(signal)); console.log("ready");
    setInterval(() => {}, 1000);`;
  const process = new Deno.Command(Deno.execPath(), { args: ["eval", source], stdout: "piped" }).spawn();
  const said: string[] = [], wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  const reading = (async () => {
    for await (const text of process.stdout.pipeThrough(new TextDecoderStream())) said.push(text);
  })();
  const until = async (text: string) => {
    for (let now; (now = said.join("")) !== text; await wait(5)) assert(text.startsWith(now), now);
  };
  try {
    await until("ready\n");
    process.kill("SIGINT");
    await until("ready\nSIGINT\n");
    process.kill("SIGINT");
    await wait(400);
    process.kill("SIGTERM");
    await until("ready\nSIGINT\nSIGTERM\n");
    process.kill("SIGINT");
    await until("ready\nSIGINT\nSIGTERM\nSIGINT\n");
  } finally {
    process.kill("SIGKILL");
    await Promise.all([reading, process.status]);
  }
});
