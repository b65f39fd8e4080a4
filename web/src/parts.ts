// What memory is used for: names, bytes, explanations.

import type { Status } from "./api";
import { bytesText, many } from "./text";

/** `kind`: names its colour and pattern. */
export interface Part {
  kind: "weights" | "work" | "program" | "kvother" | "requests" | "kept" | "free";
  name: string;
  bytes: number;
  about: string;
}

/** All parts, in the order in which they lie on the map: what changes most lies next to what is free. */
export function partsOf(s: Status): Part[] {
  const of = (tag: string): number => s.memory[tag] ?? 0;
  const running = Math.min(of("kv"), s.kv_running);
  const kept = Math.min(of("kv") - running, s.kv_kept);
  const missing = s.weights_total - of("weights");
  const parts: Part[] = [
    {
      kind: "weights", name: "Weights", bytes: of("weights"),
      about: missing > s.weights_total / 100
        ? `${bytesText(missing)} of the model's ${bytesText(s.weights_total)} have no room: they are read from the disk for every step.`
        : "The model's parameters, all of them in memory.",
    },
    {
      kind: "program", name: "Program", bytes: of("runtime") + of("tokenizer") + of("page_cache"),
      about: `Code, libraries and stacks ${bytesText(of("runtime"))}, tokenizer ${bytesText(of("tokenizer"))}.`,
    },
    {
      kind: "work", name: "Activations", bytes: of("activations") + of("scratch"),
      about: `What one step computes with: activations ${bytesText(of("activations"))}, scratch of the threads ${bytesText(of("scratch"))}.`,
    },
    {
      kind: "kvother", name: "KV: buffers", bytes: of("kv") - running - kept,
      about: "Parts of slabs that no page uses now, codecs' tables, buffers for the disk.",
    },
    {
      kind: "kept", name: "KV: kept", bytes: kept,
      about: `${many(s.prefixes, "beginning")} of prompts and answers, kept so that they need not be read again. They go first when room is needed.`,
    },
    {
      kind: "requests", name: "KV: requests", bytes: running,
      about: s.running > 0
        ? `Keys and values of the ${many(s.running, "request")} at work; what several share is counted once.`
        : "Keys and values of requests at work: there are none.",
    },
    { kind: "free", name: "Free", bytes: Math.max(0, (s.budget ?? s.used) - s.used), about: "Within the budget, and not used." },
  ];
  return parts;
}
