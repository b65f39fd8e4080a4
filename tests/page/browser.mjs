// A server of `snug serve` and a browser that looks at it, for the tests and for the screenshots of the documentation.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const kRoot = new URL("../..", import.meta.url).pathname;
const kBuild = process.env.SNUG_BUILD ?? join(kRoot, "build/release");

/** The tests' random model, larger than that of other tests: its answers take long enough to be stopped. */
export function tinyModel() {
  const folder = mkdtempSync(join(tmpdir(), "snug-page-"));
  const path = join(folder, "tiny.gguf");
  execFileSync(join(kBuild, "write_tiny_model"), [path, "24", "8192"]);
  return { path, remove: () => rmSync(folder, { recursive: true }) };
}

/** Resolves with {url, stop}. */
export async function startServer(...options) {
  const server = spawn(join(kBuild, "snug"), ["serve", ...options, "--port", "0"], { stdio: ["ignore", "pipe", "pipe"] });
  let wrong = "";
  server.stderr.on("data", (text) => (wrong += text));
  const ended = new Promise((resolve) => server.once("exit", resolve));
  const line = await Promise.race([
    new Promise((resolve) => createInterface(server.stdout).once("line", resolve)),
    ended.then(() => Promise.reject(new Error(`snug serve ended: ${wrong}`))),
  ]);
  return {
    url: /page: (\S+)\)/.exec(line)[1],
    stop: () => {
      server.kill("SIGTERM");
      return ended;
    },
  };
}

export function startBrowser() {
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}
