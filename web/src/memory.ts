// The live view of where memory goes.

import { resize, status, type Status } from "./api";
import { byId, bytesText, element } from "./dom";

const map = byId<HTMLDivElement>("map");
const legend = byId<HTMLUListElement>("legend");
const slider = byId<HTMLInputElement>("budget");
const budgetText = byId<HTMLOutputElement>("budget-text");
const budgetError = byId<HTMLParagraphElement>("budget-error");

let sliding = false;
let last: { at: number; generated: number; read: number } | null = null;
let most = 1;

/** Names and bytes of what the map shows, in its order. */
function parts(s: Status): [string, number][] {
  const found: [string, number][] = [];
  for (const [tag, bytes] of Object.entries(s.memory)) {
    if (bytes === 0) continue;
    if (tag !== "kv") {
      found.push([tag, bytes]);
      continue;
    }
    const running = Math.min(bytes, s.kv_running);
    found.push(["kv: answers", running], ["kv: kept", bytes - running]);
  }
  const free = (s.budget ?? s.used) - s.used;
  if (free > 0) found.push(["free", free]);
  return found.filter(([, bytes]) => bytes > 0);
}

function draw(s: Status): void {
  byId("model").textContent = `${s.model}, KV ${s.kv}, context ${s.context}`;
  const all = parts(s);
  const total = all.reduce((sum, [, bytes]) => sum + bytes, 0);
  const name = (part: string): string => `part-${part.replace(/[^a-z]/g, "")}`;
  map.replaceChildren(...all.map(([part, bytes]) => {
    const bar = element("span", { className: name(part), title: `${part}: ${bytesText(bytes)}` });
    bar.style.flexGrow = String(bytes / total);
    return bar;
  }));
  map.setAttribute("aria-label", all.map(([part, bytes]) => `${part} ${bytesText(bytes)}`).join(", "));
  legend.replaceChildren(...all.map(([part, bytes]) => element("li", {}, element("i", { className: name(part) }), `${part} ${bytesText(bytes)}`)));

  most = s.most;
  if (!sliding) {
    const budget = s.budget ?? s.most;
    slider.value = String(Math.round((1000 * budget) / most));
    budgetText.textContent = bytesText(budget);
  }
  const now = performance.now();
  const rate = (count: number, before: number, at: number): string => ((1000 * (count - before)) / (now - at)).toFixed(1);
  const figures: [string, string][] = [
    ["writing", last ? `${rate(s.generated_tokens, last.generated, last.at)} tokens/s` : "-"],
    ["reading", last ? `${rate(s.prompt_tokens, last.read, last.at)} tokens/s` : "-"],
    ["read before", `${s.cached_tokens} of ${s.cached_tokens + s.prompt_tokens} tokens`],
    ["queue", `${s.running} at work, ${s.waiting} waiting`],
    ["kept beginnings", String(s.prefixes)],
  ];
  last = { at: now, generated: s.generated_tokens, read: s.prompt_tokens };
  byId("figures").replaceChildren(...figures.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
  byId("requests").replaceChildren(...s.requests.map((r) => {
    const bar = element("progress", { max: r.prompt, value: r.read });
    return element("li", {}, `#${r.id} ${r.state}: ${r.written} tokens, ${bytesText(r.bytes)} `, bar);
  }));
  byId("events").replaceChildren(...s.events.map((e) => element("li", {}, `${e.seconds_ago.toFixed(0)} s ago: ${e.what}`)));
}

export function startMemory(): void {
  slider.oninput = () => {
    sliding = true;
    budgetText.textContent = bytesText((most * Number(slider.value)) / 1000);
  };
  slider.onchange = () => {
    resize(Math.round((most * Number(slider.value)) / 1000)).then(
      () => (budgetError.textContent = ""),
      (error: Error) => (budgetError.textContent = error.message),
    ).finally(() => (sliding = false));
  };
  const poll = async (): Promise<void> => {
    try {
      draw(await status());
    } catch (error) {
      byId("model").textContent = (error as Error).message;
    }
    setTimeout(() => void poll(), document.hidden ? 5000 : 700);
  };
  void poll();
}
