// Which of the three parts a narrow screen shows; a wide one shows all.

type View = "chats" | "chat" | "memory";
const tabs = [...document.querySelectorAll<HTMLButtonElement>("#tabs button")];

export function showView(view: View): void {
  document.body.dataset.view = view;
  for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.opens === view));
}

export function startView(): void {
  for (const tab of tabs) tab.onclick = () => showView(tab.dataset.opens as View);
  showView("chat");
}
