// What the page asks of the server: nothing else is ever contacted.

import { settings, type Message } from "./store";

export interface Status {
  model: string;
  kv: string;
  context: number;
  budget: number | null;
  used: number;
  most: number;
  memory: Record<string, number>;
  kv_running: number;
  waiting: number;
  running: number;
  prefixes: number;
  generated_tokens: number;
  prompt_tokens: number;
  cached_tokens: number;
  requests: { id: number; state: string; prompt: number; read: number; written: number; bytes: number }[];
  events: { seconds_ago: number; what: string }[];
}

function headers(): Record<string, string> {
  return { "Content-Type": "application/json", ...(settings.key ? { Authorization: `Bearer ${settings.key}` } : {}) };
}

async function failure(response: Response): Promise<Error> {
  const text = await response.text();
  try {
    return new Error((JSON.parse(text) as { error: { message: string } }).error.message);
  } catch {
    return new Error(text || `HTTP ${response.status}`);
  }
}

export async function status(): Promise<Status> {
  const response = await fetch("snug/status", { headers: headers() });
  if (!response.ok) throw await failure(response);
  return (await response.json()) as Status;
}

export async function resize(bytes: number): Promise<void> {
  const response = await fetch("snug/memory", { method: "POST", headers: headers(), body: JSON.stringify({ bytes }) });
  if (!response.ok) throw await failure(response);
}

/** Calls `onText` with what is added, until the answer's end or until `signal` stops it. */
export async function answer(messages: Message[], signal: AbortSignal, onText: (text: string) => void): Promise<void> {
  const all = settings.system ? [{ role: "system", content: settings.system }, ...messages] : messages;
  const body: Record<string, unknown> = { messages: all, stream: true };
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok || !response.body) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    pending += value;
    const events = pending.split("\n\n");
    pending = events.pop() ?? "";
    for (const event of events) {
      if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
      const json = JSON.parse(event.slice(6)) as { error?: { message: string }; choices?: { delta: { content?: string } }[] };
      if (json.error) throw new Error(json.error.message);
      const text = json.choices?.[0]?.delta.content;
      if (text) onText(text);
    }
  }
}
