// What is kept, as a tree: a line per sequence, from left to right its tokens; what it shares with one above is drawn
// there alone, and the line begins where the two part.

import type { Kept } from "./api";
import { byId, shape } from "./dom";
import { agoText, bytesText, countText, many } from "./text";

const kRow = 20;
const kLines = 14;
/** Of the widest text beside a line. */
const kTextWidth = 150;

interface Line {
  tokens: number;
  /** With the line before it. */
  shared: number;
  own: number;
  seconds_ago: number;
  /** Lengths at which something shorter is kept too. */
  stops: number[];
}

const box = byId<HTMLDivElement>("tree");
const text = byId<HTMLParagraphElement>("tree-text");
let drawnWidth = 0;
let last: Kept[] = [];

/** A sequence that the next one begins with needs no line of its own. */
export function linesOf(kept: Kept[]): Line[] {
  const lines: Line[] = [];
  let open: Line | null = null;
  for (const node of kept) {
    if (open && node.shared === open.tokens) {
      open.stops.push(open.tokens);
      open.tokens = node.tokens;
      open.own += node.own;
      open.seconds_ago = Math.min(open.seconds_ago, node.seconds_ago);
      continue;
    }
    open = { tokens: node.tokens, shared: node.shared, own: node.own, seconds_ago: node.seconds_ago, stops: [] };
    lines.push(open);
  }
  return lines;
}

/** The lines used last, in their order; what is shared is then with the line that is above now. */
function newest(lines: Line[]): Line[] {
  const oldest = lines.map((line) => line.seconds_ago).sort((a, b) => a - b)[kLines - 1] ?? Infinity;
  const chosen: Line[] = [];
  let shared = Infinity;
  for (const line of lines) {
    shared = Math.min(shared, line.shared);
    if (line.seconds_ago > oldest || chosen.length >= kLines) continue;
    chosen.push({ ...line, shared: chosen.length > 0 ? shared : 0 });
    shared = Infinity;
  }
  return chosen;
}

/** The line that a line leaves, or -1. */
function parentOf(lines: Line[], index: number): number {
  const at = lines[index]!.shared;
  if (at === 0) return -1;
  let above = index - 1;
  while (above > 0 && lines[above]!.shared >= at) --above;
  return above;
}

function draw(): void {
  const all = linesOf(last);
  const lines = newest(all);
  const width = box.clientWidth || 320;
  const most = Math.max(1, ...lines.map((line) => line.tokens));
  const x = (tokens: number): number => 1 + (tokens / most) * (width - kTextWidth - 8);
  const height = lines.length * kRow;
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  lines.forEach((line, index) => {
    const middle = index * kRow + kRow / 2;
    const parent = parentOf(lines, index);
    if (parent >= 0) drawing.append(shape("path", { class: "branch", d: `M${x(line.shared)} ${parent * kRow + kRow / 2}V${middle}` }));
  });
  lines.forEach((line, index) => {
    const middle = index * kRow + kRow / 2;
    const begin = x(line.shared);
    drawing.append(shape("rect", { class: "own", x: begin, y: middle - 4, width: Math.max(3, x(line.tokens) - begin), height: 8, rx: 2 }));
    const common = Math.max(line.shared, ...lines.filter((_, below) => below > index && parentOf(lines, below) === index).map((below) => below.shared));
    if (common > line.shared) drawing.append(shape("rect", { class: "common", x: begin, y: middle - 6, width: x(common) - begin, height: 12, rx: 2 }));
    for (const stop of line.stops) drawing.append(shape("path", { class: "stop", d: `M${x(stop)} ${middle - 4}v8` }));
    drawing.append(shape("text", { x: width, y: middle + 4, "text-anchor": "end" },
      `${countText(line.tokens)} · ${bytesText(line.own)} · ${agoText(line.seconds_ago)}`));
  });
  drawing.setAttribute("aria-label", lines.map((line) =>
    `${many(line.tokens, "token")}, ${countText(line.shared)} of them shared with one above, ${bytesText(line.own)} of its own, used ${agoText(line.seconds_ago)}`).join("; "));
  box.replaceChildren(...(lines.length > 0 ? [drawing] : []));
  const tokens = last.reduce((sum, node) => sum + node.tokens - node.shared, 0);
  const whole = last.reduce((sum, node) => sum + node.tokens, 0);
  text.textContent = last.length === 0
    ? "None yet. The end of every prompt and answer is kept, so that what begins alike is read once."
    : `${many(last.length, "sequence")}, ${countText(whole)} tokens; ${countText(tokens)} are held, the rest is shared.` +
      (all.length > lines.length ? ` The ${lines.length} lines used last of ${all.length}:` : "") +
      " Dark: shared by several lines. Right: tokens, bytes that no other has, last use.";
}

export function drawTree(kept: Kept[]): void {
  last = kept;
  draw();
}

new ResizeObserver(() => {
  if (box.clientWidth === drawnWidth) return;
  drawnWidth = box.clientWidth;
  draw();
}).observe(box);
