// The pictures of the page in docs/, made anew: node tests/page/screenshots.mjs. Needs the model, and a minute.

import { startBrowser, startServer } from "./browser.mjs";

const kDocs = new URL("../../docs/", import.meta.url).pathname;
const kQuestions = [
  "Name three rivers.", "Explain mutexes.", "What is a B-tree?", "Write about memory.", "List prime numbers.", "How do I sort in Rust?",
  "What is RAID 5?", "Explain TCP.", "What is a monad?", "How does a compiler work?", "What is entropy?", "Explain DNS.",
];

const server = await startServer("qwen2.5-coder-0.5b", "--memory", "608MiB", "-c", "4096");
const browser = await startBrowser();
const page = await (await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: "light" })).newPage();
const picture = (name) => page.screenshot({ path: `${kDocs}page-${name}.png` });
const wait = (ms) => page.waitForTimeout(ms);
/** Others, who share a system prompt of some hundred tokens. */
const others = (from, to, tokens) => Promise.all(kQuestions.slice(from, to).map((question, i) => fetch(`${server.url}v1/chat/completions`, {
  method: "POST",
  body: JSON.stringify({
    messages: [{ role: "system", content: "You are a careful assistant of a small team, and answer at length. ".repeat(30) },
      { role: "user", content: `${question} ${"Give details. ".repeat(40)}` }],
    max_tokens: tokens + 30 * i,
    temperature: 0.8,
    seed: i,
  }),
}).then((answer) => answer.text())));
const scrollAside = (end) => page.evaluate((end) => {
  const aside = document.querySelector("aside");
  aside.scrollTop = end ? aside.scrollHeight : 0;
}, end);

await page.goto(server.url);
await page.waitForSelector("#legend li");
await page.locator("#parameters summary").click();
await page.getByLabel("Temperature").fill("0");
await page.getByLabel("Most tokens").fill("220");
await page.keyboard.press("Enter");
await page.locator("#parameters summary").click();
for (const question of ["What is a page table?", "Write a C function that reverses a string in place, and say in one sentence how it works."]) {
  await page.getByRole("button", { name: "New chat" }).first().click();
  await page.getByLabel("Message", { exact: true }).fill(question);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#messages li:last-child.assistant .note");
}
await page.mouse.move(600, 400);
await others(0, 5, 60);
const more = others(5, 12, 200);
await wait(7000);
await page.evaluate(() => (document.querySelector("#scroll").scrollTop = 0));
await picture("1280");
await more;
await wait(1500);
await page.getByLabel("Budget").focus();
for (let i = 0; i < 30; ++i) await page.keyboard.press("ArrowLeft");
do await wait(1000);
while (/on the way/.test(await page.locator("#budget-text").innerText()));
await page.getByLabel("Message", { exact: true }).focus();
await page.emulateMedia({ colorScheme: "dark" });
await scrollAside(true);
await wait(800);
await picture("1280-dark");
await scrollAside(false);
await page.emulateMedia({ colorScheme: "light" });
await page.setViewportSize({ width: 390, height: 844 });
await page.evaluate(() => (document.querySelector("#scroll").scrollTop = 0));
await picture("390");
await page.locator("#tabs").getByRole("button", { name: /^Memory/ }).click();
await wait(800);
await picture("390-memory");
await browser.close();
await server.stop();
