// Conversations and settings, kept in the browser: each conversation under a key of its own, so that two tabs do not
// undo each other's.

export interface Message {
  role: "user" | "assistant";
  content: string;
  /** What was wrong, in place of more of an answer. */
  error?: string;
  /** How it went: a line below the answer. */
  note?: string;
}
export interface Chat {
  id: string;
  title: string;
  updated: number;
  messages: Message[];
}
export interface Settings {
  model: string;
  system: string;
  temperature: string;
  topP: string;
  maxTokens: string;
  seed: string;
  key: string;
  theme: "" | "light" | "dark";
}

const kChat = "snug.chat.";
const kSettings = "snug.settings";

function read<T>(name: string): T | null {
  try {
    return JSON.parse(localStorage.getItem(name) ?? "null") as T | null;
  } catch {
    return null;
  }
}

/** Whether the browser keeps it. */
function write(name: string, value: unknown): boolean {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export const settings: Settings = {
  model: "", system: "", temperature: "", topP: "", maxTokens: "", seed: "", key: "", theme: "",
  ...read<Partial<Settings>>(kSettings),
};
export const chats: Chat[] = [];

function sort(): void {
  chats.sort((a, b) => b.updated - a.updated);
}

try {
  for (const name of Object.keys(localStorage)) {
    const chat = name.startsWith(kChat) ? read<Chat>(name) : null;
    if (chat && Array.isArray(chat.messages)) chats.push(chat);
  }
} catch {
  // A browser that keeps nothing.
}
sort();

export function saveSettings(): boolean {
  return write(kSettings, settings);
}

/** One without messages is not kept. */
export function saveChat(chat: Chat): boolean {
  if (!chats.includes(chat) || chat.messages.length === 0) return true;
  sort();
  return write(kChat + chat.id, chat);
}

export function newChat(): Chat {
  const chat: Chat = { id: `${Date.now()}-${Math.random().toString(36).slice(2)}`, title: "", updated: Date.now(), messages: [] };
  chats.unshift(chat);
  return chat;
}

export function removeChat(chat: Chat): void {
  chats.splice(chats.indexOf(chat), 1);
  localStorage.removeItem(kChat + chat.id);
}

export function restoreChat(chat: Chat): void {
  chats.push(chat);
  saveChat(chat);
}

export function titleOf(chat: Chat): string {
  return chat.title || chat.messages[0]?.content.slice(0, 80) || "New chat";
}

/** Calls `f` with a conversation that another tab has changed, in its new form, or with null when one has gone. */
export function onOtherTab(f: (chat: Chat | null) => void): void {
  addEventListener("storage", (event) => {
    if (!event.key?.startsWith(kChat)) return;
    const id = event.key.slice(kChat.length);
    const known = chats.findIndex((chat) => chat.id === id);
    const now = read<Chat>(event.key);
    if (known >= 0 && now) Object.assign(chats[known]!, now);
    else if (known >= 0) chats.splice(known, 1);
    else if (now) chats.push(now);
    sort();
    f(now && (chats.find((chat) => chat.id === id) ?? null));
  });
}
