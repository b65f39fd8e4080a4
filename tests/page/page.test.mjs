// The page of `snug serve` in a real browser, against a real server with a random model.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { startBrowser, startServer, tinyModel } from "./browser.mjs";

let model, server, browser, context, page;
/** What no test may cause. */
let wrong = [];
/** The browser reports an answer of 4xx as an error of its own. */
const kRefused = /Failed to load resource.* 400/;
let mayRefuse = false;

function watch(page) {
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && !(mayRefuse && kRefused.test(message.text())) && wrong.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("request", (request) => request.url().startsWith(server.url) || request.url().startsWith("data:") || wrong.push(`request: ${request.url()}`));
}

before(async () => {
  model = tinyModel();
  server = await startServer(model.path, "--template", "chatml", "--memory", "256MiB");
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await server?.stop();
  model?.remove();
});
beforeEach(async () => {
  wrong = [];
  mayRefuse = false;
  context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
  page = await context.newPage();
  page.setDefaultTimeout(60_000);
  watch(page);
  await page.goto(server.url);
  await page.waitForSelector("#legend li");
});
afterEach(async () => {
  await context.close();
  assert.deepEqual(wrong, []);
});

const status = async () => (await fetch(`${server.url}snug/status`)).json();

async function until(what, f, most = 60_000) {
  for (const end = Date.now() + most; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50)))
    if (await f()) return;
  assert.fail(`in vain: ${what}`);
}

/** As people set it, such that the random model's answers have a length. */
async function answersOf(tokens) {
  await page.locator("#parameters summary").click();
  await page.getByLabel("Temperature").fill("0");
  await page.getByLabel("Most tokens").fill(String(tokens));
  await page.getByLabel("Seed").fill("1");
  await page.keyboard.press("Enter");
  await page.locator("#parameters summary").click();
}
async function ask(text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}
const answered = () => page.waitForSelector("#messages li:last-child.assistant .note");
const messages = (who) => page.locator(`#messages li.${who} .body`).allInnerTexts();
/** Squares of a part. */
const squares = async (kind) => ((await page.locator(`#map path.${kind}`).getAttribute("d")) ?? "").split("M").length - 1;
/** Answers in the server's place, for what a random model does not write. */
async function answerWith(text) {
  const events = [{ choices: [{ delta: { content: text }, finish_reason: null }] }, { choices: [{ delta: {}, finish_reason: "stop" }] }];
  const body = events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("") + "data: [DONE]\n\n";
  await page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body }));
}

test("an answer comes, and says what it took", async () => {
  await answersOf(20);
  const sent = page.waitForRequest("**/v1/chat/completions");
  await ask("Hello there");
  const body = (await sent).postDataJSON();
  assert.deepEqual(body.messages, [{ role: "user", content: "Hello there" }]);
  assert.deepEqual([body.temperature, body.max_tokens, body.seed, body.model], [0, 20, 1, "tiny"]);
  await answered();
  assert.deepEqual(await messages("user"), ["Hello there"]);
  assert.ok((await messages("assistant"))[0].length > 0);
  assert.match(await page.locator(".note").innerText(), /20 tokens · \d+ tokens\/s · first after \d/);
  assert.equal(await page.locator("#chat-list [aria-current] button").first().innerText(), "Hello there");
});

test("what the API refuses is shown, and can be asked again", async () => {
  mayRefuse = true;
  await answersOf(5);
  await ask("too long ".repeat(2000));
  await page.waitForSelector(".error");
  assert.match(await page.locator(".error").innerText(), /the context of/);
  await page.getByRole("button", { name: "Edit" }).click();
  await page.getByLabel("Change the message").fill("Shorter");
  await page.locator(".edit").getByRole("button", { name: "Send" }).click();
  await answered();
  assert.deepEqual(await messages("user"), ["Shorter"]);
});

