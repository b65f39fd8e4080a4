// Elements by id, and new ones.

export function byId<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`#${id} is missing`);
  return found as T;
}

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Of an SVG. */
export function shape(tag: string, attributes: Record<string, string | number>, ...children: (Node | string)[]): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/** `name`: what it is called where its text does not say it. */
export function button(text: string, onclick: () => void, name = ""): HTMLButtonElement {
  const made = element("button", { type: "button", textContent: text, onclick });
  if (name) {
    made.title = name;
    made.setAttribute("aria-label", name);
  }
  return made;
}

/** Says something for a moment, and offers to undo it. */
export function toast(text: string, action?: { name: string; run: () => void }): void {
  const box = byId("toast");
  const close = (): void => {
    box.classList.remove("shown");
    box.replaceChildren();
  };
  box.replaceChildren(text);
  if (action) {
    box.append(button(action.name, () => {
      close();
      action.run();
    }));
  }
  box.classList.add("shown");
  clearTimeout(closing);
  closing = setTimeout(close, 8000);
}
let closing = 0;

export async function copy(text: string, from: HTMLButtonElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS, from another machine, there is no clipboard but this.
    const field = element("textarea", { value: text });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    from.focus();
  }
  const before = from.textContent;
  from.textContent = "Copied";
  setTimeout(() => (from.textContent = before), 1500);
}
