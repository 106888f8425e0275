/** What can be held of how a page looks: no text lies on another or is cut off, all of it can be read, nothing is wider than the window.
 * @module */
import { assertEquals } from "@std/assert";
import type { Page } from "./browser.ts";

/** Keeps, for each canvas, where it has written what since it was last cleared. */
const RECORD_TEXTS = `(() => {
  const { fillText, clearRect } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.clearRect = function (...at) {
    this.canvas.texts = [];
    return clearRect.apply(this, at);
  };
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...more) {
    const { width, actualBoundingBoxAscent: up, actualBoundingBoxDescent: down } = this.measureText(text);
    const left = x - { left: 0, center: width / 2, right: width }[this.textAlign];
    (this.canvas.texts ??= []).push({ text, left, right: left + width, top: y - up, bottom: y + down });
    return fillText.call(this, text, x, y, ...more);
  };
})()`;

/** All texts that are seen, with the place of each line in the page. */
const TEXTS = `(() => {
  const texts = [];
  const isSeen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || element.closest("script, style, option, title, textarea") || !isSeen(element)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const { left, right, top, bottom } of range.getClientRects()) {
      if (right - left > 1) texts.push({ text: node.data.trim(), left, right, top, bottom, element });
    }
  }
  for (const canvas of document.querySelectorAll("canvas")) {
    const at = canvas.getBoundingClientRect();
    for (const { text, left, right, top, bottom } of canvas.texts ?? []) {
      texts.push({
        text, element: canvas, left: at.left + left, right: at.left + right, top: at.top + top, bottom: at.top + bottom,
      });
    }
  }
  return texts;
})()`;

/** Pairs of texts that lie on each other. Lines of one paragraph may touch. */
const OVERLAPS = `(() => {
  const texts = ${TEXTS}, found = [], slack = 2;
  texts.forEach((a, i) => {
    for (const b of texts.slice(i + 1)) {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      const isTip = [a, b].some(({ element }) => element.closest(".tip"));
      if (across > slack && down > slack + 1 && !isTip) found.push(a.text.slice(0, 40) + " | " + b.text.slice(0, 40));
    }
  });
  return found;
})()`;

/** Texts that end outside of a box which cuts them off, sideways. */
const CUT_OFF = `(() => ${TEXTS}.filter(({ element, left, right }) => {
  for (let box = element; box; box = box.parentElement) {
    const { overflowX } = getComputedStyle(box), at = box.getBoundingClientRect();
    if (overflowX === "auto" || overflowX === "scroll") return false; // it can be moved there
    if ((overflowX === "hidden" || box === element && box.tagName === "CANVAS") && (left < at.left - 2 || right > at.right + 2)) return true;
  }
  return left < -2 || right > innerWidth + 2;
}).map(({ text }) => text.slice(0, 40)))()`;

/** Texts of the document whose color is too near to what is behind them: the ratio of luminance that WCAG asks for is 4.5. */
const FAINT = `(() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let box = element; box; box = box.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(box).backgroundColor);
      if (a > 0.99) return [r, g, b];
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  };
  const found = new Set();
  for (const { text, element } of ${TEXTS}) {
    if (element.tagName === "CANVAS" || element.closest("svg")) continue;
    const [light, dark] = [parse(getComputedStyle(element).color), behind(element)].map(luminance).sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) found.add(text.slice(0, 40) + ": " + ratio.toFixed(2));
  }
  return [...found];
})()`;

/** Has pages that are opened from now on keep what their canvases write. */
export async function recordTexts(page: Page): Promise<void> {
  await page.call("Page.addScriptToEvaluateOnNewDocument", { source: RECORD_TEXTS });
}

/** Holds that a page can be read as it stands. @param name of what is looked at, for messages. */
export async function assertReadable(page: Page, name: string): Promise<void> {
  const found = async (what: string) => [...new Set(await page.evaluate<string[]>(what))];
  assertEquals(await found(OVERLAPS), [], `${name}: texts lie on each other`);
  assertEquals(await found(CUT_OFF), [], `${name}: texts are cut off`);
  assertEquals(await found(FAINT), [], `${name}: texts can hardly be seen`);
  const [wide, window] = await page.evaluate<number[]>("[document.documentElement.scrollWidth, innerWidth]");
  assertEquals(Math.max(wide, window), window, `${name}: wider than the window`);
}

/** Shares of a canvas' width between which some pixel of each column has nearly a color, such as `--c0`; holes of a few pixels count not. */
export function drawnBetween(page: Page, label: string, color: string): Promise<[number, number]> {
  return page.evaluate(`(() => {
    const canvas = document.querySelector('canvas[aria-label="${label}"]'), { width, height } = canvas;
    const probe = document.createElement("i");
    probe.style.color = getComputedStyle(document.documentElement).getPropertyValue("${color}");
    document.body.append(probe);
    const wanted = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
    probe.remove();
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const columns = Array.from({ length: width }, (_, x) => {
      for (let y = 0; y < height; y++) {
        const at = 4 * (y * width + x);
        if (data[at + 3] > 200 && wanted.every((v, i) => Math.abs(data[at + i] - v) < 12)) return true;
      }
      return false;
    });
    const begin = columns.indexOf(true);
    let end = begin;
    while (columns.slice(end + 1, end + 5).includes(true)) end++;
    return [begin / width, (end + 1) / width];
  })()`);
}
