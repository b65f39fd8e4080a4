// One conversation: messages, sending, stopping, asking again, changing what was asked.

import { answer, type Answer } from "./api";
import { button, byId, copy, element } from "./dom";
import { showMarkdown } from "./markdown";
import { saveChat, type Chat, type Message } from "./store";
import { countText, many } from "./text";

const scroll = byId<HTMLDivElement>("scroll");
const welcome = byId<HTMLDivElement>("welcome");
const list = byId<HTMLOListElement>("messages");
const question = byId<HTMLTextAreaElement>("question");
const sendButton = byId<HTMLButtonElement>("send");
const stopButton = byId<HTMLButtonElement>("stop");
const said = byId<HTMLParagraphElement>("said");

const kIdeas = [
  "Write a C function that reverses a string in place.",
  "Explain what a KV cache is in three sentences.",
  "Make a table of five sorting algorithms and their complexity.",
];
/** How often an answer that comes is drawn, and saved. */
const kDrawMs = 60;
const kSaveMs = 2000;

let chat: Chat;
/** Conversations that are being answered: several may be. */
const running = new Map<Chat, AbortController>();
let changed: () => void = () => {};

function body(message: Message): HTMLDivElement {
  const made = element("div", { className: "body" });
  if (message.role === "assistant") showMarkdown(made, message.content);
  else made.textContent = message.content;
  if (message.error) made.append(element("p", { className: "error", textContent: message.error }));
  return made;
}

function tools(message: Message, index: number): HTMLDivElement {
  const made = element("div", { className: "tools" });
  if (running.has(chat)) return made;
  const copying = button("Copy", () => void copy(message.content, copying));
  if (message.content) made.append(copying);
  if (message.role === "user") made.append(button("Edit", () => edit(index)));
  else if (index === chat.messages.length - 1) made.append(button("Regenerate", regenerate));
  if (message.note) made.append(element("span", { className: "note", textContent: message.note }));
  return made;
}

function item(message: Message, index: number): HTMLLIElement {
  const waits = message.role === "assistant" && !message.content && running.has(chat);
  const who = element("h3", { className: "hidden", textContent: message.role === "user" ? "You" : "Answer" });
  const made = element("li", { className: message.role }, who, body(message), tools(message, index));
  made.classList.toggle("waits", waits);
  return made;
}

function show(): void {
  list.replaceChildren(...chat.messages.map(item));
  welcome.hidden = chat.messages.length > 0;
  showButtons();
  scroll.scrollTop = scroll.scrollHeight;
}

/** The last message's text has grown. */
function showLast(): void {
  const index = chat.messages.length - 1;
  const message = chat.messages[index];
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  if (message) list.lastElementChild?.replaceWith(item(message, index));
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function showButtons(): void {
  const busy = running.has(chat);
  const focused = document.activeElement === sendButton || document.activeElement === stopButton;
  sendButton.hidden = busy;
  stopButton.hidden = !busy;
  if (focused) (busy ? stopButton : question).focus();
}

function noteOf(result: Answer, begun: number, first: number, end: number): string {
  const notes: string[] = [];
  if (result.reason === "length") notes.push("cut off: most tokens reached");
  if (result.usage) {
    const { completion_tokens: written, prompt_tokens: asked, prompt_tokens_details: details } = result.usage;
    notes.push(many(written, "token"));
    if (written > 1 && end > first) notes.push(`${(((written - 1) * 1000) / (end - first)).toFixed(0)} tokens/s`);
    notes.push(`first after ${((first - begun) / 1000).toFixed(2)} s`);
    if (details?.cached_tokens) notes.push(`${countText(details.cached_tokens)} of ${countText(asked)} prompt tokens were kept`);
  }
  return notes.join(" · ");
}

/** Answers what the conversation ends with. */
async function reply(): Promise<void> {
  const asked = chat;
  const before = [...asked.messages];
  const message: Message = { role: "assistant", content: "" };
  const controller = new AbortController();
  running.set(asked, controller);
  asked.messages.push(message);
  asked.updated = Date.now();
  show();
  changed();
  said.textContent = "";
  const begun = performance.now();
  let first = 0, drawn = 0, saved = begun;
  try {
    const result = await answer(before, controller.signal, (text) => {
      const now = performance.now();
      first ||= now;
      message.content += text;
      if (now - saved > kSaveMs) {
        saved = now;
        saveChat(asked);
      }
      if (now - drawn < kDrawMs || asked !== chat) return;
      drawn = now;
      showLast();
    });
    message.note = noteOf(result, begun, first || performance.now(), performance.now());
  } catch (error) {
    if (controller.signal.aborted) message.note = "stopped";
    else message.error = (error as Error).message;
  }
  running.delete(asked);
  if (!saveChat(asked)) message.note += " · not kept: the browser's storage is full";
  changed();
  if (asked !== chat) return;
  showLast();
  showTools();
  showButtons();
  said.textContent = message.error ? `Failed: ${message.error}` : "The answer is complete.";
}

/** Those of all messages but the last come back when an answer has ended. */
function showTools(): void {
  chat.messages.slice(0, -1).forEach((message, index) => list.children[index]?.lastElementChild?.replaceWith(tools(message, index)));
}

function edit(index: number): void {
  const message = chat.messages[index];
  const line = list.children[index];
  if (!message || !line || running.has(chat)) return;
  const field = element("textarea", { value: message.content });
  field.setAttribute("aria-label", "Change the message");
  const cancel = (): void => {
    show();
    list.children[index]?.querySelector<HTMLButtonElement>(".tools button:nth-of-type(2)")?.focus();
  };
  const ask = (): void => {
    const text = field.value.trim();
    if (!text) return;
    chat.messages.length = index;
    send(text);
    question.focus();
  };
  field.oninput = () => grow(field);
  field.onkeydown = (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    } else if (sends(event)) {
      event.preventDefault();
      ask();
    }
  };
  const save = button("Send", ask);
  save.className = "primary";
  line.replaceChildren(element("div", { className: "edit" }, field, element("div", {}, save, button("Cancel", cancel))));
  grow(field);
  field.focus();
}

function regenerate(): void {
  if (running.has(chat)) return;
  chat.messages.pop();
  question.focus();
  void reply();
}

function send(text: string): void {
  chat.messages.push({ role: "user", content: text });
  void reply();
  saveChat(chat);
}

function sends(event: KeyboardEvent): boolean {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing;
}

/** As high as its text, within what the style sheet allows. */
function grow(field: HTMLTextAreaElement): void {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

function sendQuestion(): void {
  const text = question.value.trim();
  if (!text || running.has(chat)) return;
  question.value = "";
  grow(question);
  send(text);
}

export function openChat(opened: Chat): void {
  chat = opened;
  show();
}

export function stop(of: Chat = chat): void {
  running.get(of)?.abort();
}

export function isAnswered(of: Chat): boolean {
  return running.has(of);
}

export function startChat(onChange: () => void): void {
  changed = onChange;
  byId<HTMLFormElement>("ask").onsubmit = (event) => {
    event.preventDefault();
    sendQuestion();
  };
  question.oninput = () => grow(question);
  question.onkeydown = (event) => {
    if (!sends(event)) return;
    event.preventDefault();
    sendQuestion();
  };
  stopButton.onclick = () => stop();
  welcome.append(
    element("h2", { textContent: "Ask something" }),
    element("p", { textContent: "The model runs on this server, within the memory it was given. Conversations stay in this browser." }),
    element("ul", {}, ...kIdeas.map((idea) => element("li", {}, button(idea, () => {
      if (running.has(chat)) return;
      send(idea);
      question.focus();
    })))),
  );
}
