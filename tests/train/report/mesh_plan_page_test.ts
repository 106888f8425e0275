import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { checkpointRows } from "../../../train/checkpoint/plan.ts";
import { meshPlanPage } from "../../../train/report/mesh_plan_page.ts";
import { bytesText } from "../../../train/report/plan_report.ts";
import { tinyPlan } from "./mesh_plans.ts";

const plan = tinyPlan({ dp_replicate: 2, dp_shard: 2, tp: 2 }), page = meshPlanPage(plan);
/** What is read: names may break at any dot. */
const read = page.replaceAll("<wbr>", "");

Deno.test("the page has every parameter, every collective and all memory", () => {
  for (const { name } of plan.parameters) assertStringIncludes(read, `<code>${name}</code>`);
  for (const { section, where } of plan.collectives) {
    assertStringIncludes(read, `<code>${`${section} ${where}`.trim()}</code>`);
  }
  assertStringIncludes(read, `Memory of a rank: ${bytesText(plan.memory.arena)}`);
  for (const [what, value] of checkpointRows(plan.checkpoint)) {
    assertStringIncludes(read, `<td>${what}</td><td>${value}`);
  }
});

Deno.test("every rank is drawn, up to a number that says no more", () => {
  const squares = (text: string) => text.match(/<rect [^>]*hsl/g)?.length;
  assertEquals(squares(page), 8);
  const many = meshPlanPage({ ...plan, mesh: { ...plan.mesh, dp_replicate: 1, dp_shard: 1000, tp: 8 }, ranks: 8000 });
  assertEquals(squares(many), 64 * 8);
  assertStringIncludes(many, "Drawn are the first 64 of 1000 along dp_shard.");
});

Deno.test("the page needs nothing else, and its tags are closed", () => {
  assert(!/<script|<link|src=|url\(|href=/.test(page));
  for (const tag of ["table", "tr", "td", "div", "details", "section", "svg", "span", "code"]) {
    const [opened, closed] = [`<${tag}[ >]`, `</${tag}>`].map((form) => page.match(new RegExp(form, "g"))?.length);
    assertEquals(opened, closed, tag);
  }
});

Deno.test("a name is text, whatever is in it", () => {
  const odd = meshPlanPage({ ...plan, model: { ...plan.model, name: 'a<b>&"c"' } });
  assertStringIncludes(odd, "<title>a&lt;b&gt;&amp;&quot;c&quot; on");
});

Deno.test("one rank has a page too", () => {
  const one = meshPlanPage(tinyPlan({}));
  assertStringIncludes(one, "on 1 rank</title>");
  assertStringIncludes(one, "<p>None.</p>");
});