test("markdown and code are shown, and nothing else runs", async () => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await answerWith("# Title\n\n- one\n- two\n\n```c\nint x = 1 < 2;\n```\n\n|a|b|\n|-|-|\n|1|2|\n\n[link](https://example.org/) H<sub>2</sub>O ![image](https://example.org/y.png) " +
    "<img src=https://example.org/x.png onerror=alert(1)><script>document.title='bad'</script><style>body{display:none}</style>" +
    "<a href='javascript:alert(1)'>bad</a><p style='position:fixed' class='skip' onclick='alert(1)'>text</p>");
  await ask("Show me");
  await page.waitForSelector(".assistant pre");
  const body = page.locator(".assistant .body");
  assert.deepEqual(await body.locator("li").allInnerTexts(), ["one", "two"]);
  assert.equal(await body.locator("h1").innerText(), "Title");
  assert.equal(await body.locator("td").count(), 2);
  assert.equal(await body.locator("sub").innerText(), "2");
  assert.match(await body.innerText(), /<script>document/);  // talked about, not run
  assert.equal(await body.locator("img, script, style, [style], [onclick], .skip, [href^='javascript']").count(), 0);
  assert.equal(await body.locator("a[href='https://example.org/']").getAttribute("rel"), "noopener noreferrer");
  assert.equal(await page.title(), "snug");
  await body.getByRole("button", { name: "Copy" }).click();
  await body.getByRole("button", { name: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "int x = 1 < 2;\n");
});

test("stop ends an answer here and on the server, and keeps what has come", async () => {
  await answersOf(6000);
  await ask("Write without end");
  await until("text", async () => ((await messages("assistant"))[0] ?? "").length > 20);
  assert.equal((await status()).running, 1);
  await page.getByRole("button", { name: "Stop" }).click();
  await answered();
  assert.equal(await page.locator(".note").innerText(), "stopped");
  await until("an end on the server", async () => (await status()).running === 0);
  const [text] = await messages("assistant");
  assert.ok(text.length > 20);
  await page.waitForTimeout(500);
  assert.equal((await messages("assistant"))[0], text);
  await page.getByRole("button", { name: "Send" }).waitFor();
});

test("regenerate asks the same again in place of the last answer", async () => {
  await answersOf(12);
  await ask("First");
  await answered();
  await ask("Second");
  await until("two answers", async () => (await page.locator(".assistant .note").count()) === 2);
  const [first, second] = await messages("assistant");
  assert.equal(await page.getByRole("button", { name: "Regenerate" }).count(), 1);
  const sent = page.waitForRequest("**/v1/chat/completions");
  await page.getByRole("button", { name: "Regenerate" }).click();
  const asked = (await sent).postDataJSON().messages;
  assert.deepEqual(asked.map((message) => message.role), ["user", "assistant", "user"]);
  assert.deepEqual([asked[0].content, asked[2].content], ["First", "Second"]);
  await until("another answer", async () => (await page.locator(".assistant .note").count()) === 2);
  assert.deepEqual(await messages("assistant"), [first, second]);
});

test("a message can be changed, and what came after it goes", async () => {
  await answersOf(12);
  await ask("First");
  await answered();
  await ask("Second");
  await until("two answers", async () => (await page.locator(".assistant .note").count()) === 2);
  await page.getByRole("button", { name: "Edit" }).first().click();
  await page.keyboard.press("Escape");
  assert.deepEqual(await messages("user"), ["First", "Second"]);
  await page.getByRole("button", { name: "Edit" }).first().click();
  await page.getByLabel("Change the message").fill("Instead");
  await page.keyboard.press("Enter");
  await answered();
  assert.deepEqual(await messages("user"), ["Instead"]);
  assert.equal((await messages("assistant")).length, 1);
});

