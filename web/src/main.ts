import "./style.css";
import "./chat.css";
import "./memory.css";
import { startChat, stop } from "./chat";
import { openFirst, startChats, startNewChat } from "./chats";
import { byId } from "./dom";
import { startMemory } from "./memory";
import { startSettings } from "./settings";
import { showView, startView } from "./view";

startView();
startSettings();
startChat(startChats());
startMemory();
openFirst();

addEventListener("keydown", (event) => {
  const writes = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
  if (event.key === "Escape") {
    stop();
    showView("chat");
  } else if (event.altKey && event.code === "KeyN") {
    event.preventDefault();
    startNewChat();
  } else if (event.key === "/" && !writes && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    showView("chat");
    byId("question").focus();
  }
});
