// The live view of where memory goes, and why: asks the server, again and again, and has all parts drawn.

import { status, type RequestStatus, type ServerEvent, type Status } from "./api";
import { budgetOf, drawBudget, startBudget } from "./budget";
import { byId, element } from "./dom";
import { drawHistory } from "./history";
import { drawMap } from "./memory_map";
import { partsOf } from "./parts";
import { showModels } from "./settings";
import { agoText, bytesText, countText, many, percentText } from "./text";
import { drawTree } from "./tree";

const kEveryMs = 700;
const kHiddenMs = 5000;
const kRequests = 8;

const offline = byId<HTMLSpanElement>("offline");
let now: Status | null = null;
let last: { at: number; generated: number; read: number } | null = null;

const kKinds: Record<string, string> = {
  evicted: "Evicted", swapped: "To disk", preempted: "Waits", failed: "Failed", budget: "Budget", files: "Files",
};

function drawForms(s: Status): void {
  const total = s.kv_forms.reduce((sum, form) => sum + form.bytes, 0);
  // One form is no news.
  byId("forms-box").hidden = s.kv_forms.length < 2;
  byId("forms").replaceChildren(...s.kv_forms.map(({ tier, form, bytes }) => {
    const bar = element("i", { className: `bar ${tier}` });
    bar.style.width = `${(100 * bytes) / total}%`;
    return element("div", {}, element("span", { textContent: tier === "disk" ? `${form}, on the disk` : form }), element("b", { textContent: bytesText(bytes) }), element("span", { className: "track" }, bar));
  }));
}

function drawFigures(s: Status): void {
  const at = performance.now();
  const rate = (count: number, before: number): number => (last ? (1000 * Math.max(0, count - before)) / (at - last.at) : 0);
  const writing = rate(s.generated_tokens, last?.generated ?? 0), reading = rate(s.prompt_tokens, last?.read ?? 0);
  last = { at, generated: s.generated_tokens, read: s.prompt_tokens };
  const asked = s.cached_tokens + s.prompt_tokens;
  const figures: [string, string, string][] = [
    ["writing", writing.toFixed(writing > 0 && writing < 10 ? 1 : 0), "tokens/s"],
    ["reading", reading.toFixed(0), "tokens/s"],
    ["read before", asked > 0 ? percentText(s.cached_tokens / asked) : "–", "of prompts"],
    ["written", countText(s.generated_tokens), "tokens"],
  ];
  byId("figures").replaceChildren(...figures.map(([name, value, unit]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", {}, element("b", { textContent: value }), ` ${unit}`))));
  drawHistory({ at, writing, reading, requests: s.kv_running, kept: s.kv_kept });
}

function requestLine(r: RequestStatus): HTMLLIElement {
  const state = r.state === "waits" ? "waits for room" : r.state === "on disk" ? "is on the disk" : r.state === "reads" ? `reads ${countText(r.read)} of ${countText(r.prompt)}` : `has written ${many(r.written, "token")}`;
  const line = element("li", { className: r.state }, element("span", { textContent: `#${r.id}` }), element("span", { textContent: state }), element("span", { textContent: r.bytes > 0 ? bytesText(r.bytes) : "" }));
  if (r.state === "reads") line.append(element("progress", { max: r.prompt, value: r.read, ariaLabel: `Request ${r.id}: prompt read` }));
  return line;
}

function drawQueue(s: Status): void {
  const shown = s.requests.slice(0, kRequests).map(requestLine);
  const head = element("li", { className: "head", textContent: s.running + s.waiting === 0 ? "Nobody asks anything now." : `${s.running} at work, ${s.waiting} waiting` });
  if (s.requests.length > kRequests) shown.push(element("li", { textContent: `and ${s.requests.length - kRequests} more` }));
  byId("requests").replaceChildren(head, ...shown);
}

function eventText(e: ServerEvent): string {
  return e.kind === "evicted" || e.kind === "swapped" ? `${many(e.times, "kept beginning")} of ${many(e.tokens, "token")}: ${e.what}` : e.what;
}

function drawEvents(s: Status): void {
  const lines = s.events.map((e) => element("li", { className: e.kind },
    element("b", { textContent: kKinds[e.kind] ?? e.kind }), element("span", { textContent: eventText(e) }), element("time", { textContent: agoText(e.seconds_ago) })));
  byId("events").replaceChildren(...(lines.length > 0 ? lines : [element("li", { className: "head", textContent: "Nothing had to, so far." })]));
}

function drawMemory(s: Status): void {
  const budget = budgetOf(s);
  byId("used").textContent = bytesText(s.used);
  byId("of").textContent = `of ${bytesText(budget)} used`;
  byId("tab-memory").textContent = percentText(s.used / budget);
  drawMap(partsOf({ ...s, budget }), s.used, budget);
}

function draw(s: Status): void {
  now = s;
  byId("model-facts").textContent = `KV ${s.kv} · context ${countText(s.context)}`;
  drawBudget(s);
  drawMemory(s);
  drawForms(s);
  drawFigures(s);
  drawQueue(s);
  drawTree(s.kept);
  drawEvents(s);
}

async function poll(): Promise<void> {
  try {
    draw(await status());
    if (offline.textContent) void showModels();
    offline.textContent = "";
  } catch (error) {
    last = null;
    offline.textContent = error instanceof TypeError ? "The server does not answer." : (error as Error).message;
  }
  document.body.classList.toggle("offline", offline.textContent !== "");
  setTimeout(() => void poll(), document.hidden ? kHiddenMs : kEveryMs);
}

export function startMemory(): void {
  startBudget(() => now && drawMemory(now));
  void poll();
}
