/** The page: what it shows of runs, drawn anew whenever something comes. @module */
import { Chart, drawLanes, extent } from "./chart.js";
import { bytes, count, differences, duration, forecast, number, Run, secondsLeft, statusOf } from "./runs.js";

const facts = JSON.parse(document.getElementById("facts").textContent);

/** What people choose; kept in the address, so that a reload keeps it. */
const choice = { axis: "step", log: false, smooth: 0.9, side: false, hidden: [], shown: [], lane: "loading_ms" };
try {
  Object.assign(choice, JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}"));
} catch { // another page's
}

const runs = new Map();
const seen = { server: undefined, isHeard: false, isDirty: true, at: null, layout: "" };
let charts = [];

/** Runs that are shown at once, unless more are chosen. */
const SHOWN = 3;
const PALETTE = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5"];

/** An element with attributes and children. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const page = document.getElementById("page");
const parts = Object.fromEntries(
  ["head", "tiles", "list", "tools", "body", "more"].map((name) => [name, el("section", { id: name })]),
);
page.append(...Object.values(parts));

function keep() {
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(choice))}`);
  seen.isDirty = true;
}

/** Runs, the newest first; that of the server's own process before all others. */
function ordered() {
  const begun = ({ header }) => Date.parse(header?.started ?? 0) || 0;
  return [...runs.values()].sort((a, b) => Number(b.own) - Number(a.own) || begun(b) - begun(a));
}

function shown() {
  const all = ordered();
  return all.filter(({ id }, i) => choice.shown.includes(id) || (i < SHOWN && !choice.hidden.includes(id)));
}

function colorOf(run) {
  return cssValue(PALETTE[ordered().indexOf(run) % PALETTE.length]);
}

const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function theme() {
  return Object.fromEntries(["grid", "muted", "lane", "guide"].map((name) => [name, cssValue(`--${name}`)]));
}

const events = new EventSource("events");
events.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  seen.isHeard = true;
  seen.isDirty ||= !message.quiet;
  if (message.server !== undefined) runs.clear(); // all of it comes anew
  else if (message.quiet) {
    for (const [id, quiet] of Object.entries(message.quiet)) Object.assign(runs.get(id) ?? {}, { quiet });
  } else if (message.name !== undefined) runs.set(message.run, new Run(message.run, message.name, message.own, facts));
  else {
    const run = runs.get(message.run);
    run?.add(message);
    if (run) run.heard = Date.now();
  }
};
events.onerror = () => {
  seen.isHeard = false;
  seen.isDirty = true;
};

/** The head: the first run that is shown, what it does, how far it is. */
function head(run) {
  const status = statusOf(run, seen.isHeard), done = run.steps > 0 ? Math.min(1, run.step / run.steps) : 0;
  document.title = `${status.state === "running" ? `${Math.floor(100 * done)} % ` : ""}${run.title} - libtitan`;
  const facts = [run.header?.model, run.header?.ranks, run.header?.device].filter(Boolean);
  parts.head.replaceChildren(
    el("h1", {}, run.title),
    el("p", { class: `status ${status.state}`, role: "status" }, status.text),
    el(
      "div",
      { class: "progress", role: "progressbar", "aria-valuenow": Math.round(100 * done) },
      el("div", { class: status.state, style: `width:${100 * done}%` }),
    ),
    ...facts.map((text) => el("p", { class: "fact" }, text)),
  );
}

/** What there is to say in numbers. */
function tiles(run) {
  const { rows, validations } = run, last = (column) => column.at(-1) ?? null, ahead = forecast(run);
  const held = last(validations.loss), bits = last(validations.bitsPerByte), left = secondsLeft(run);
  const isRunning = left > 0 && statusOf(run, seen.isHeard).state === "running";
  const cells = [
    ["loss", number(run.smooth("loss", choice.smooth).at(-1)), "smoothed"],
    ["held-out loss", number(held), bits === null ? "" : `${number(bits)} bits per byte`],
    ["loss at the end", ahead ? number(ahead.loss) : "-", "forecast"],
    [
      "tokens/s",
      number(last(rows.tps) === null ? null : last(rows.tps) * (run.header?.size ?? 1)),
      `${number(1000 * last(rows.stepSeconds))} ms a step`,
    ],
    [
      "tokens",
      number(last(rows.tokens)),
      last(rows.epoch) > 0 ? `${last(rows.epoch).toFixed(2)} times the text` : "seen",
    ],
    ["gradient norm", number(last(rows.gradNorm)), "before clipping"],
    [
      "waits for data",
      last(rows.loadingPercent) === null ? "-" : `${number(last(rows.loadingPercent), 2)} %`,
      "of a step",
    ],
    [
      "memory",
      last(rows.memory) === null ? "-" : `${number(last(rows.memory), 3)} GiB`,
      last(rows.memoryPercent) === null ? "" : `${number(last(rows.memoryPercent), 2)} % of what there is`,
    ],
    ["to go", isRunning ? duration(left) : "-", isRunning ? ending(left) : ""],
  ];
  parts.tiles.replaceChildren(
    ...cells.map(([name, value, note]) =>
      el("div", { class: "tile" }, el("span", {}, name), el("b", {}, value), el("small", {}, note))
    ),
  );
}