test("conversations survive a reload; they can be renamed, deleted and brought back", async () => {
  await answersOf(8);
  await ask("Rivers of Europe");
  await answered();
  const text = await messages("assistant");
  await page.getByRole("button", { name: "New chat" }).first().click();
  await ask("Mountains of Asia");
  await answered();
  const titles = () => page.locator("#chat-list li > button:first-child").allInnerTexts();
  await page.reload();
  await page.waitForSelector("#chat-list li");
  assert.deepEqual(await titles(), ["Mountains of Asia", "Rivers of Europe"]);
  assert.equal(await page.getByLabel("Most tokens").inputValue(), "8");
  await page.getByRole("button", { name: "Rivers of Europe", exact: true }).click();
  assert.deepEqual(await messages("assistant"), text);

  await page.getByRole("button", { name: "Rename “Rivers of Europe”" }).click();
  await page.getByLabel("Name of the conversation").fill("Water");
  await page.keyboard.press("Enter");
  await page.reload();
  await page.waitForSelector("#chat-list li");
  assert.deepEqual(await titles(), ["Mountains of Asia", "Water"]);

  await page.locator("#chat-list li").nth(1).hover();
  await page.getByRole("button", { name: "Delete “Water”" }).click();
  assert.deepEqual(await titles(), ["Mountains of Asia"]);
  await page.getByRole("button", { name: "Undo" }).click();
  assert.deepEqual(await titles(), ["Mountains of Asia", "Water"]);
  await page.getByRole("button", { name: "Delete “Water”" }).click();
  await page.reload();
  await page.waitForSelector("#chat-list li");
  assert.deepEqual(await titles(), ["Mountains of Asia"]);
});

test("two tabs keep each other's conversations", async () => {
  await answersOf(8);
  const other = await context.newPage();
  watch(other);
  await other.goto(server.url);
  await ask("From one tab");
  await answered();
  await other.getByRole("button", { name: "From one tab", exact: true }).click();
  assert.deepEqual(await other.locator(".user .body").allInnerTexts(), ["From one tab"]);
});

test("several conversations are answered at once", async () => {
  await answersOf(6000);
  await ask("The first of two");
  await page.getByRole("button", { name: "New chat" }).first().click();
  await ask("The second of two");
  await until("two at work", async () => (await status()).running === 2);
  await page.waitForSelector("#requests li.writes >> nth=1");
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByRole("button", { name: "The first of two", exact: true }).click();
  await page.getByRole("button", { name: "Stop" }).click();
  await until("nobody at work", async () => (await status()).running === 0);
});

test("the memory map moves under load", async () => {
  await answersOf(6000);
  await until("no request's memory", async () => (await squares("requests")) === 0);
  const free = await squares("free");
  assert.ok(free > 0 && (await squares("weights")) > 0);
  await ask("Fill the cache");
  await until("memory of a request", async () => (await squares("requests")) > 5 && (await squares("free")) < free);
  const numbers = await page.locator("#legend").innerText();
  assert.match(numbers, /KV: requests\s+[\d.]+ MiB/);
  await until("a speed", async () => /writing\s+[1-9]/.test(await page.locator("#figures").innerText()));
  // Another budget, meanwhile.
  const { budget } = await status();
  await page.getByLabel("Budget").focus();
  for (let i = 0; i < 20; ++i) await page.keyboard.press("ArrowLeft");
  await until("a smaller budget", async () => (await status()).budget < budget);
  assert.equal((await status()).running, 1);
  await page.getByRole("button", { name: "Stop" }).click();
  await until("what was at work is kept", async () => (await squares("requests")) === 0 && (await squares("kept")) > 5);
  // The picture, the numbers and the server say the same.
  const s = await status();
  const sum = s.kv_forms.filter((form) => form.tier === "memory").reduce((total, form) => total + form.bytes, 0);
  assert.equal(s.kv_kept + s.kv_running, sum);
  const all = ["weights", "program", "work", "kvother", "kept", "requests", "free"];
  const counts = await Promise.all(all.map(squares));
  assert.equal(counts.reduce((total, count) => total + count), 600);
  assert.match(await page.locator("#map svg").getAttribute("aria-label"), /KV: kept [\d.]+ MiB/);
});

test("the map follows the slider, and so does the server", async () => {
  mayRefuse = true;
  const before = await status();
  const free = await squares("free");
  await page.getByLabel("Budget").focus();
  for (let i = 0; i < 40; ++i) await page.keyboard.press("ArrowLeft");
  await until("a smaller budget", async () => (await status()).budget < before.budget * 0.95);
  await until("less that is free", async () => (await squares("free")) < free);
  await until("an event", async () => /Budget/.test(await page.locator("#events").innerText()));
  assert.match(await page.locator("#headline").innerText(), /of \d+ MiB used/);
  // Too little is refused with a reason, and the slider goes back to what is.
  const { budget } = await status();
  await page.route("**/snug/memory", async (route) => route.continue({ postData: JSON.stringify({ bytes: 4096 }) }));
  await page.keyboard.press("ArrowLeft");
  await until("a reason", async () => /too small/.test(await page.locator("#budget-error").innerText()));
  assert.equal((await status()).budget, budget);
  await page.unroute("**/snug/memory");
  await page.keyboard.press("End");
  await until("a larger budget", async () => (await status()).budget > before.budget);
  await until("no reason any more", async () => (await page.locator("#budget-error").innerText()) === "");
});

