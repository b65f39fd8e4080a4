// The last two minutes: tokens per second, and the KV cache of requests and of what is kept.

import { byId, element, shape } from "./dom";
import { bytesText } from "./text";

export interface Sample {
  at: number;
  writing: number;
  reading: number;
  requests: number;
  kept: number;
}

const kSpan = 120_000;
const kWidth = 400;
const kHeight = 48;

const samples: Sample[] = [];
const box = byId<HTMLDivElement>("history");

function chart(name: string, layers: { kind: string; of: (s: Sample) => number }[], most: (top: number) => string): HTMLElement {
  const now = samples[samples.length - 1]!.at;
  const sums = samples.map((s) => {
    let sum = 0;
    return layers.map(({ of }) => (sum += of(s)));
  });
  const top = Math.max(...sums.map((all) => all[all.length - 1]!), 0);
  const x = (s: Sample): string => (kWidth * (1 - (now - s.at) / kSpan)).toFixed(1);
  const y = (value: number): string => (kHeight - 1 - (top > 0 ? ((kHeight - 3) * value) / top : 0)).toFixed(1);
  const drawing = shape("svg", { viewBox: `0 0 ${kWidth} ${kHeight}`, preserveAspectRatio: "none", role: "img", "aria-label": `${name}, last two minutes: at most ${most(top)}` });
  layers.forEach(({ kind }, index) => {
    const line = samples.map((s, i) => `${x(s)} ${y(sums[i]![index]!)}`);
    const back = samples.map((s, i) => `${x(s)} ${y(index > 0 ? sums[i]![index - 1]! : 0)}`).reverse();
    drawing.append(shape("path", { class: `area ${kind}`, d: `M${line.join("L")}L${back.join("L")}z` }));
  });
  return element("figure", {}, drawing, element("figcaption", {}, element("span", { textContent: name }), element("span", { textContent: `most ${most(top)}`, title: "In the last two minutes" })));
}

export function drawHistory(sample: Sample): void {
  samples.push(sample);
  while (samples.length > 2 && sample.at - samples[0]!.at > kSpan) samples.shift();
  box.replaceChildren(
    chart("Tokens per second", [{ kind: "reading", of: (s) => s.writing }], (top) => top.toFixed(top < 10 ? 1 : 0)),
    chart("KV cache", [{ kind: "kept", of: (s) => s.kept }, { kind: "requests", of: (s) => s.requests }], bytesText),
  );
}
