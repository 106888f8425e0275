/** What a page knows of runs, and what follows from it: how long they go on, where their loss goes, in what they differ. No DOM.
 * @module */

/** A run as far as it is known. */
export class Run {
  /** First line of its file. */
  header = null;
  end = null;
  /** The step behind which it began. */
  from = 0;
  /** Seconds since its file was written to. */
  quiet = 0;
  /** When something came last. */
  heard = undefined;
  samples = [];
  ranks = [];
  #smoothed = new Map();

  /** @param own is it that of the server's process? @param facts names of columns. */
  constructor(id, name, own, facts) {
    this.id = id;
    this.name = name;
    this.own = own;
    this.rows = columns(facts.columns);
    this.rows.seconds = []; // of training since the run began
    this.validations = columns(facts.validationColumns);
  }

  /** Takes what is new. */
  add(update) {
    if (update.begin) this.#begin(update.begin);
    for (const row of update.rows ?? []) {
      const { step, stepSeconds, seconds } = this.rows, last = step.length - 1;
      append(this.rows, row);
      const steps = step.at(-1) - (last < 0 ? this.from : step[last]);
      seconds.push((seconds.at(-1) ?? 0) + steps * (stepSeconds.at(-1) ?? 0));
    }
    for (const row of update.validations ?? []) append(this.validations, row);
    this.samples.push(...update.samples ?? []);
    this.ranks.push(...update.ranks ?? []);
    if (update.end) this.end = update.end;
  }

  #begin(header) {
    this.header = header;
    this.end = null;
    this.#smoothed.clear();
    const from = this.from = header.from ?? 0;
    cut(this.rows, from);
    cut(this.validations, from);
    this.samples = this.samples.filter(([step]) => step <= from);
    this.ranks = this.ranks.filter(({ step }) => step <= from);
  }

  /** A column, smoothed as `runningMean` does it; what was smoothed before is not again. @param weight of what was before. */
  smooth(column, weight) {
    const values = this.rows[column];
    let known = this.#smoothed.get(column);
    if (known?.weight !== weight) this.#smoothed.set(column, known = { weight, y: [], mean: runningMean(weight) });
    for (let i = known.y.length; i < values.length; i++) known.y.push(known.mean(values[i]));
    return known.y;
  }

  get step() {
    return this.rows.step.at(-1) ?? this.from ?? 0;
  }

  get steps() {
    return this.header?.config?.training?.steps ?? this.step;
  }

  get title() {
    return this.header?.config?.job?.description ?? this.name;
  }
}

function columns(names) {
  return Object.fromEntries(Object.keys(names).map((name) => [name, []]));
}

function append(table, row) {
  Object.values(table).slice(0, row.length).forEach((column, i) => column.push(row[i]));
}

/** Drops rows behind a step: a run that goes on from there makes them anew. */
function cut(table, step) {
  const keep = table.step.findLastIndex((s) => s <= step) + 1;
  for (const column of Object.values(table)) column.length = keep;
}

/** What a run is doing: `state` for the page's colors, `text` for people.
 * @param isHeard does the server answer? */
export function statusOf(run, isHeard, now = Date.now()) {
  const { end, step, steps } = run;
  if (end?.error !== undefined) return { state: "failed", text: `failed after step ${count(end.step)}: ${end.error}` };
  if (end?.stopped) return { state: "stopped", text: `stopped by ${end.stopped} after step ${count(end.step)}` };
  if (end) return { state: "finished", text: `finished after ${count(end.step)} steps` };
  if (!run.header) return { state: "stopped", text: "has not begun" };
  const since = run.heard === undefined ? "" : ` since ${new Date(run.heard).toLocaleTimeString()}`;
  if (!isHeard && run.own) return { state: "failed", text: `its process has gone${since}, after step ${count(step)}` };
  if (!isHeard) {
    return { state: "stopped", text: `the page's server has gone${since}; step ${count(step)} of ${count(steps)}` };
  }
  const usual = 20 * recent(run) * reportSteps(run), patience = Math.max(60, usual);
  if (!run.own && run.quiet > patience) {
    return {
      state: "failed",
      text: `no word for ${duration(run.quiet)}, after step ${count(step)} of ${count(steps)}`,
    };
  }
  const left = secondsLeft(run, now);
  return { state: "running", text: `step ${count(step)} of ${count(steps)}${left ? `, ${duration(left)} to go` : ""}` };
}

/** Seconds of a step, as the last reports have it. */
function recent({ rows: { stepSeconds } }) {
  const last = stepSeconds.slice(-20).toSorted((a, b) => a - b);
  return last[last.length >> 1] ?? 0;
}

/** Steps from one report to the next. */
function reportSteps({ rows: { step } }) {
  return step.length < 2 ? 1 : step.at(-1) - step.at(-2);
}

