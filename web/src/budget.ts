// The slider that changes the budget of the running server. Its steps are shares, not bytes: as fine at 100 MiB as at
// 10 GiB.

import { resize, type Status } from "./api";
import { byId } from "./dom";
import { bytesText } from "./text";

const slider = byId<HTMLInputElement>("budget");
const text = byId<HTMLOutputElement>("budget-text");
const error = byId<HTMLParagraphElement>("budget-error");

let least = 1, most = 2;
let sliding = false, sending = false;

const bytesAt = (value: number): number => Math.round(least * (most / least) ** (value / 1000));
const valueOf = (bytes: number): number => (1000 * Math.log(bytes / least)) / Math.log(most / least);

function show(bytes: number): void {
  text.textContent = bytesText(bytes);
  slider.setAttribute("aria-valuetext", bytesText(bytes));
}

async function send(): Promise<void> {
  if (sending) return; // what it is then is sent afterwards
  sending = true;
  let sent = -1;
  try {
    while (sent !== slider.valueAsNumber) {
      sent = slider.valueAsNumber;
      await resize(bytesAt(sent));
    }
    error.textContent = "";
  } catch (failed) {
    error.textContent = (failed as Error).message;
  }
  sending = sliding = false;
}

/** What the slider is being moved to, while it is; else the server's budget, which follows when there is room. */
export function budgetOf(s: Status): number {
  return sliding && !sending ? bytesAt(slider.valueAsNumber) : (s.budget ?? s.used);
}

export function drawBudget(s: Status): void {
  if (sending) text.textContent = `${bytesText(bytesAt(slider.valueAsNumber))}, on the way from ${bytesText(s.budget ?? s.used)}`;
  if (sliding) return;
  most = Math.max(s.most, s.budget ?? 0);
  least = Math.min(s.least, s.budget ?? s.least, most / 2);
  slider.value = String(valueOf(s.budget ?? most));
  show(s.budget ?? most);
  byId("least").textContent = `least ${bytesText(least)}`;
  byId("most").textContent = `this machine ${bytesText(most)}`;
}

export function startBudget(onSlide: () => void): void {
  slider.oninput = () => {
    sliding = true;
    show(bytesAt(slider.valueAsNumber));
    onSlide();
  };
  slider.onchange = () => {
    sliding = true;
    void send();
  };
}
