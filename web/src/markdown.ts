// What a model writes, as safe HTML: nothing in it may run, fetch, or look like a part of the page.

import DOMPurify from "dompurify";
import { marked } from "marked";
import { button, copy, element } from "./dom";

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "CODE") node.removeAttribute("class");
  if (node.nodeName !== "A") return;
  node.setAttribute("rel", "noopener noreferrer");
  node.setAttribute("target", "_blank");
});

/** Tags that models write in tables and formulas. All others are text that they talk about. */
const kPlainTag = /^<\/?(br|b|i|em|strong|sub|sup|kbd)\s*\/?>$/i;
const kEscapes: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => kEscapes[c]!);

marked.use({
  renderer: {
    html: ({ text }) => (kPlainTag.test(text.trim()) ? text : escape(text)),
    image: ({ text, href }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
  },
});

const kRules = {
  ALLOWED_TAGS: [
    "a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "kbd", "li", "ol",
    "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "title", "align", "start", "class"],
};

export function showMarkdown(into: HTMLElement, text: string): void {
  into.innerHTML = DOMPurify.sanitize(marked.parse(text, { async: false }), kRules);
  for (const table of into.querySelectorAll("table")) {
    const box = element("div", { className: "table" });
    table.replaceWith(box);
    box.append(table);
  }
  for (const pre of into.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const language = /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "";
    const copying = button("Copy", () => void copy(code?.textContent ?? "", copying));
    const box = element("div", { className: "code" }, element("div", {}, element("span", { textContent: language }), copying));
    pre.replaceWith(box);
    pre.tabIndex = 0; // so that keys can scroll it
    box.append(pre);
  }
}
