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
const several = await client.completions.create({ model, prompt: ["The capital of France is", "The capital of Italy is"], max_tokens: 4, temperature: 0 });
assert.match(several.choices[1].text, /Rome/);
const input = ask.messages[0].content;
const response = await client.responses.create({ model, input, temperature: 0, max_output_tokens: 24 });
assert.equal(response.output_text, text);
const stream = client.responses.stream({ model, input, temperature: 0, max_output_tokens: 24 });
let streamed = "";
stream.on("response.output_text.delta", (event) => (streamed += event.delta));
assert.equal((await stream.finalResponse()).output_text, text);
assert.equal(streamed, text);
const next = await client.responses.create({ model, input: "And of Italy?", previous_response_id: response.id, temperature: 0, max_output_tokens: 24 });
assert.match(next.output_text, /Rome/);
const embeddings = (await client.embeddings.create({ model, input: ["Hello", "World"] })).data;
assert.equal(embeddings.length, 2);
assert.ok(Math.abs(embeddings[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-4);
await assert.rejects(client.embeddings.create({ model, input: "word ".repeat(60000) }), (e) => e.status === 400 && e.code === "context_length_exceeded");
console.log("11 steps");
