// The list of conversations: open, rename, delete (and take that back).

import { isAnswered, openChat, stop } from "./chat";
import { button, byId, element, toast } from "./dom";
import { chats, newChat, onOtherTab, removeChat, restoreChat, saveChat, titleOf, type Chat } from "./store";
import { showView } from "./view";

const list = byId<HTMLUListElement>("chat-list");
let current: Chat = chats[0] ?? newChat();

function open(chat: Chat): void {
  // One that nothing was written in is not worth a line.
  for (const empty of chats.filter((other) => other.messages.length === 0 && other !== chat)) removeChat(empty);
  current = chat;
  openChat(chat);
  showList();
}

function remove(chat: Chat): void {
  stop(chat);
  removeChat(chat);
  if (chat === current) open(chats[0] ?? newChat());
  showList();
  (list.querySelector<HTMLButtonElement>("[aria-current] button") ?? byId("new-chat")).focus();
  toast(`“${titleOf(chat).slice(0, 40)}” is deleted.`, {
    name: "Undo",
    run: () => {
      restoreChat(chat);
      open(chat);
    },
  });
}

function rename(chat: Chat, line: HTMLLIElement): void {
  const field = element("input", { value: titleOf(chat) });
  field.setAttribute("aria-label", "Name of the conversation");
  let done = false;
  const end = (keeps: boolean): void => {
    if (done) return;
    done = true;
    field.remove();
    if (keeps) {
      chat.title = field.value.trim();
      saveChat(chat);
    }
    showList();
    list.querySelector<HTMLButtonElement>(`[data-chat="${chat.id}"] button`)?.focus();
  };
  field.onblur = () => end(true);
  field.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault(); // or the key would press the button that has the focus next
    event.stopPropagation();
    end(event.key === "Enter");
  };
  line.replaceChildren(field);
  field.select();
}

function showList(): void {
  if (list.querySelector("input")) return; // a name is being written
  const focused = document.activeElement?.closest<HTMLElement>("#chat-list li")?.dataset.chat;
  list.replaceChildren(...chats.map((chat) => {
    const opening = button(titleOf(chat), () => {
      open(chat);
      showView("chat");
    });
    const line = element("li", {}, opening);
    line.dataset.chat = chat.id;
    if (chat === current) line.setAttribute("aria-current", "true");
    line.classList.toggle("answered", isAnswered(chat));
    if (chat.messages.length > 0) {
      line.append(button("✎", () => rename(chat, line), `Rename “${titleOf(chat)}”`),
        button("✕", () => remove(chat), `Delete “${titleOf(chat)}”`));
    }
    return line;
  }));
  if (focused) list.querySelector<HTMLButtonElement>(`[data-chat="${focused}"] button`)?.focus();
}

export function startNewChat(): void {
  open(current.messages.length > 0 ? newChat() : current);
  showView("chat");
  byId("question").focus();
}

export function startChats(): () => void {
  byId("new-chat").onclick = startNewChat;
  onOtherTab((changed) => {
    if (!chats.includes(current)) open(chats[0] ?? newChat());
    else if (changed === current && !isAnswered(current)) openChat(current);
    showList();
  });
  return showList;
}

export function openFirst(): void {
  open(current);
}