test("what is kept goes when the budget shrinks, and the page says so", async () => {
  await answersOf(600);
  await ask("Something long that is kept");
  await answered();
  const before = await status();
  assert.ok(before.kept.length > 0);
  await until("the tree", async () => (await page.locator("#tree rect").count()) > 0);
  assert.match(await page.locator("#tree-text").innerText(), /\d+ sequences?/);
  await page.getByLabel("Budget").focus();
  await page.keyboard.press("Home");
  await until("an event", async () => /(Evicted|To disk)[\s\S]*the budget became smaller/.test(await page.locator("#events").innerText()));
  const inMemory = (s) => s.kept.reduce((bytes, kept) => bytes + kept.bytes, 0);
  assert.ok(inMemory(await status()) < inMemory(before));
  await page.keyboard.press("End");
});

test("hover and focus explain a part of the map", async () => {
  await page.getByRole("button", { name: /^Weights/ }).focus();
  assert.match(await page.locator("#detail").innerText(), /^Weights, (< 1|\d+) % of the budget\. .*parameters/);
  assert.ok(await page.locator("#map path.weights.on").count());
  // Its last row begins on the left; its first may begin anywhere.
  const free = page.locator("#map path.free");
  await free.hover({ position: { x: 4, y: (await free.boundingBox()).height - 4 } });
  assert.match(await page.locator("#detail").innerText(), /^Free/);
  // What is drawn anew all the time must not take the focus away.
  await page.getByRole("button", { name: /^Program/ }).focus();
  await page.waitForTimeout(2000);
  assert.equal(await page.evaluate(() => document.activeElement.textContent.startsWith("Program")), true);
});

test("everything can be done with the keyboard", async () => {
  await answersOf(6000);
  await page.reload();
  await page.waitForSelector("#legend li");
  const focused = () => page.evaluate(() => document.activeElement.textContent || document.activeElement.id);
  await page.keyboard.press("Tab");
  assert.match(await focused(), /Skip/);
  await page.keyboard.press("Enter");
  await page.keyboard.type("Asked by keys");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("in two lines");
  await page.keyboard.press("Enter");
  await until("text", async () => ((await messages("assistant"))[0] ?? "").length > 0);
  assert.deepEqual(await messages("user"), ["Asked by keys\nin two lines"]);
  await page.keyboard.press("Escape");
  await answered();
  const tabTo = async (name, key = "Tab") => {
    for (let i = 0; i < 40; ++i) {
      await page.keyboard.press(key);
      if ((await page.evaluate(() => document.activeElement.getAttribute("aria-label") || document.activeElement.textContent)).startsWith(name)) return;
    }
    assert.fail(`${name} cannot be reached`);
  };
  await tabTo("Edit", "Shift+Tab");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("Changed by keys");
  await page.keyboard.press("Enter");
  await until("text", async () => ((await messages("assistant"))[0] ?? "").length > 0);
  await page.keyboard.press("Escape");
  await answered();
  assert.deepEqual(await messages("user"), ["Changed by keys"]);
  await page.keyboard.press("Alt+n");
  assert.equal(await page.locator("#messages li").count(), 0);
  await tabTo("Changed by keys", "Shift+Tab");
  await page.keyboard.press("Tab");
  assert.match(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), /^Rename/);
  await page.keyboard.press("Enter");
  await page.keyboard.type("Keys");
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "Keys");
  await tabTo("Delete");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Undo" }).waitFor();
  await page.keyboard.press("Control+Home");
  await page.locator("#theme").focus();
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "question");
});

