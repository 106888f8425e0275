/**
 * A pipeline by a schedule of one's own: a line for each rank, with stage, action and microbatch in each cell. Its plan says how long ranks
 * wait; a schedule that could not work is refused before anything starts.
 *
 * npx -y deno run --no-prompt --allow-read --allow-sys --allow-env --allow-write --allow-ffi=build/libtitan.so examples/own_pipeline_schedule.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { main } from "jsr:@libtitan/titan";

const schedules = {
  "all forwards first": "0F0,0F1,0F2,0F3,,0B0,0B1,0B2,0B3\n,1F0,1F1,1F2,1F3,1B0,1B1,1B2,1B3\n",
  "a backward as soon as can be": "0F0,0F1,,0B0,0F2,0B1,0F3,0B2,,0B3\n,1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3,\n",
};
const folder = await Deno.makeTempDir(), log = console.log;
for (const [name, csv] of Object.entries(schedules)) {
  await Deno.writeTextFile(`${folder}/own.csv`, csv);
  console.log = () => {};
  const code = await main([
    ...["--dry-run", "--mesh=pp=2", "--model.n_layers=2", "--training.seq_len=128", "--training.local_batch_size=4"],
    ...[`--parallelism.pipeline_parallel_schedule_csv=${folder}/own.csv`, `--plan-json=${folder}/plan.json`],
    "--validation.no_enable",
  ]);
  console.log = log;
  if (code !== 0) throw new Error(`${name}: ended with ${code}`);
  const { pipeline } = JSON.parse(await Deno.readTextFile(`${folder}/plan.json`));
  const slots = pipeline.places.map((place: { slots: number }) => place.slots).join(" and ");
  console.log(
    `${name}: ranks wait ${(100 * pipeline.timetable.bubble).toFixed(1)} % of the time and keep ${slots} microbatches`,
  );
}
await Deno.remove(folder, { recursive: true });
