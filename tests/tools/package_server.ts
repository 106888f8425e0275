/** Serves the packed package as a registry serves it: what `deno publish` would take, with imports by name written out. @module */
import { fromFileUrl } from "@std/path";

const root = new URL("../../", import.meta.url);

/** A server of the package on this machine, until it is disposed. */
export interface PackageServer extends AsyncDisposable {
  /** Of its folder, with a stroke at the end. No other server has the same, as Deno keeps modules by their address. */
  readonly url: URL;
}

/** Starts to serve the package.
 * @param lacks a path that is answered with 404. */
export async function servePackage(lacks?: string): Promise<PackageServer> {
  const [files, config] = await Promise.all([packedFiles(), Deno.readTextFile(new URL("deno.json", root))]);
  const { imports } = JSON.parse(config) as { imports: Record<string, string> }, place = `/${crypto.randomUUID()}/`;
  const answer = async (request: Request): Promise<Response> => {
    const path = decodeURIComponent(new URL(request.url).pathname.slice(place.length));
    // `@std` is another package, of which this checkout has what it uses.
    if (path === lacks || !files.has(path) && !/^std\/\w+\/\w+\.ts$/.test(path)) {
      return new Response(`no ${path}`, { status: 404 });
    }
    const bytes = await Deno.readFile(new URL(path, root));
    if (!path.endsWith(".ts")) return new Response(bytes);
    const text = writeOut(new TextDecoder().decode(bytes), imports, place);
    return new Response(text, { headers: { "content-type": "application/typescript" } });
  };
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, answer), { port } = server.addr;
  return {
    url: new URL(`http://127.0.0.1:${port}${place}`),
    async [Symbol.asyncDispose]() {
      await server.shutdown();
      const kept = `${await denoDir()}/remote/http/127.0.0.1_PORT${port}`;
      await Deno.remove(kept, { recursive: true }).catch(() => {});
    },
  };
}

/** Where Deno keeps modules and packages. */
export async function denoDir(): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json", "--no-config"] }).output();
  return JSON.parse(new TextDecoder().decode(stdout)).denoDir;
}

/** The files that `deno publish` would take. */
async function packedFiles(): Promise<ReadonlySet<string>> {
  const args = ["publish", "--dry-run", "--allow-dirty", "--no-check", "--allow-slow-types"];
  const command = new Deno.Command(Deno.execPath(), { args, cwd: fromFileUrl(root), env: { NO_COLOR: "1" } });
  const { code, stderr } = await command.output(), text = new TextDecoder().decode(stderr);
  const urls = [...text.matchAll(/^ +(file:\S+) \(/gm)].map(([, url]) => url.slice(root.href.length));
  const files = new Set(urls.map(decodeURIComponent));
  if (code !== 0 || !files.has("mod.ts")) throw new Error(`deno publish --dry-run lists no package:\n${text}`);
  return files;
}

/** Imports by a name of deno.json become what that name stands for, as publishing does it. */
function writeOut(source: string, imports: Readonly<Record<string, string>>, place: string): string {
  return source.replace(/(\bfrom |\bimport |\bimport\()"([^".:][^":]*)"/g, (whole, before, name) => {
    const known = Object.keys(imports).find((key) => name === key || name.startsWith(`${key}/`));
    if (!known) return whole;
    const own = /^@std\/(\w+)$/.exec(known);
    return `${before}"${own ? `${place}std/${own[1]}/mod.ts` : imports[known] + name.slice(known.length)}"`;
  });
}
