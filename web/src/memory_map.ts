// The map: the budget as a field of squares, each a number of bytes, coloured by what they are used for.

import { byId, element, shape } from "./dom";
import type { Part } from "./parts";
import { bytesText, percentText } from "./text";

const kColumns = 40;
const kRows = 15;
const kCells = kColumns * kRows;
/** Of a square, and of the step to the next. */
const kSide = 8.4;
const kStep = 10;
/** Of a huge budget, no more is drawn than so many times of what is used. */
const kZoom = 3;

const box = byId<HTMLDivElement>("map");
const legend = byId<HTMLUListElement>("legend");
const detail = byId<HTMLParagraphElement>("detail");

const paths = new Map<string, SVGElement>();
const lines = new Map<string, { line: HTMLLIElement; bytes: HTMLElement }>();
let parts: Part[] = [];
let whole = 1, cell = 1, beyond = 0;
let chosen = "";

const drawing = shape("svg", { viewBox: `0 0 ${kColumns * kStep - (kStep - kSide)} ${kRows * kStep - (kStep - kSide)}`, role: "img" });

/** Squares of each part: at least one, where it has any bytes. */
function cellsOf(sizes: number[], cells: number): number[] {
  const total = sizes.reduce((sum, size) => sum + size, 0) || 1;
  const counts = sizes.map((size) => (size > 0 ? Math.max(1, Math.round((size / total) * cells)) : 0));
  // What rounding gave too much or too little, the largest part makes up for.
  const largest = counts.indexOf(Math.max(...counts));
  counts[largest]! += cells - counts.reduce((sum, count) => sum + count, 0);
  return counts;
}

function squares(from: number, count: number): string {
  let path = "";
  for (let i = from; i < from + count; ++i)
    path += `M${(i % kColumns) * kStep} ${Math.floor(i / kColumns) * kStep}h${kSide}v${kSide}h-${kSide}z`;
  return path;
}

function choose(kind: string): void {
  chosen = kind;
  box.classList.toggle("chosen", kind !== "");
  for (const [name, path] of paths) path.classList.toggle("on", name === kind);
  for (const [name, { line }] of lines) line.classList.toggle("on", name === kind);
  tell();
}

function tell(): void {
  const part = parts.find(({ kind }) => kind === chosen);
  const rest = beyond > 0 ? ` ${bytesText(beyond)} more are free and not drawn.` : "";
  detail.textContent = part
    ? `${part.name}, ${percentText(part.bytes / whole)} of the budget. ${part.about}`
    : `A square is ${bytesText(cell)}.${rest}`;
}

function pathOf(kind: string): SVGElement {
  let path = paths.get(kind);
  if (!path) {
    path = shape("path", { class: `part ${kind}` });
    path.onpointerenter = () => choose(kind);
    path.onpointerleave = () => choose("");
    paths.set(kind, path);
    drawing.append(path);
  }
  return path;
}

function lineOf(part: Part): { bytes: HTMLElement } {
  let entry = lines.get(part.kind);
  if (!entry) {
    const bytes = element("b");
    const swatch = shape("svg", { class: "swatch", viewBox: "0 0 12 12", "aria-hidden": "true" }, shape("rect", { class: `part ${part.kind}`, width: 12, height: 12 }));
    const choice = element("button", { type: "button" }, swatch, element("span", { className: "name", textContent: part.name }), bytes);
    choice.setAttribute("aria-describedby", "detail");
    choice.onpointerenter = choice.onfocus = () => choose(part.kind);
    choice.onpointerleave = choice.onblur = () => choose("");
    choice.onclick = () => choose(part.kind); // a finger does not hover
    const line = element("li", {}, choice);
    legend.append(line);
    entry = { line, bytes };
    lines.set(part.kind, entry);
  }
  return entry;
}

/** `budget`: what the squares stand for together, as far as it is not much more than what is used. */
export function drawMap(all: Part[], used: number, budget: number): void {
  parts = all;
  whole = Math.max(budget, used, 1);
  const drawn = Math.min(whole, Math.max(used * kZoom, 1));
  beyond = whole - drawn;
  cell = drawn / kCells;
  const sizes = parts.map((part) => (part.kind === "free" ? Math.max(0, drawn - used) : part.bytes));
  let at = 0;
  cellsOf(sizes, kCells).forEach((count, index) => {
    const part = parts[index]!;
    pathOf(part.kind).setAttribute("d", squares(at, count));
    at += count;
    lineOf(part).bytes.textContent = bytesText(part.bytes);
  });
  drawing.setAttribute("aria-label", `Memory map: ${parts.map((part) => `${part.name} ${bytesText(part.bytes)}`).join(", ")}`);
  tell();
}

/** Stripes and dots, for who does not see the colours; filled by the style sheet. */
function patterns(): SVGElement {
  const pattern = (id: string, size: number, turn: number, mark: SVGElement): SVGElement =>
    shape("pattern", { id, width: size, height: size, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${turn})` },
      shape("rect", { width: size, height: size, class: `ground-${id}` }), mark);
  return shape("defs", {},
    pattern("kept", 4, 45, shape("rect", { width: 1.6, height: 4, class: "mark-kept" })),
    pattern("work", 4, 0, shape("circle", { cx: 2, cy: 2, r: 0.9, class: "mark-work" })),
    pattern("kvother", 4, -45, shape("rect", { width: 1.3, height: 4, class: "mark-kvother" })));
}

drawing.append(patterns());
box.append(drawing);
