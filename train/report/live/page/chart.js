/** Line charts on a canvas: several series over one axis, many points, and what they are where the pointer is. @module */

const [LEFT, RIGHT, TOP, BOTTOM] = [52, 10, 8, 22];
const FONT = "11px system-ui, sans-serif";

/** Points between two values of x, no more than two for each pixel: the least and the largest. */
export function decimate(xs, ys, [low, high], width) {
  let begin = lowerBound(xs, low), end = lowerBound(xs, high);
  [begin, end] = [Math.max(0, begin - 1), Math.min(xs.length, end + 2)];
  const points = [];
  if (end - begin <= 2 * width) {
    for (let i = begin; i < end; i++) points.push([xs[i], ys[i]]);
    return points;
  }
  const scale = width / (high - low);
  let pixel = -1, least = -1, most = -1;
  const close = () => {
    if (least < 0) return;
    const [first, second] = least < most ? [least, most] : [most, least];
    points.push([xs[first], ys[first]]);
    if (second !== first) points.push([xs[second], ys[second]]);
  };
  for (let i = begin; i < end; i++) {
    if (ys[i] === null) continue;
    const at = Math.floor((xs[i] - low) * scale);
    if (at !== pixel) {
      close();
      [pixel, least, most] = [at, i, i];
    } else {
      if (ys[i] < ys[least]) least = i;
      if (ys[i] > ys[most]) most = i;
    }
  }
  close();
  return points;
}

/** The first place in sorted values that is not below a value. */
export function lowerBound(xs, value) {
  let [low, high] = [0, xs.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Round values between two others, some so many. */
export function ticks(low, high, some) {
  const span = high - low || 1, rough = span / Math.max(1, some), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i++) values.push(i * step + 0);
  return values;
}

/** Round values on an axis of logarithms. */
export function logTicks(low, high) {
  const values = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const n of [1, 2, 5]) values.push(n * 10 ** e);
  }
  const inside = values.filter((v) => v >= low && v <= high);
  return inside.length >= 3 ? inside : ticks(low, high, 4).filter((v) => v > 0);
}

/** Values that are looked at to find those that are out of all proportion. */
const LOOKED_AT = 2000;