test("a phone's width is enough for everything", async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  await answerWith("A " + "very".repeat(60) + " long word, `" + "code".repeat(50) + "`\n\n```\n" + "wide ".repeat(80) + "\n```\n\n|" + " column |".repeat(14) + "\n|" + "-|".repeat(14) + "\n|" + " value |".repeat(14) + "\n");
  await ask("w".repeat(300));
  await page.waitForSelector(".assistant pre");
  for (const name of ["Chats", "Chat", "Memory"]) {
    await page.locator("#tabs").getByRole("button", { name, exact: name !== "Memory" }).click();
    const wide = await page.evaluate(() => {
      const found = document.documentElement.scrollWidth > innerWidth ? ["html"] : [];
      for (const part of document.querySelectorAll("header, #tabs, nav, #scroll, aside"))
        if (part.clientWidth > 0 && part.scrollWidth > part.clientWidth) found.push(part.id || part.tagName);
      return found;
    });
    assert.deepEqual(wide, [], name);
  }
  await page.locator("#map").waitFor();
  await page.locator("#tabs").getByRole("button", { name: "Chat", exact: true }).click();
  await page.getByLabel("Message", { exact: true }).waitFor();
});

test("light and dark: chosen, kept, and readable", async () => {
  const contrasts = () => page.evaluate(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgb = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
      const v = c[i] / 255;
      return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    }, 0);
    const ground = (node) => {
      for (; node; node = node.parentElement) {
        const c = rgb(getComputedStyle(node).backgroundColor);
        if (c[3] === 255) return c;
      }
      return rgb(getComputedStyle(document.documentElement).backgroundColor);
    };
    const low = [];
    for (const node of document.querySelectorAll("body *")) {
      const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
      if (!own || !node.checkVisibility({ opacityProperty: true }) || node.closest("svg, .hidden, option")) continue;
      const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) low.push(`${node.tagName}.${node.className} ${node.textContent.slice(0, 20)}: ${ratio.toFixed(2)}`);
    }
    return { low, ground: getComputedStyle(document.documentElement).backgroundColor };
  });
  await answersOf(5);
  await ask("Colours");
  await answered();
  await page.locator("#theme").click();
  const light = await contrasts();
  await page.locator("#theme").click();
  const dark = await contrasts();
  assert.deepEqual([light.low, dark.low], [[], []]);
  assert.notEqual(light.ground, dark.ground);
  await page.reload();
  assert.equal((await contrasts()).ground, dark.ground);
  await page.locator("#theme").click();
  await page.emulateMedia({ colorScheme: "light" });
  assert.equal((await contrasts()).ground, light.ground);
});

test("a server that wants a key is given it, and one that has gone is missed", async () => {
  const own = await startServer(model.path, "--template", "chatml", "--api-key", "secret");
  const other = await context.newPage();
  const errors = [];
  other.on("pageerror", (error) => errors.push(error.message));
  await other.goto(own.url);
  await other.getByText("the API key is missing or wrong").waitFor();
  await other.locator("#parameters summary").click();
  await other.getByLabel("API key").fill("secret");
  await other.keyboard.press("Enter");
  await other.waitForSelector("#legend li");
  await until("the model's name", async () => (await other.locator("#model").inputValue()) === "tiny");
  assert.equal(await other.locator("#offline").innerText(), "");
  await own.stop();
  await other.getByText("The server does not answer.").waitFor();
  assert.deepEqual(errors, []);
});

test("the first load is small, compressed, and from here alone", async () => {
  const other = await context.newPage();
  watch(other);
  const session = await context.newCDPSession(other);
  await session.send("Network.enable");
  let bytes = 0;
  session.on("Network.loadingFinished", (event) => (bytes += event.encodedDataLength));
  const response = await other.goto(server.url);
  assert.equal(response.headers()["content-encoding"], "gzip");
  assert.match(response.headers()["content-security-policy"], /default-src 'none'/);
  await other.waitForSelector("#legend li");
  console.log(`first load: ${bytes} bytes`);
  assert.ok(bytes > 10_000 && bytes <= 300 * 1024, `${bytes} bytes`);
  // Who does not take gzip gets it as it is.
  const plain = await fetch(server.url, { headers: { "Accept-Encoding": "identity" } });
  assert.equal(plain.headers.get("content-encoding"), null);
  assert.match(await plain.text(), /^<!doctype html>/);
});
