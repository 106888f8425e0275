import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { readTree, RULES } from "../tools/check_tree.ts";

const tree = readTree(fromFileUrl(new URL("..", import.meta.url)).replace(/\/$/, ""));

const SENTENCES: Record<keyof typeof RULES, string> = {
  layers: "imports point down only",
  circles: "no imports go in a circle",
  browser: "graph, model and parallel run in a browser",
  models: "train and parallel name no model",
  targets: "ops and passes know no target",
  mirror: "tests mirror the tree",
  size: "files are short",
  names: "no file names a machine's folders or a registry's host",
  identity: "no code of graph, parallel or train reads a scope's text or a state's name",
  facts: "no pass looks for ops by name but those that rewrite patterns of them",
  engines: "what lies above engines uses no device's means",
  threads: "one header alone deals work to OpenMP's threads",
};

for (const [name, rule] of Object.entries(RULES)) {
  Deno.test(SENTENCES[name], () => assertEquals(rule(tree), []));
}
