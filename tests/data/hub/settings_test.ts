import { assertEquals, assertThrows } from "@std/assert";
import { DataError } from "../../../data/error.ts";
import { HUB_VARIABLES, hubSettings } from "../../../data/hub/settings.ts";
import { VARIABLES } from "../../../launch/world.ts";
import { temporaryFolder } from "../fixture.ts";

const of = (variables: Record<string, string>) => hubSettings((name) => variables[name]);

Deno.test("without variables the hub is huggingface.co and its cache lies in the home folder", () => {
  assertEquals(of({ HOME: "/nowhere" }), {
    endpoint: "https://huggingface.co",
    token: undefined,
    cache: "/nowhere/.cache/huggingface/hub",
    own: "/nowhere/.cache/huggingface/libtitan",
    offline: false,
  });
});

Deno.test("each variable goes before what it follows from otherwise", () => {
  assertEquals(of({ HOME: "/nowhere", XDG_CACHE_HOME: "/x" }).cache, "/x/huggingface/hub");
  assertEquals(of({ XDG_CACHE_HOME: "/x", HF_HOME: "/h" }).cache, "/h/hub");
  assertEquals(of({ HF_HOME: "/h", HF_HUB_CACHE: "/c" }).cache, "/c");
  assertEquals(of({ HF_HOME: "/h", HF_ENDPOINT: "http://mirror/" }).endpoint, "http://mirror");
  assertEquals(of({ HF_HOME: "/h", HF_HUB_OFFLINE: "1" }).offline, true);
  assertEquals(of({ HF_HOME: "/h", HF_HUB_OFFLINE: "0" }).offline, false);
});

Deno.test("the token is that of HF_TOKEN, else the one that logging in has kept", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/token`, "kept\n");
  await Deno.writeTextFile(`${folder.path}/other`, "other");
  assertEquals(of({ HF_HOME: folder.path }).token, "kept");
  assertEquals(of({ HF_HOME: folder.path, HF_TOKEN_PATH: `${folder.path}/other` }).token, "other");
  assertEquals(of({ HF_HOME: folder.path, HF_TOKEN: " own " }).token, "own");
});

Deno.test("without a home there is no folder to guess", () => {
  assertThrows(() => of({ HF_ENDPOINT: "http://mirror" }), DataError, "neither HF_HOME nor HOME is set");
});

Deno.test("ranks that are started may read the variables too, and so may the tasks that use the hub", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("../../../deno.json", import.meta.url)));
  for (const variable of HUB_VARIABLES) {
    assertEquals(VARIABLES.includes(variable), true, variable);
    for (const task of ["train", "download"]) {
      assertEquals(/--allow-env=(\S+)/.exec(tasks[task].command)![1].split(",").includes(variable), true, variable);
    }
  }
});
