/** A small project that tests have `setup.ts` build. @module */
import { fromFileUrl } from "@std/path";

const SCRIPT = fromFileUrl(new URL("../../tools/setup.ts", import.meta.url));
const CONFIG = fromFileUrl(new URL("../../deno.json", import.meta.url));

/** A project of one native source, and `setup.ts` run in it with these programs alone on the path. */
export class Project implements Disposable {
  readonly root: string = Deno.makeTempDirSync();
  path: string = Deno.env.get("PATH") ?? "";
  env: Record<string, string> = {};

  constructor() {
    this.write(
      "csrc/CMakeLists.txt",
      "cmake_minimum_required(VERSION 3.16)\nproject(t CXX)\nadd_library(titan SHARED a.cpp)",
    );
    this.write("csrc/a.cpp", "int f() { return 1; }");
  }

  write(path: string, text: string, mode = 0o644): void {
    const file = `${this.root}/${path}`;
    Deno.mkdirSync(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(file, text, { mode });
  }

  async setup(...args: string[]): Promise<{ code: number; text: string }> {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--config", CONFIG, "--allow-all", SCRIPT, ...args],
      cwd: this.root,
      env: { PATH: this.path, CXX: "c++", NO_COLOR: "1", ...this.env },
      stdin: "null",
    });
    const { code, stdout, stderr } = await command.output();
    return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  }

  /** A folder of a path with a program or two, and without all others. */
  onlyWith(...names: string[]): string {
    for (const name of names) this.write(`only/${name}`, "#!/bin/sh\n", 0o755);
    Deno.mkdirSync(`${this.root}/only`, { recursive: true });
    return `${this.root}/only`;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }
}