/** When that will be. */
function ending(left) {
  const at = new Date(Date.now() + 1000 * left), today = at.toDateString() === new Date().toDateString();
  return `done ${today ? "" : `${at.toLocaleDateString()} `}at ${
    at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
  }`;
}

/** The runs there are, to choose from. */
function list() {
  const chosen = shown();
  parts.list.replaceChildren(
    ...ordered().map((run) => {
      const isShown = chosen.includes(run), status = statusOf(run, seen.isHeard);
      const toggle = () => {
        const without = (ids) => ids.filter((id) => id !== run.id);
        [choice.hidden, choice.shown] = [without(choice.hidden), without(choice.shown)];
        (isShown ? choice.hidden : choice.shown).push(run.id);
        keep();
      };
      const box = el("input", { type: "checkbox", onchange: toggle });
      box.checked = isShown;
      const key = el("i", { class: "key", style: `background:${colorOf(run)}` });
      const when = run.header?.started
        ? new Date(run.header.started).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })
        : "";
      return el(
        "label",
        { class: "run" },
        box,
        key,
        el("b", {}, run.name),
        el("span", { class: `dot ${status.state}` }),
        el("span", { class: "what" }, `${status.text}; loss ${number(run.rows.loss.at(-1))}; ${when}`),
      );
    }),
  );
  parts.list.hidden = runs.size < 2;
}

function tools() {
  const axis = el(
    "select",
    { "aria-label": "axis", onchange: () => (choice.axis = axis.value, keep()) },
    ...[["step", "over steps"], ["tokens", "over tokens"], ["seconds", "over time"]].map(([value, text]) =>
      el("option", { value, selected: choice.axis === value }, text)
    ),
  );
  const log = el("input", { type: "checkbox", onchange: () => (choice.log = log.checked, keep()) });
  log.checked = choice.log;
  const slide = el("input", {
    type: "range",
    min: 0,
    max: 0.99,
    step: 0.01,
    oninput: () => (choice.smooth = Number(slide.value), keep()),
  });
  slide.value = choice.smooth;
  const side = el("input", { type: "checkbox", onchange: () => (choice.side = side.checked, keep()) });
  side.checked = choice.side;
  parts.tools.replaceChildren(
    axis,
    el("label", {}, log, "loss as logarithm"),
    el("label", {}, "smooth", slide),
    ...(runs.size > 1 ? [el("label", {}, side, "side by side")] : []),
  );
}

/** The charts of a group of runs. */
const KINDS = [
  { name: "loss", title: "Loss", unit: "nats per token", wide: true },
  { name: "gradNorm", title: "Gradient norm", unit: "before clipping" },
  { name: "lr", title: "Learning rate", unit: "" },
  { name: "tps", title: "Tokens a second", unit: "of a device" },
  { name: "loadingPercent", title: "Wait for data", unit: "% of a step" },
  { name: "stepSeconds", title: "Time of a step", unit: "s" },
  { name: "memory", title: "Memory of the process", unit: "GiB" },
];

/** Lays out what the charts are drawn into, where that has changed. */
function layout(groups) {
  const wanted = JSON.stringify([groups.map((group) => group.map(({ id }) => id)), groups.length]);
  if (wanted === seen.layout) return;
  seen.layout = wanted;
  charts = [];
  parts.body.replaceChildren(...groups.map((group) => {
    const cells = KINDS.map((kind) => {
      const canvas = el("canvas", { role: "img", "aria-label": kind.title }),
        tip = el("div", { class: "tip", hidden: true });
      const chart = new Chart(canvas, tip, { format: number, onHover: (at) => (seen.at = at, seen.isDirty = true) });
      const legend = el("span", { class: "legend" });
      charts.push({ kind, group, chart, legend });
      return el(
        "figure",
        { class: kind.wide ? "wide" : "" },
        el("figcaption", {}, el("b", {}, kind.title), ` ${kind.unit}`, legend),
        el("div", { class: "plot" }, canvas, tip),
      );
    });
    const title = groups.length > 1
      ? [el("h2", {}, el("i", { class: "key", style: `background:${colorOf(group[0])}` }), group[0].name)]
      : [];
    return el("div", { class: "group" }, ...title, ...cells);
  }));
  parts.body.className = groups.length > 1 ? "side" : "";
}

