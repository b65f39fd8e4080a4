// Conversations and settings, kept in the browser.

export interface Message {
  role: "user" | "assistant";
  content: string;
}
export interface Chat {
  id: string;
  messages: Message[];
}
export interface Settings {
  system: string;
  temperature: string;
  maxTokens: string;
  key: string;
}

function read<T>(name: string, otherwise: T): T {
  try {
    return (JSON.parse(localStorage.getItem(name) ?? "null") as T | null) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export const settings = read<Settings>("snug.settings", { system: "", temperature: "", maxTokens: "", key: "" });
export let chats = read<Chat[]>("snug.chats", []);

export function save(): void {
  try {
    localStorage.setItem("snug.settings", JSON.stringify(settings));
    localStorage.setItem("snug.chats", JSON.stringify(chats));
  } catch {
    // The browser keeps nothing: this visit only.
  }
}

export function newChat(): Chat {
  const chat: Chat = { id: `${Date.now()}-${Math.random()}`, messages: [] };
  chats.unshift(chat);
  return chat;
}

export function removeChat(chat: Chat): void {
  chats = chats.filter((other) => other !== chat);
  save();
}

export function titleOf(chat: Chat): string {
  return chat.messages[0]?.content.slice(0, 60) || "New chat";
}
