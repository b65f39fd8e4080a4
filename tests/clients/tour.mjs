// The official npm package of openai on a tour of a running server: npm install openai; node tour.mjs http://127.0.0.1:8080

import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2].replace(/\/$/, "") + "/v1", apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const ask = { model, messages: [{ role: "user", content: "What is the capital of France? Answer in one word." }], max_tokens: 24, temperature: 0 };

const whole = await client.chat.completions.create(ask);
assert.match(whole.choices[0].message.content, /Paris/);
let text = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
assert.equal(text, whole.choices[0].message.content);
const schema = { type: "object", properties: { n: { type: "integer" } }, required: ["n"], additionalProperties: false };
const format = { type: "json_schema", json_schema: { name: "n", schema, strict: true } };
assert.equal(typeof JSON.parse((await client.chat.completions.create({ ...ask, max_tokens: 100, response_format: format })).choices[0].message.content).n, "number");
await assert.rejects(client.chat.completions.create({ ...ask, temperature: -1 }), (e) => e.status === 400 && e.param === "temperature");
const completion = await client.completions.create({ model, prompt: "The capital of France is the city of", max_tokens: 6, temperature: 0 });
assert.match(completion.choices[0].text, /Paris/);
console.log("5 steps");