/** Where a step lies on the axis that is chosen. */
function placeOf(run, step) {
  if (choice.axis === "step") return step;
  const { step: steps, [choice.axis]: places } = run.rows,
    i = Math.min(steps.findIndex((s) => s >= step) >>> 0, steps.length - 1);
  return places[i] ?? 0;
}

/** Numbers that jump from step to step: drawn as they are, faintly, and smoothed. */
const NOISY = ["gradNorm", "tps", "loadingPercent", "stepSeconds"];

function seriesOf(kind, group, colors) {
  const isAlone = group.length === 1;
  if (kind.name === "loss") return lossSeries(group, colors);
  return group.flatMap((run) => {
    const one = { x: run.rows[choice.axis], color: colorOf(run), label: isAlone ? kind.title.toLowerCase() : run.name };
    const y = run.rows[kind.name];
    if (!NOISY.includes(kind.name) || choice.smooth === 0) return [{ ...one, y }];
    return [{ ...one, y, label: undefined, faint: true }, { ...one, y: run.smooth(kind.name, choice.smooth) }];
  });
}

/** Losses as they are, smoothed, on held-out text, and where they go; of the first run also the entropy that it falls below. */
function lossSeries(group, { guide }) {
  const isAlone = group.length === 1, [first, other] = [cssValue("--c1"), cssValue("--c0")];
  return group.flatMap((run, i) => {
    const x = run.rows[choice.axis], { loss } = run.rows, color = colorOf(run), name = isAlone ? "" : `${run.name} `;
    const { step, loss: held, unigramEntropy } = run.validations, places = step.map((one) => placeOf(run, one));
    const series = [
      { x, y: loss, color, faint: choice.smooth > 0 },
      {
        x,
        y: run.smooth("loss", choice.smooth),
        color,
        label: `${name}loss`,
        legend: isAlone ? "loss" : run.name,
        width: 2,
      },
    ];
    if (step.length > 0) {
      const look = isAlone ? { color: color === first ? other : first, legend: "held out" } : { color, dash: [2, 3] };
      series.push({ x: places, y: held, dots: true, label: `${name}held out`, ...look });
    }
    if (step.length > 0 && i === 0) {
      const ends = [x[0] ?? 0, Math.max(x.at(-1) ?? 0, places.at(-1))], y = ends.map(() => unigramEntropy.at(-1));
      series.push({
        x: ends,
        y,
        color: guide,
        dash: [6, 4],
        isGuide: true,
        label: "unigram entropy",
        legend: "unigram entropy",
      });
    }
    const ahead = choice.axis === "step" && !run.end ? forecast(run) : undefined;
    if (ahead) {
      series.push({
        ...ahead,
        color,
        dash: [1, 4],
        label: `${name}forecast`,
        legend: isAlone ? "forecast" : undefined,
      });
    }
    return series;
  });
}

const FORMATS = { step: count, tokens: number, seconds: duration };

function draw() {
  const chosen = shown(),
    groups = choice.side && chosen.length > 1 ? chosen.map((run) => [run]) : [chosen],
    colors = theme();
  layout(groups);
  const all = charts.map((one) => ({ ...one, series: seriesOf(one.kind, one.group, colors) }));
  for (const { kind } of charts.slice(0, KINDS.length)) {
    const same = all.filter((one) => one.kind === kind), isLog = kind.name === "loss" && choice.log;
    const drawn = same.flatMap(({ series }) => series), span = extent(drawn, isLog);
    const ends = drawn.flatMap(({ x }) => x.length > 0 ? [x[0], x.at(-1)] : []);
    const range = ends.length > 0 ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
    for (const { chart, series, legend } of same) {
      chart.at = seen.at;
      chart.set(series, { range, span, isLog, formatX: FORMATS[choice.axis] });
      chart.draw(colors);
      const named = series.filter(({ legend }) => legend).sort((a, b) =>
        Number(a.isGuide ?? 0) - Number(b.isGuide ?? 0)
      );
      if (legend.childElementCount !== named.length) {
        legend.replaceChildren(
          ...named.map(({ color, legend }) =>
            el("span", {}, el("i", { class: "key", style: `background:${color}` }), legend)
          ),
        );
      }
    }
  }
}

/** Colors of memory by what it is for. */
const MEMORY = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--m6", "--m7", "--m8", "--m9", "--m10"];
const MEMORY_NAMES = {
  parameters: "parameters",
  gradientSums: "gradient sums",
  moments: "moments",
  kept: "kept for backward",
  gathered: "gathered parameters",
  transient: "transient",
  scratch: "scratch of kernels",
  caches: "caches",
  buffers: "buffers",
  sums: "sums",
  gaps: "gaps",
};

