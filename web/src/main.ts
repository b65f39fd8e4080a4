import "./style.css";
import { openChat, startChats } from "./chat";
import { button, byId, element } from "./dom";
import { startMemory } from "./memory";
import { chats, newChat, removeChat, save, settings, titleOf, type Chat, type Settings } from "./store";

let current: Chat = chats[0] ?? newChat();

function open(chat: Chat): void {
  current = chat;
  openChat(chat);
  showList();
  document.body.classList.remove("show-chats");
}

function showList(): void {
  byId("chat-list").replaceChildren(...chats.map((chat) => {
    const line = element("li", { className: chat === current ? "current" : "" });
    const remove = button("×", () => {
      removeChat(chat);
      open(chats[0] ?? newChat());
    });
    remove.setAttribute("aria-label", "Delete chat");
    line.append(button(titleOf(chat), () => open(chat)), remove);
    return line;
  }));
}

function bind(id: string, name: keyof Settings): void {
  const field = byId<HTMLInputElement>(id);
  field.value = settings[name];
  field.onchange = () => {
    settings[name] = field.value;
    save();
  };
}

bind("system", "system");
bind("temperature", "temperature");
bind("max-tokens", "maxTokens");
bind("key", "key");
byId("new-chat").onclick = () => open(current.messages.length > 0 ? newChat() : current);
byId("toggle-chats").onclick = () => document.body.classList.toggle("show-chats");
byId("toggle-memory").onclick = () => document.body.classList.toggle("show-memory");
startChats(showList);
startMemory();
open(current);