/** Seconds until the run is done. What it spends beside its steps, on validation and saving, goes on at the rate seen so far. */
export function secondsLeft(run, now = Date.now()) {
  const { rows: { seconds, step }, header, steps, from } = run;
  const steady = recent(run) * (steps - run.step);
  if (!header?.started || step.length < 2) return steady;
  const before = seconds[step.findLastIndex((s) => s <= from)] ?? 0, trained = seconds.at(-1) - before;
  const passed = (now - Date.parse(header.started)) / 1000;
  const share = trained > 0 && passed > trained ? Math.min(3, passed / trained) : 1;
  return steady * share;
}

/** Where the loss goes: E + A / step^a through what is known, fitted to logarithms of steps; undefined where too little is known, or the
 * loss does not fall. The curve goes as far again as the run has come, `loss` is that of its last step. */
export function forecast(run) {
  const { length } = run.rows.step;
  if (run.ahead?.length !== length) run.ahead = { length, curve: fitted(run) };
  return run.ahead.curve;
}

function fitted(run) {
  const { step, loss } = run.rows, { steps } = run, last = run.step;
  const warm = Math.max(run.header?.config?.lr_scheduler?.warmup_steps ?? 0, last / 10);
  if (last >= steps || step.length < 30 || last < 2 * warm) return undefined;
  const points = thinned(step, loss, warm);
  let best;
  for (let a = 0.05; a <= 1.5; a += 0.05) {
    const [E, A] = line(points.map(([s, l]) => [s ** -a, l]));
    const error = points.reduce((sum, [s, l]) => sum + (E + A * s ** -a - l) ** 2, 0);
    if (A > 0 && E >= 0 && (!best || error < best.error)) best = { a, E, A, error };
  }
  if (!best) return undefined;
  const at = (s) => best.E + best.A * s ** -best.a;
  const end = Math.min(steps, 2 * last), xs = Array.from({ length: 50 }, (_, i) => last + (end - last) * i / 49);
  return { x: xs, y: xs.map(at), loss: at(steps) };
}

/** Means over stretches of steps that are equally long as logarithms. */
function thinned(step, loss, from) {
  const bins = new Map();
  step.forEach((s, i) => {
    if (s <= from || loss[i] === null) return;
    const bin = Math.floor(40 * Math.log2(s)), sum = bins.get(bin) ?? [0, 0, 0];
    bins.set(bin, [sum[0] + s, sum[1] + loss[i], sum[2] + 1]);
  });
  return [...bins.values()].map(([s, l, n]) => [s / n, l / n]);
}

/** Least squares: [y at 0, slope]. */
function line(points) {
  const n = points.length, mean = (i) => points.reduce((sum, p) => sum + p[i], 0) / n, [x, y] = [mean(0), mean(1)];
  const spread = points.reduce((sum, p) => sum + (p[0] - x) ** 2, 0);
  const slope = spread === 0 ? 0 : points.reduce((sum, p) => sum + (p[0] - x) * (p[1] - y), 0) / spread;
  return [y - slope * x, slope];
}

/** A running mean with exponential weights, without the pull of its beginning. @param weight of what was before, 0 to 1. */
export function runningMean(weight) {
  let sum = 0, norm = 0;
  return (value) => {
    if (value === null) return null;
    [sum, norm] = [weight * sum + (1 - weight) * value, weight * norm + 1 - weight];
    return sum / norm;
  };
}

/** Keys that say where files lie, which is no difference between runs. */
const PLACES = ["job.config_file", "job.dump_folder"];

/** The keys in which runs differ, with the value of each. */
export function differences(runs) {
  const flat = runs.map(({ header }) =>
    new Map(
      Object.entries(header?.config ?? {}).flatMap(([section, keys]) =>
        Object.entries(keys).map(([key, value]) => [`${section}.${key}`, JSON.stringify(value)])
      ),
    )
  );
  const names = [...new Set(flat.flatMap((keys) => [...keys.keys()]))];
  return names.map((name) => [name, ...flat.map((keys) => keys.get(name) ?? "")])
    .filter(([name, ...values]) => !PLACES.includes(name) && new Set(values).size > 1);
}

/** A whole number with its thousands. */
export function count(n) {
  return Math.round(n).toLocaleString("en-US");
}

/** A number with so many digits that count, short. */
export function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(digits - 1))}G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(digits - 1))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(digits - 1))}k`;
  return size < 1e-3 ? Number(value.toPrecision(digits - 1)).toExponential() : `${Number(value.toPrecision(digits))}`;
}

/** A time in its two largest units. */
export function duration(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  const [m, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86400)];
  if (m < 60) return m < 10 ? `${m} min ${s % 60} s` : `${m} min`;
  return d > 0 ? `${d} d ${h % 24} h` : `${h} h ${m % 60} min`;
}

/** Bytes in the unit that suits them. */
export function bytes(n) {
  const unit = n > 0 ? Math.min(4, Math.floor(Math.log2(n) / 10)) : 0;
  return `${(n / 1024 ** unit).toFixed(unit === 0 ? 0 : 1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}
