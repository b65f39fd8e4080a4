// What the page asks of the server: nothing else is ever contacted.

import { settings, type Message } from "./store";

export interface RequestStatus {
  id: number;
  state: "waits" | "on disk" | "reads" | "writes";
  prompt: number;
  read: number;
  written: number;
  bytes: number;
}
/** A kept sequence: in the list's order it shares its first `shared` tokens with the one before it. */
export interface Kept {
  tokens: number;
  shared: number;
  bytes: number;
  own: number;
  seconds_ago: number;
}
export interface ServerEvent {
  seconds_ago: number;
  kind: string;
  what: string;
  times: number;
  tokens: number;
}
export interface Status {
  model: string;
  kv: string;
  context: number;
  budget: number | null;
  used: number;
  least: number;
  most: number;
  memory: Record<string, number>;
  weights_total: number;
  kv_forms: { tier: string; form: string; bytes: number }[];
  kv_running: number;
  kv_kept: number;
  waiting: number;
  running: number;
  prefixes: number;
  generated_tokens: number;
  prompt_tokens: number;
  cached_tokens: number;
  requests: RequestStatus[];
  kept: Kept[];
  events: ServerEvent[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens: number };
}
interface Chunk {
  error?: { message: string };
  choices?: { delta: { content?: string }; finish_reason: string | null }[];
  usage?: Usage | null;
}

async function ask(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = settings.key ? { Authorization: `Bearer ${settings.key}` } : {};
  const init: RequestInit = body === undefined ? { headers } : {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, signal ? { ...init, signal } : init);
  if (response.ok) return response;
  const text = await response.text();
  let message = text || `HTTP ${response.status}`;
  try {
    message = (JSON.parse(text) as { error: { message: string } }).error.message;
  } catch {
    // Not in the API's shape: as it is.
  }
  throw new Error(message);
}

export async function status(): Promise<Status> {
  return (await (await ask("snug/status")).json()) as Status;
}

export async function models(): Promise<string[]> {
  const list = (await (await ask("v1/models")).json()) as { data: { id: string }[] };
  return list.data.map((model) => model.id);
}

export async function resize(bytes: number): Promise<void> {
  await ask("snug/memory", { bytes });
}

export interface Answer {
  /** Why it ended, in the API's words. */
  reason: string;
  usage: Usage | null;
}

/** Calls `onText` with what is added, until the answer's end or until `signal` stops it. */
export async function answer(messages: Message[], signal: AbortSignal, onText: (text: string) => void): Promise<Answer> {
  const said = messages.map(({ role, content }) => ({ role, content }));
  const body: Record<string, unknown> = {
    messages: settings.system ? [{ role: "system", content: settings.system }, ...said] : said,
    stream: true,
    stream_options: { include_usage: true },
  };
  if (settings.model) body.model = settings.model;
  for (const [field, text] of [
    ["temperature", settings.temperature],
    ["top_p", settings.topP],
    ["max_tokens", settings.maxTokens],
    ["seed", settings.seed],
  ] as const)
    if (text !== "") body[field] = Number(text);
  const response = await ask("v1/chat/completions", body, signal);
  const result: Answer = { reason: "", usage: null };
  if (!response.body) return result;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return result;
    pending += value;
    const events = pending.split("\n\n");
    pending = events.pop() ?? "";
    for (const event of events) {
      if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
      const chunk = JSON.parse(event.slice(6)) as Chunk;
      if (chunk.error) throw new Error(chunk.error.message);
      if (chunk.usage) result.usage = chunk.usage;
      const choice = chunk.choices?.[0];
      if (choice?.finish_reason) result.reason = choice.finish_reason;
      if (choice?.delta.content) onText(choice.delta.content);
    }
  }
}