function memory(run) {
  const use = run.header?.memory;
  if (!use) return [];
  const rows = Object.entries(MEMORY_NAMES).map(([key, name], i) => [name, use[key] ?? 0, `var(${MEMORY[i]})`]).filter((
    [, n],
  ) => n > 0);
  return [
    el(
      "figure",
      { class: "wide" },
      el("figcaption", {}, el("b", {}, "Planned memory"), ` of a rank: ${bytes(use.arena)}`),
      el(
        "div",
        { class: "stack" },
        ...rows.map(([name, n, color]) =>
          el("div", { title: `${name}: ${bytes(n)}`, style: `flex-grow:${n};background:${color}` })
        ),
      ),
      el(
        "p",
        { class: "legend" },
        ...rows.map(([name, n, color]) =>
          el("span", {}, el("i", { class: "key", style: `background:${color}` }), `${name} ${bytes(n)}`)
        ),
      ),
    ),
  ];
}

/** What ranks measure. */
const LANES = {
  loading_ms: "wait for data, ms",
  native_ms: "time in the step's program, ms",
  memory_gib: "memory, GiB",
  loss: "own loss, above the least",
};

function lanes(run) {
  if (run.ranks.length === 0) return [];
  const choose = el(
    "select",
    { "aria-label": "what lanes show", onchange: () => (choice.lane = choose.value, keep()) },
    ...Object.entries(LANES).map(([value, text]) => el("option", { value, selected: choice.lane === value }, text)),
  );
  const raw = run.ranks.map(({ ranks }) => ranks[choice.lane]);
  const values = choice.lane === "loss" ? raw.map((all) => all.map((v) => v - Math.min(...all))) : raw;
  const most = values.reduce((m, all) => Math.max(m, ...all), 0),
    canvas = el("canvas", { role: "img", "aria-label": "ranks" });
  queueMicrotask(() =>
    drawLanes(
      canvas,
      { steps: run.ranks.map(({ step }) => step), values, most, range: (s) => `step ${count(s)}` },
      theme(),
    )
  );
  return [
    el(
      "figure",
      { class: "wide" },
      el("figcaption", {}, el("b", {}, "Ranks"), " ", choose, ` darkest: ${number(most)}`),
      el("div", { class: "plot" }, canvas),
    ),
  ];
}

function samples(run) {
  if (run.samples.length === 0) return [];
  const items = run.samples.slice(-6).reverse().map(([step, text]) =>
    el("div", { class: "sample" }, el("small", {}, `step ${count(step)}`), el("p", {}, text))
  );
  return [
    el(
      "figure",
      { class: "wide" },
      el("figcaption", {}, el("b", {}, "Text"), " that the model writes, the newest first"),
      ...items,
    ),
  ];
}

function compared(chosen) {
  const rows = chosen.length > 1 ? differences(chosen) : [];
  if (rows.length === 0) return [];
  const head = el(
    "tr",
    {},
    el("th", {}, "key"),
    ...chosen.map((run) => el("th", {}, el("i", { class: "key", style: `background:${colorOf(run)}` }), run.name)),
  );
  return [
    el(
      "figure",
      { class: "wide" },
      el("figcaption", {}, el("b", {}, "In what the runs differ")),
      el(
        "div",
        { class: "scroll" },
        el(
          "table",
          {},
          head,
          ...rows.map((cells) => el("tr", {}, ...cells.map((text) => el("td", {}, text)))),
        ),
      ),
    ),
  ];
}

function more(chosen) {
  const first = chosen[0];
  parts.more.replaceChildren(...lanes(first), ...memory(first), ...samples(first), ...compared(chosen));
}

let slow = 0;
/** Draws what has changed; what is below the charts, less often. */
function frame(now) {
  requestAnimationFrame(frame);
  const isLate = now - slow > 1000;
  if (!seen.isDirty && !isLate) return;
  const [first] = shown();
  if (!first) {
    parts.head.replaceChildren(
      el("h1", {}, "libtitan"),
      el(
        "p",
        { class: "status stopped" },
        seen.isHeard
          ? runs.size > 0 ? "no run is chosen" : "no run here has written numbers yet"
          : "waits for the server",
      ),
    );
    if (runs.size > 0) list();
    return;
  }
  if (seen.isDirty) draw();
  head(first);
  tiles(first);
  if (isLate) {
    slow = now;
    if (!parts.list.contains(document.activeElement)) list();
    if (parts.tools.childElementCount === 0 || (runs.size > 1) !== (parts.tools.childElementCount > 3)) tools();
    if (!parts.more.contains(document.activeElement)) more(first ? shown() : []);
  }
  seen.isDirty = false;
  document.documentElement.dataset.step = first.step; // for whoever measures how late the page is
}
addEventListener("resize", () => (seen.isDirty = true, slow = 0));
matchMedia("(prefers-color-scheme: dark)").addEventListener(
  "change",
  () => (seen.isDirty = true, seen.layout = "", slow = 0),
);
requestAnimationFrame(frame);
