/** What documents say is true: commands are commands, their flags are flags, links lead somewhere, and the list of errors has each. */
import { assert, assertEquals } from "@std/assert";
import { dirname, fromFileUrl, join } from "@std/path";
import { readTree } from "../../tools/check_tree.ts";
import { loadConfig } from "../../train/config/config.ts";

const root = fromFileUrl(new URL("../..", import.meta.url)).replace(/\/$/, "");
const tree = readTree(root);
const documents = [...tree.keys()].filter((path) =>
  /^(README|CONTRIBUTING|docs\/[\w/]+|examples\/README)\.md$/.test(path)
);

/** A block of commands. */
interface Block {
  readonly path: string;
  readonly isRun: boolean;
  readonly commands: readonly string[];
}

/** The commands of a document: lines of `sh` blocks without their comments, those that go on in the next line joined. */
function blocksOf(path: string): Block[] {
  return [...tree.get(path)!.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, text]) => ({
    path,
    isRun: text.startsWith("# run by CI\n"),
    commands: text.replaceAll("\\\n", " ").split("\n").map((line) => line.replace(/(^|\s)#\s.*$/, "").trim())
      .filter((line) => line !== ""),
  }));
}

const blocks = documents.flatMap(blocksOf);
const tasks = JSON.parse(tree.get("deno.json")!).tasks as Record<string, unknown>;

/** The words of a command as a shell splits them. */
const wordsOf = (command: string): string[] =>
  [...command.matchAll(/(?:"[^"]*"|'[^']*'|[^\s"']+)+/g)].map(([word]) => word.replaceAll(/["']/g, ""));

/** A command of a task: its name and arguments. */
function taskOf(command: string): { name: string; args: string[] } | undefined {
  const words = wordsOf(command), at = words.findIndex((word, i) => word === "deno" && words[i + 1] === "task");
  if (at < 0) return undefined;
  const [name, ...args] = words.slice(at + 2).filter((word) => word !== "--quiet");
  return { name, args };
}

const commands = blocks.flatMap(({ path, commands }) => commands.map((command) => ({ path, command })));

Deno.test("each task that a document names is one of deno.json", () => {
  const known = commands.flatMap(({ path, command }) => {
    const name = taskOf(command)?.name;
    return name === undefined || Object.hasOwn(tasks, name) ? [] : [`${path}: ${command}`];
  });
  assertEquals(known, []);
  assert(commands.length > 60, `${commands.length} commands are few`);
});

Deno.test("each run that a document starts is one that the configuration accepts", async () => {
  for (const { path, command } of commands) {
    const task = taskOf(command);
    if (task?.name !== "train" || task.args.includes("--help")) continue;
    const plans = task.args.some((arg) => /^--(plan-|device-|link|tokens|disk-speed)/.test(arg)) ? [] : ["--dry-run"];
    try {
      await loadConfig([...task.args, ...plans], (name) => tree.get(name) ?? "");
    } catch (error) {
      throw new Error(`${path}: ${command}`, { cause: error });
    }
  }
});

Deno.test("each flag of another task is one that its help has", async () => {
  const flags = new Map<string, Set<string>>();
  for (const { command } of commands) {
    const task = taskOf(command);
    if (!task || /^(train|test.*|setup)$/.test(task.name)) continue;
    const own = task.args.flatMap((arg) => /^--[a-z][\w-]*(?=$|=)/.exec(arg)?.[0] ?? []);
    flags.set(task.name, new Set([...flags.get(task.name) ?? [], ...own]));
  }
  const missing: string[] = [];
  for (const [name, own] of flags) {
    if (own.size === 0) continue;
    const args = ["task", "--quiet", name, "--help"];
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: root }).output();
    const help = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("\n");
    missing.push(...[...own].filter((flag) => !help.includes(flag)).map((flag) => `${name} ${flag}`));
  }
  assertEquals(missing, []);
  assert(flags.get("generate")!.size > 5);
});

Deno.test("links between documents lead to files", () => {
  const broken = documents.flatMap((path) =>
    [...tree.get(path)!.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)].map(([, link]) => join(dirname(path), link))
      .filter((target) => {
        try {
          Deno.statSync(`${root}/${target}`);
          return false;
        } catch {
          return true;
        }
      }).map((target) => `${path}: ${target}`)
  );
  assertEquals(broken, []);
  const index = tree.get("docs/README.md")!;
  const left = documents.filter((path) => path.startsWith("docs/") && path !== "docs/README.md")
    .filter((path) => !index.includes(`](${path.replace("docs/", "")})`));
  assertEquals(left, [], "the index of the book has every chapter");
});

Deno.test("the list of errors has each code that the source has, and no other", () => {
  const listed = [...tree.get("docs/errors.md")!.matchAll(/^\| `(\w+)` /gm)].map(([, code]) => code);
  const used = [...tree].filter(([path]) => /^(train|data|launch|ffi|graph|parallel)\/.*\.ts$/.test(path)).flatMap(
    ([path, text]) => {
      const code = text.replaceAll(/^\s*(\/\/|\/?\*).*$/gm, "");
      const said = [...code.matchAll(/ {3}\(([a-z]\w*)\)["`\n]/g), ...code.matchAll(/\bcode: "(\w+)"/g)];
      const union = /(?:ProblemCode|DataErrorCode) =((?:\s*\| "\w+")+)/.exec(text)?.[1] ?? "";
      return path.includes("/hub/settings") ? [] : [...said, ...union.matchAll(/"(\w+)"/g)].map(([, name]) => name);
    },
  );
  assertEquals([...new Set(used)].toSorted(), listed.toSorted());
});

Deno.test("a block that says so runs, command after command", async () => {
  const run = blocks.filter(({ isRun }) => isRun), outputs = await Deno.makeTempDir();
  assert(run.length > 5);
  for (const { path, commands } of run) {
    for (const command of commands) {
      const own = command.replace("npx -y deno task", `"${Deno.execPath()}" task --quiet`)
        .replaceAll("outputs/", `${outputs}/`);
      const { code, stderr } = await new Deno.Command("sh", { args: ["-c", own], cwd: root, env: { NO_COLOR: "1" } })
        .output();
      assertEquals(code, 0, `${path}: ${command}\n${new TextDecoder().decode(stderr)}`);
    }
  }
  await Deno.remove(outputs, { recursive: true });
});
