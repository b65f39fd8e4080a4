// One conversation: messages, sending, stopping, asking again, changing what was asked.

import DOMPurify from "dompurify";
import { marked } from "marked";
import { answer } from "./api";
import { button, byId, element } from "./dom";
import { save, type Chat, type Message } from "./store";

const list = byId<HTMLOListElement>("messages");
const question = byId<HTMLTextAreaElement>("question");
const sendButton = byId<HTMLButtonElement>("send");
const stopButton = byId<HTMLButtonElement>("stop");

let chat: Chat;
let running: AbortController | null = null;
let changed: () => void = () => {};

// What a model writes must not fetch anything.
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "IMG") node.remove();
  if (node.nodeName === "A") node.setAttribute("rel", "noopener noreferrer");
});

function render(text: string): string {
  return DOMPurify.sanitize(marked.parse(text, { async: false }));
}

function item(message: Message, index: number): HTMLLIElement {
  const body = element("div", { className: "body" });
  if (message.role === "assistant") {
    body.innerHTML = render(message.content);
    for (const code of body.querySelectorAll("pre")) {
      code.append(button("Copy", () => void navigator.clipboard.writeText(code.querySelector("code")?.textContent ?? "")));
    }
  } else {
    body.textContent = message.content;
  }
  const tools = element("div", { className: "tools" });
  if (message.role === "user") tools.append(button("Edit", () => edit(index)));
  if (message.role === "assistant" && index === chat.messages.length - 1) tools.append(button("Regenerate", () => void regenerate()));
  return element("li", { className: message.role }, body, tools);
}

function show(): void {
  list.replaceChildren(...chat.messages.map(item));
  list.scrollTop = list.scrollHeight;
}

function showLast(): void {
  const index = chat.messages.length - 1;
  const message = chat.messages[index];
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  if (message) list.lastElementChild?.replaceWith(item(message, index));
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function setRunning(controller: AbortController | null): void {
  running = controller;
  sendButton.hidden = controller !== null;
  stopButton.hidden = controller === null;
}

async function ask(): Promise<void> {
  const asked = chat;
  const reply: Message = { role: "assistant", content: "" };
  const before = [...asked.messages];
  asked.messages.push(reply);
  show();
  const controller = new AbortController();
  setRunning(controller);
  let drawn = 0;
  try {
    await answer(before, controller.signal, (text) => {
      reply.content += text;
      if (performance.now() - drawn < 60 || asked !== chat) return;
      drawn = performance.now();
      showLast();
    });
  } catch (error) {
    if (!controller.signal.aborted) reply.content += `\n\n**${(error as Error).message}**`;
  }
  setRunning(null);
  save();
  changed();
  if (asked === chat) show();
}

function edit(index: number): void {
  if (running) return;
  question.value = chat.messages[index]?.content ?? "";
  chat.messages.length = index;
  show();
  question.focus();
}

async function regenerate(): Promise<void> {
  if (running) return;
  chat.messages.pop();
  await ask();
}

function send(): void {
  const text = question.value.trim();
  if (!text || running) return;
  question.value = "";
  chat.messages.push({ role: "user", content: text });
  save();
  changed();
  void ask();
}

export function openChat(opened: Chat): void {
  running?.abort();
  chat = opened;
  show();
}

export function startChats(onChange: () => void): void {
  changed = onChange;
  byId<HTMLFormElement>("ask").onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  question.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  stopButton.onclick = () => running?.abort();
}
