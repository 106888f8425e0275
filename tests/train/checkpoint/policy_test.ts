import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { MANIFEST, type Manifest, VERSION } from "../../../train/checkpoint/manifest.ts";
import {
  type CheckpointOptions,
  chooseStart,
  dueSave,
  PARTS,
  policyOf,
  removeOld,
  setAside,
} from "../../../train/checkpoint/policy.ts";
import { temporaryFolder } from "../../data/fixture.ts";

/** Makes folders of steps: complete ones, of parameters alone, and such without a manifest. */
async function folderWith(steps: Readonly<Record<number, Manifest["content"] | "broken">>) {
  const folder = await temporaryFolder();
  for (const [step, content] of Object.entries(steps)) {
    const path = `${folder.path}/step-${step}`;
    await Deno.mkdir(path);
    if (content === "broken") continue;
    const manifest: Manifest = { version: VERSION, step: Number(step), content, files: {}, tensors: {} };
    await Deno.writeTextFile(`${path}/${MANIFEST}`, JSON.stringify(manifest));
  }
  return { path: folder.path, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

const start = (folder: string, options: Partial<CheckpointOptions> = {}) => {
  const choice = chooseStart(policyOf({ folder, ...options }));
  return choice && { ...choice, path: choice.checkpoint.path.slice(folder.length + 1) };
};

Deno.test("a run goes on from the latest complete checkpoint of a whole run, and says what it passes over", async () => {
  await using folder = await folderWith({ 5: "full", 10: "full", 12: "model", 20: "broken" });
  const { path, parts, notices } = start(folder.path)!;
  assertEquals([path, parts], ["step-10", PARTS]);
  assertEquals(notices.length, 2);
  assertStringIncludes(notices[0], "step-12 has parameters alone");
  assertStringIncludes(notices[1], "step-20 is no checkpoint");
});

Deno.test("a run goes on from the step that is asked for, and a step that is not there is an error", async () => {
  await using folder = await folderWith({ 5: "full", 10: "full", 12: "model" });
  assertEquals(start(folder.path, { loadStep: 5 })!.path, "step-5");
  const model = start(folder.path, { loadStep: 12 })!;
  assertEquals([model.path, model.parts], ["step-12", ["model"]]);
  assertThrows(() => start(folder.path, { loadStep: 6 }), CheckpointError, "step-6 is no checkpoint");
});

Deno.test("parts that are excluded begin anew", async () => {
  await using folder = await folderWith({ 5: "full" });
  const excludeFromLoading = ["lr_scheduler", "dataloader", "optimizer"] as const;
  assertEquals(start(folder.path, { excludeFromLoading })!.parts, ["model", "train_state"]);
});

Deno.test("a folder without checkpoints is begun anew, or from another checkpoint, which gives parameters alone unless asked", async () => {
  await using folder = await folderWith({}), other = await folderWith({ 7: "full" });
  assertEquals(start(`${folder.path}/nowhere`), undefined);
  assertEquals(start(folder.path), undefined);
  const initialLoadPath = `${other.path}/step-7`,
    choose = (more: Partial<CheckpointOptions> = {}) =>
      chooseStart(policyOf({ folder: folder.path, initialLoadPath, ...more }))!;
  assertEquals([choose().checkpoint.path, choose().parts], [initialLoadPath, ["model"]]);
  assertEquals(choose({ initialLoadModelOnly: false }).parts, PARTS);
  await using own = await folderWith({ 5: "full" });
  assertEquals(start(own.path, { initialLoadPath })!.path, "step-5");
  assertThrows(() => choose({ initialLoadPath: folder.path }), CheckpointError, "is no checkpoint");
});

Deno.test("a folder with nothing that can be used is an error, not a new beginning", async () => {
  await using broken = await folderWith({ 5: "broken" }), model = await folderWith({ 5: "model" });
  assertThrows(() => start(broken.path), CheckpointError, "its only checkpoint is not complete");
  assertThrows(() => start(model.path), CheckpointError, "set checkpoint.load_step = 5");
});

Deno.test("a run begins from parameters of step 0, but not anew where there are those of a later step", async () => {
  await using seed = await folderWith({ 0: "model" }), ended = await folderWith({ 0: "model", 5: "model" });
  const { path, parts, notices } = start(seed.path)!;
  assertEquals([path, parts, notices], ["step-0", ["model"], []]);
  assertThrows(() => start(ended.path), CheckpointError, "step-5: it has parameters alone");
  await using going = await folderWith({ 0: "model", 3: "full" });
  assertEquals(start(going.path)!.path, "step-3");
});

Deno.test("a run that goes back to a step names the later ones, and what becomes of them", async () => {
  await using folder = await folderWith({ 5: "full", 10: "full", 12: "model", 20: "broken" });
  const says = (steps: readonly number[], what: string) => {
    const paths = steps.map((step) => `${folder.path}/step-${step}`).join(", ");
    return `${paths}, of ${what} than this run begins with: its first save puts `;
  };
  const notices = (options: Partial<CheckpointOptions>) => start(folder.path, options)!.notices;
  assertEquals(notices({ loadStep: 5 }), [`${says([12, 10], "later steps")}them aside, as step-N.aside`]);
  assertEquals(notices({ loadStep: 10 }), [`${says([12], "a later step")}it aside, as step-N.aside`]);
  for (const anew of [{ loadStep: 12 }, { excludeFromLoading: ["train_state"] }] as const) {
    assertEquals(notices(anew)[0], `${says([12, 10, 5], "later steps")}them aside, as step-N.aside`);
  }
  assertEquals(notices({ loadStep: 5, loadOnly: true }), []); // nothing is saved
});

Deno.test("later steps are put aside under names that are free, and are no checkpoints of the run any longer", async () => {
  await using folder = await folderWith({ 5: "full", 10: "full", 12: "model" });
  await Deno.mkdir(`${folder.path}/step-10.aside`);
  setAside(start(folder.path, { loadStep: 5 })!.leaves);
  await removeOld(policyOf({ folder: folder.path, keepLatestK: 1 }));
  const names = ["step-10.aside", "step-10.aside-2", "step-12.aside", "step-5"];
  assertEquals([...Deno.readDirSync(folder.path)].map((e) => e.name).sort(), names);
  assertEquals([start(folder.path)!.path, start(folder.path)!.leaves], ["step-5", []]);
  const anew = start(folder.path, { excludeFromLoading: ["train_state"] })!.leaves;
  for (const _again of [1, 2]) setAside(anew); // the second time there is nothing left
  assertEquals(start(folder.path), undefined);
});

Deno.test("a step is saved when it is due: by interval, first, last, or when the run is stopped", () => {
  const due = (step: number, options: Partial<CheckpointOptions> = {}, place = {}) =>
    dueSave(step, { last: false, stopping: false, ...place }, policyOf({ folder: "", interval: 5, ...options }));
  assertEquals([due(1), due(4), due(5), due(10)], [undefined, undefined, "full", "full"]);
  assertEquals(due(1, { firstStep: true }), "full");
  assertEquals([due(7, {}, { last: true }), due(7, { lastSaveModelOnly: false }, { last: true })], ["model", "full"]);
  assertEquals([due(7, {}, { stopping: true }), due(7, { saveOnStop: false }, { stopping: true })], [
    "full",
    undefined,
  ]);
  assertEquals([due(5, { loadOnly: true }), due(7, { loadOnly: true }, { last: true })], [undefined, undefined]);
});

Deno.test("old checkpoints go, but not the one that the run began from, nor the last that one can go on from", async () => {
  await using folder = await folderWith({ 1: "full", 2: "full", 3: "full", 4: "model", 5: "model" });
  for (const name of ["step-9.tmp", "step-0.gone"]) await Deno.mkdir(`${folder.path}/${name}`);
  const names = () => [...Deno.readDirSync(folder.path)].map((e) => e.name).sort();
  assertEquals(await removeOld(policyOf({ folder: folder.path, keepLatestK: 0 })), []);
  assertEquals(names(), ["step-1", "step-2", "step-3", "step-4", "step-5"]);
  assertEquals(await removeOld(policyOf({ folder: folder.path, keepLatestK: 2 }), `${folder.path}/step-1`), []);
  assertEquals(names(), ["step-1", "step-3", "step-4", "step-5"]);
  assert(start(folder.path)!.path === "step-3");
});

Deno.test("a save may begin while the remains of another of that step are deleted", async () => {
  await using folder = await folderWith({ 1: "full", 2: "full" });
  Deno.mkdirSync(`${folder.path}/step-3.tmp`);
  const { remove } = Deno, held = Promise.withResolvers<void>();
  Deno.remove = async (...path) => {
    await held.promise;
    await remove(...path);
  };
  try {
    const removing = removeOld(policyOf({ folder: folder.path, keepLatestK: 1 }));
    for (const name of ["step-1", "step-3.tmp"]) Deno.mkdirSync(`${folder.path}/${name}`);
    held.resolve();
    assertEquals(await removing, []);
  } finally {
    Deno.remove = remove;
  }
  assertEquals([...Deno.readDirSync(folder.path)].map((e) => e.name).sort(), ["step-1", "step-2", "step-3.tmp"]);
});

Deno.test("what cannot be deleted is told, the rest is deleted, and nothing is thrown", async () => {
  await using folder = await folderWith({ 1: "full", 2: "full", 3: "full" });
  await Deno.mkdir(`${folder.path}/step-1.gone`);
  await Deno.writeTextFile(`${folder.path}/step-1.gone/in the way`, "");
  await Deno.mkdir(`${folder.path}/step-2.gone/.`);
  const policy = policyOf({ folder: folder.path, keepLatestK: 1 }), [failure, ...more] = await removeOld(policy);
  assertEquals(more, []);
  assertStringIncludes(failure, `Cannot delete ${folder.path}/step-1: `);
  assertEquals([...Deno.readDirSync(folder.path)].map((e) => e.name).sort(), ["step-1", "step-3"]);
  assertEquals(await removeOld(policy), []); // what was in the way is gone
  const nowhere = policyOf({ folder: `${folder.path}/nowhere` });
  assertStringIncludes((await removeOld(nowhere))[0], `Cannot delete old checkpoints of ${folder.path}/nowhere: `);
});