/** What series span: all, but for the few highest values that would flatten the rest. */
export function extent(series, isLog) {
  let [low, high, count] = [Infinity, -Infinity, 0];
  const guides = series.filter(({ isGuide }) => isGuide).flatMap(({ y }) => y.filter(Number.isFinite));
  const columns = series.filter(({ isGuide }) => !isGuide).map(({ y }) => y);
  for (const column of columns) {
    for (const value of column) {
      if (value === null || !Number.isFinite(value) || (isLog && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
      count++;
    }
  }
  if (count === 0) return [isLog ? 0.1 : 0, 1];
  if (count > 200) {
    const stride = Math.ceil(count / LOOKED_AT),
      some = columns.flatMap((y) => y.filter((v, i) => i % stride === 0 && v !== null));
    high = Math.min(high, some.sort((a, b) => a - b)[Math.ceil(some.length * 0.995) - 1]);
  }
  [low, high] = [Math.min(low, ...guides), Math.max(high, ...guides)];
  if (isLog) return [low / 1.03, high * 1.03];
  const isFlat = high - low <= 1e-6 * Math.abs(high), pad = (isFlat ? Math.abs(high) || 1 : high - low) * 0.05;
  return [low >= 0 && low < 0.3 * high ? 0 : low - pad, high + pad];
}

/** The order in which series are drawn: faint ones below all others, and the first on top. */
export function backToFront(series) {
  const last = series.toReversed();
  return [...last.filter(({ faint }) => faint), ...last.filter(({ faint }) => !faint)];
}

/** A canvas with a chart. */
export class Chart {
  /** @param format of values. @param formatX of places. @param onHover is told where the pointer is, or null. */
  constructor(canvas, tip, { format, onHover }) {
    Object.assign(this, { canvas, tip, format, series: [], at: null });
    canvas.addEventListener("pointermove", (event) => onHover(this.#xAt(event.offsetX)));
    canvas.addEventListener("pointerleave", () => onHover(null));
  }

  /** @param range of x. @param span of y; default: that of the series. */
  set(series, { range, span, isLog = false, formatX }) {
    Object.assign(this, { series, range, isLog, formatX, span: span ?? extent(series, isLog) });
  }

  #xAt(offset) {
    const { clientWidth } = this.canvas, [low, high] = this.range ?? [0, 1];
    return low + (offset - LEFT) / (clientWidth - LEFT - RIGHT) * (high - low);
  }

  draw(theme) {
    const { canvas, range, span, isLog } = this, ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!range || width === 0) return;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const g = canvas.getContext("2d"), plot = [width - LEFT - RIGHT, height - TOP - BOTTOM];
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    const scale = isLog ? Math.log : (v) => v, [low, high] = span.map(scale);
    const x = (v) => LEFT + (v - range[0]) / (range[1] - range[0] || 1) * plot[0];
    const y = (v) => TOP + (1 - (scale(v) - low) / (high - low || 1)) * plot[1];
    this.#axes(g, { x, y, width, height, theme });
    g.save();
    g.beginPath();
    g.rect(LEFT, TOP - 2, plot[0] + RIGHT, plot[1] + 4);
    g.clip();
    for (const one of backToFront(this.series)) this.#line(g, one, { x, y, width: plot[0] });
    g.restore();
    this.#pointed(g, { x, y, theme, width, height });
  }

  #axes(g, { x, y, width, height, theme }) {
    const { span: [low, high], range, isLog, format, formatX } = this;
    g.font = FONT;
    g.lineWidth = 1;
    g.textBaseline = "middle";
    g.textAlign = "right";
    const values = isLog ? logTicks(low, high) : ticks(low, high, (height - TOP - BOTTOM) / 40);
    for (const value of values) {
      const at = Math.round(y(value)) + 0.5;
      g.strokeStyle = theme.grid;
      g.beginPath();
      g.moveTo(LEFT, at);
      g.lineTo(width - RIGHT, at);
      g.stroke();
      g.fillStyle = theme.muted;
      g.fillText(format(value), LEFT - 6, at);
    }
    g.textBaseline = "top";
    for (const value of ticks(range[0], range[1], (width - LEFT - RIGHT) / 90)) {
      const text = formatX(value), half = g.measureText(text).width / 2;
      g.textAlign = "center";
      g.fillText(text, Math.min(x(value), width - half - 2), height - BOTTOM + 7);
    }
  }

  #line(g, { x: xs, y: ys, color, dash = [], dots = false, faint = false, width: line = 1.5 }, { x, y, width }) {
    if (xs.length === 0) return;
    const points = decimate(xs, ys, this.range, width).filter(([, v]) => v !== null && (!this.isLog || v > 0));
    g.globalAlpha = faint ? 0.28 : 1;
    g.strokeStyle = g.fillStyle = color;
    g.lineWidth = faint ? 1 : line;
    g.lineJoin = "round";
    g.setLineDash(dash);
    g.beginPath();
    points.forEach(([px, py], i) => i === 0 ? g.moveTo(x(px), y(py)) : g.lineTo(x(px), y(py)));
    g.stroke();
    g.setLineDash([]);
    if (dots || points.length === 1) {
      const radius = points.length > 60 ? 1.5 : 3;
      for (const [px, py] of points) {
        g.beginPath();
        g.arc(x(px), y(py), radius, 0, 2 * Math.PI);
        g.fill();
      }
    }
    g.globalAlpha = 1;
  }

  /** A line where the pointer is, and the values there. */
  #pointed(g, { x, y, theme, width, height }) {
    const { at, tip, series, format, formatX, range } = this;
    if (at === null || at < range[0] || at > range[1]) {
      tip.hidden = true;
      return;
    }
    g.strokeStyle = theme.muted;
    g.beginPath();
    g.moveTo(Math.round(x(at)) + 0.5, TOP);
    g.lineTo(Math.round(x(at)) + 0.5, height - BOTTOM);
    g.stroke();
    const lines = series.filter(({ label }) => label).flatMap(({ x: xs, y: ys, label, color }) => {
      let i = Math.min(lowerBound(xs, at), xs.length - 1);
      if (i > 0 && at - xs[i - 1] < xs[i] - at) i--;
      if (i < 0 || ys[i] === null || xs[i] > range[1] || xs[i] < range[0]) return [];
      g.fillStyle = color;
      g.beginPath();
      g.arc(x(xs[i]), y(ys[i]), 3, 0, 2 * Math.PI);
      g.fill();
      return [[color, `${label} ${format(ys[i])}`]];
    });
    tip.replaceChildren(...[[theme.muted, formatX(at)], ...lines].map(([color, text]) => {
      const line = document.createElement("div"), key = document.createElement("i");
      key.style.background = color;
      line.append(key, text);
      return line;
    }));
    tip.hidden = false;
    const isRight = x(at) > width / 2;
    tip.style.left = isRight ? "" : `${x(at) + 10}px`;
    tip.style.right = isRight ? `${width - x(at) + 10}px` : "";
  }
}

/** Lanes of ranks: a row for each, colored by a value; darker is more. */
export function drawLanes(canvas, { steps, values, range, most }, theme) {
  const ratio = devicePixelRatio || 1, rows = values[0]?.length ?? 0;
  const lane = Math.max(4, Math.min(18, Math.floor(220 / Math.max(1, rows)))), height = rows * lane + BOTTOM + TOP;
  canvas.style.height = `${height}px`;
  const width = canvas.clientWidth;
  if (width === 0 || rows === 0) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const g = canvas.getContext("2d"), plot = width - LEFT - RIGHT;
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = FONT;
  g.textBaseline = "middle";
  g.textAlign = "right";
  const columns = Math.min(Math.ceil(plot / 3), values.length), size = plot / columns;
  for (let rank = 0; rank < rows; rank++) {
    g.fillStyle = theme.muted;
    if (lane >= 11 || rank % Math.ceil(11 / lane) === 0) g.fillText(`${rank}`, LEFT - 6, TOP + (rank + 0.5) * lane);
    g.fillStyle = theme.grid;
    g.fillRect(LEFT, TOP + rank * lane, plot, lane - 1);
    g.fillStyle = theme.lane;
    for (let c = 0; c < columns; c++) {
      const [begin, end] = [c, c + 1].map((n) => Math.floor(n * values.length / columns));
      let peak = 0;
      for (let i = begin; i < end; i++) peak = Math.max(peak, values[i][rank] ?? 0);
      g.globalAlpha = Math.min(1, peak / (most || 1));
      g.fillRect(LEFT + c * size, TOP + rank * lane, size + 0.3, lane - 1);
    }
    g.globalAlpha = 1;
  }
  g.fillStyle = theme.muted;
  g.textBaseline = "top";
  g.textAlign = "left";
  g.fillText(range(steps[0]), LEFT, TOP + rows * lane + 6);
  g.textAlign = "right";
  g.fillText(range(steps.at(-1)), width - RIGHT, TOP + rows * lane + 6);
}
