/** Makes the planner: `deno task planner [FILE]` writes one page that needs no server, `build/planner.html` where no file is named. The
 * sources of the page are in docs/planner/; what they import of the compiler goes into the page as it is.
 * @module */
import { fromFileUrl } from "@std/path";
import { MESH_PLAN_STYLE } from "../train/report/mesh_plan_page.ts";

const folder = fromFileUrl(new URL("../docs/planner/", import.meta.url));

/** A module and all that it imports as one script. `imports.json` says what has no place in a browser. */
export async function bundle(name: string): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--minify", "--platform", "browser"]
      .concat("--import-map", `${folder}imports.json`, `${folder}${name}`),
  }).output();
  // A script has no address of its own; what stands beside a module is not there.
  if (code === 0) return new TextDecoder().decode(stdout).replaceAll("import.meta.url", '"file:///"');
  throw new Error(`Cannot bundle ${name}: ${new TextDecoder().decode(stderr)}`);
}

/** The page. */
export async function plannerPage(): Promise<string> {
  const text = (name: string) => Deno.readTextFile(`${folder}${name}`);
  const parts = {
    style: `${MESH_PLAN_STYLE}${await text("style.css")}`,
    worker: inScript(await bundle("worker.ts")),
    page: inScript(await bundle("page.js")),
  };
  return (await text("page.html")).replace(
    /\/\* (style|worker|page) \*\//g,
    (_, part) => parts[part as keyof typeof parts],
  );
}

/** A script as it may stand in HTML. */
const inScript = (script: string) => script.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");

if (import.meta.main) {
  const path = Deno.args[0] ?? fromFileUrl(new URL("../build/planner.html", import.meta.url));
  const page = await plannerPage();
  await Deno.mkdir(path.replace(/[^/]*$/, "") || ".", { recursive: true });
  await Deno.writeTextFile(path, page);
  console.log(`${path}: ${(page.length / 1e6).toFixed(1)} MB, to be opened in a browser`);
}
