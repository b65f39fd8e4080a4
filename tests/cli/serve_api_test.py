"""snug serve: what goes beyond chat: responses, embeddings, infill, thoughts, sessions; readiness, origins, logs, configuration."""

import base64
import contextlib
import http.client
import json
import math
import os
import signal
import struct
import subprocess
import threading
import time

from serve_support import CHAT, ServeTest
from support import SNUG, main

WEATHER = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"], "additionalProperties": False}
# A model that begins in the middle of a thought.
THINKING_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: <think>\n"


class Responses(ServeTest):
    ASK = {"input": "Hello", "max_output_tokens": 12, "temperature": 0, "ignore_eos": True}

    def events(self, body):
        connection = self.connect()
        connection.request("POST", "/v1/responses", json.dumps(body | {"stream": True}).encode())
        response = connection.getresponse()
        self.assertEqual((response.status, response.getheader("content-type")), (200, "text/event-stream"))
        events = []
        for block in response.read().decode().split("\n\n")[:-1]:
            name, data = block.split("\n")
            event = json.loads(data.removeprefix("data: "))
            self.assertEqual((name, event["sequence_number"]), ("event: " + event["type"], len(events)))
            events.append(event)
        return events

    def test_whole_and_as_a_stream(self):
        self.start()
        status, whole = self.ask("/v1/responses", self.ASK | {"metadata": {"a": "b"}, "tools": [{"type": "web_search"}]})
        self.assertEqual(status, 200, whole)
        self.assertEqual((whole["object"], whole["status"], whole["incomplete_details"]), ("response", "incomplete", {"reason": "max_output_tokens"}))
        self.assertEqual((whole["metadata"], whole["tools"]), ({"a": "b"}, []))
        text = whole["output"][0]["content"][0]["text"]
        self.assertEqual(text, self.ask("/v1/chat/completions", CHAT)[1]["choices"][0]["message"]["content"])
        self.assertEqual((whole["usage"]["output_tokens"], whole["usage"]["total_tokens"]), (12, whole["usage"]["input_tokens"] + 12))
        events = self.events(self.ASK)
        kinds = [e["type"].removeprefix("response.") for e in events]
        self.assertEqual(kinds[:4], ["created", "in_progress", "output_item.added", "content_part.added"])
        self.assertEqual(kinds[-4:], ["output_text.done", "content_part.done", "output_item.done", "incomplete"])
        self.assertEqual("".join(e["delta"] for e in events if "delta" in e), text)
        last = events[-1]["response"]
        self.assertEqual((last["id"], last["output"][0]["content"][0]["text"]), (events[0]["response"]["id"], text))
        self.assertGreater(last["usage"]["input_tokens_details"]["cached_tokens"], 0)

    def test_formats_and_functions(self):
        self.start("-c", "2048")
        format = {"type": "json_schema", "name": "x", "schema": WEATHER, "strict": True}
        whole = self.ask("/v1/responses", self.ASK | {"max_output_tokens": 150, "text": {"format": format}})[1]
        self.assertEqual(whole["status"], "completed")
        self.assertIn(json.loads(whole["output"][0]["content"][0]["text"])["city"], ("Rome", "Oslo"))
        tools = [{"type": "function", "name": "weather", "parameters": WEATHER}, {"type": "strange"}]
        body = self.ASK | {"max_output_tokens": 200, "tools": tools, "tool_choice": "required", "instructions": "Be brief."}
        whole = self.ask("/v1/responses", body)[1]
        call = whole["output"][0]
        self.assertEqual((whole["status"], len(whole["output"]), call["type"], call["name"]), ("completed", 1, "function_call", "weather"))
        self.assertIn(json.loads(call["arguments"])["city"], ("Rome", "Oslo"))
        events = self.events(body | {"tool_choice": {"type": "function", "name": "weather"}})
        done = [e for e in events if e["type"] == "response.function_call_arguments.done"]
        self.assertEqual([e["arguments"] for e in done], [call["arguments"]])
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        again = self.ask("/v1/responses", self.ASK | {"tools": tools, "input": [{"role": "user", "content": "Hello"}, call, result]})
        self.assertEqual(again[0], 200, again)
        following = self.ask("/v1/responses", self.ASK | {"tools": tools, "input": [result], "previous_response_id": whole["id"]})[1]
        self.assertEqual(following["usage"]["input_tokens"], again[1]["usage"]["input_tokens"])

    def test_one_goes_on_from_another(self):
        self.start("--api-key", "one", "--api-key", "two")
        key = {"Authorization": "Bearer one"}
        ask = lambda **more: self.ask("/v1/responses", self.ASK | more, more.pop("headers", key))
        first = ask()[1]
        said = {"role": "assistant", "content": first["output"][0]["content"][0]["text"]}
        all_of_it = ask(input=[{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}, said, {"role": "user", "content": "More"}], store=False)[1]
        second = ask(input="More", previous_response_id=first["id"])[1]
        self.assertEqual(second["usage"]["input_tokens"], all_of_it["usage"]["input_tokens"])
        self.assertEqual(second["output"][0]["content"], all_of_it["output"][0]["content"])
        self.assertEqual(second["previous_response_id"], first["id"])
        for other in (ask(previous_response_id=all_of_it["id"]), ask(previous_response_id="resp_1"),
                      ask(previous_response_id=first["id"], headers={"Authorization": "Bearer two"})):
            self.assert_refused(400, other, "previous_response_not_found", "not kept")

    def test_what_is_wrong_is_said(self):
        self.start("-c", "64")
        ask = lambda **changes: self.ask("/v1/responses", self.ASK | changes)
        self.assert_refused(400, ask(input=None), "invalid_value", "input")
        self.assert_refused(400, ask(input=[]), "invalid_value", "input")
        self.assert_refused(400, ask(input=[{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]), "invalid_value", "text")
        self.assert_refused(400, ask(input=[{"type": "item_reference", "id": "x"}]), "invalid_value", "previous_response_id")
        self.assert_refused(400, ask(input="long " * 100), "context_length_exceeded")
        self.assert_refused(400, ask(background=True), "invalid_value", "background")
        self.assert_refused(400, ask(text={"format": {"type": "strange"}}), "invalid_value")
        self.assertEqual(ask(input=[{"role": "user", "content": "Hello"}, {"type": "reasoning", "id": "x", "summary": []}])[0], 200)


class Embeddings(ServeTest):
    def test_openai(self):
        self.start()
        ask = lambda **body: self.ask("/v1/embeddings", body)
        status, one = ask(input="hello there")
        self.assertEqual(status, 200, one)
        vector = one["data"][0]["embedding"]
        self.assertEqual((one["object"], one["usage"]["prompt_tokens"], len(vector)), ("list", one["usage"]["total_tokens"], 256))
        self.assertAlmostEqual(sum(v * v for v in vector), 1, 4)
        many = ask(input=["something else", "hello there"])[1]["data"]
        self.assertEqual([d["index"] for d in many], [0, 1])
        for a, b in zip(many[1]["embedding"], vector):
            self.assertAlmostEqual(a, b, 5)
        coded = ask(input="hello there", encoding_format="base64")[1]["data"][0]["embedding"]
        self.assertEqual([f for f in struct.unpack("<256f", base64.b64decode(coded))], [struct.unpack("<f", struct.pack("<f", v))[0] for v in vector])
        short = ask(input="hello there", dimensions=10)[1]["data"][0]["embedding"]
        scale = math.sqrt(sum(v * v for v in vector[:10]))
        for a, b in zip(short, vector[:10]):
            self.assertAlmostEqual(a, b / scale, 4)
        tokens = ask(input=[[1, 2, 3], [4]])[1]
        self.assertEqual((len(tokens["data"]), tokens["usage"]["prompt_tokens"]), (2, 4))
        self.assertEqual(tokens["data"][1]["embedding"], ask(input=[4])[1]["data"][0]["embedding"])
        for wrong in ({}, {"input": []}, {"input": ""}, {"input": [1, "a"]}, {"input": [99999]}, {"input": "a", "dimensions": 300}, {"input": "a", "encoding_format": "x"}):
            self.assert_refused(400, ask(**wrong), "invalid_value")
        self.assert_refused(400, ask(input=[1] * 3000), "context_length_exceeded")

    def test_ollama_and_beside_chats(self):
        self.start()
        vector = self.ask("/v1/embeddings", {"input": "hello"})[1]["data"][0]["embedding"]
        many = self.ask("/api/embed", {"model": "model", "input": ["hello", "you"]})[1]
        self.assertEqual((len(many["embeddings"]), many["model"]), (2, "model"))
        self.assertGreater(many["prompt_eval_count"], 0)
        older = self.ask("/api/embeddings", {"model": "model", "prompt": "hello"})[1]["embedding"]
        for a, b, c in zip(vector, many["embeddings"][0], older):
            self.assertAlmostEqual(a, b, 5)
            self.assertAlmostEqual(a, c, 5)
        self.assertEqual(self.ask("/api/embed", {"input": "long " * 1000})[0], 200)
        status, error = self.ask("/api/embed", {"input": "long " * 1000, "truncate": False})
        self.assertEqual((status, list(error)), (400, ["error"]))
        chats, whole = [], self.ask("/v1/chat/completions", CHAT | {"max_tokens": 100})[1]["choices"][0]["message"]
        threads = [threading.Thread(target=lambda: chats.append(self.ask("/v1/chat/completions", CHAT | {"max_tokens": 100}))) for _ in range(4)]
        for t in threads:
            t.start()
        inputs = [f"number {i} " * 20 for i in range(40)]
        beside = self.ask("/v1/embeddings", {"input": inputs})[1]["data"]
        for t in threads:
            t.join()
        self.assertEqual([c[1]["choices"][0]["message"] for c in chats], [whole] * 4)
        for i in (0, 39):
            for a, b in zip(beside[i]["embedding"], self.ask("/v1/embeddings", {"input": inputs[i]})[1]["data"][0]["embedding"]):
                self.assertAlmostEqual(a, b, 5)


class Completions(ServeTest):
    def test_several_prompts_and_choices(self):
        self.start()
        body = {"prompt": ["One", "Some more", [1, 2, 3]], "n": 2, "max_tokens": 8, "temperature": 1, "seed": 3, "ignore_eos": True, "echo": True}
        whole = self.ask("/v1/completions", body)[1]
        self.assertEqual([c["index"] for c in whole["choices"]], list(range(6)))
        self.assertEqual([c["text"].startswith("Some more") for c in whole["choices"]], [False] * 2 + [True] * 2 + [False] * 2)
        self.assertEqual((whole["usage"]["completion_tokens"], whole["usage"]["prompt_tokens"]), (48, len("One") + len("Some more") + 3))
        texts = [""] * 6
        for piece in self.stream("/v1/completions", body):
            texts[piece["choices"][0]["index"]] += piece["choices"][0]["text"]
        self.assertEqual(texts, [c["text"] for c in whole["choices"]])
        self.assertEqual(self.ask("/v1/completions", body | {"best_of": 2})[0], 200)
        self.assert_refused(400, self.ask("/v1/completions", body | {"best_of": 3}), "invalid_value", "best_of")
        self.assert_refused(400, self.ask("/v1/completions", body | {"n": 128, "prompt": ["x"] * 20}), "invalid_value", "at most")
        self.assert_refused(400, self.ask("/v1/completions", body | {"prompt": ["x", 1]}), "invalid_value", "prompt")
        self.assert_refused(400, self.ask("/v1/completions", body | {"prompt": ["x", "long " * 1000]}), "context_length_exceeded")

    def test_logit_bias(self):
        self.start()
        body = {"prompt": "One", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
        self.assertEqual(self.ask("/v1/completions", body | {"logit_bias": {"65": 100}})[1]["choices"][0]["text"], "AAAA")
        free = self.ask("/v1/completions", body | {"prompt": [1], "max_tokens": 1, "logprobs": 1})[1]["choices"][0]["logprobs"]["tokens"][0]
        if len(free) == 1 and free.isascii():
            self.assertNotEqual(self.ask("/v1/completions", body | {"prompt": [1], "max_tokens": 1, "logit_bias": {str(ord(free)): -100}})[1]["choices"][0]["text"], free)
        chat = CHAT | {"max_tokens": 3, "logit_bias": {"66": 100}, "parallel_tool_calls": False}
        self.assertEqual(self.ask("/v1/chat/completions", chat)[1]["choices"][0]["message"]["content"], "BBB")
        for wrong in ({"x": 1}, {"99999": 1}, {"1": 101}, {"1": "x"}, [1]):
            self.assert_refused(400, self.ask("/v1/completions", body | {"logit_bias": wrong}), "invalid_value", "logit_bias")

    def test_infill_needs_a_model_for_it(self):
        self.start()
        self.assert_refused(400, self.ask("/v1/completions", {"prompt": "a", "suffix": "b"}), "unsupported_value", "middle")
        status, error = self.ask("/infill", {"input_prefix": "a", "input_suffix": "b"})
        self.assertEqual((status, sorted(error["error"]), error["error"]["code"]), (400, ["code", "message", "type"], 400))
        self.assertIn("middle", self.ask("/api/generate", {"prompt": "a", "suffix": "b", "stream": False})[1]["error"])

    def test_how_keys_and_values_are_kept(self):
        self.start("--kv", "q8")
        for body, path in ((CHAT, "/v1/chat/completions"), ({"input": "a"}, "/v1/embeddings"), ({"prompt": "a"}, "/v1/completions"),
                           ({"input": "a", "max_output_tokens": 4}, "/v1/responses"), (CHAT, "/v1/messages"), (CHAT | {"stream": False}, "/api/chat")):
            ask = lambda **more: self.ask(path, body | more)
            self.assertEqual([ask(kv="q8")[0], ask(kv="q8/q8", kv_policy="none")[0]], [200, 200], path)
            for wrong, word in ((ask(kv="bf16"), "as q8"), (ask(kv="strange"), "strange"), (ask(kv_policy="snapkv"), "kv_policy")):
                self.assertEqual(wrong[0], 400)
                self.assertIn(word, json.dumps(wrong[1]))


class Thoughts(ServeTest):
    def test_a_thought_and_what_is_said(self):
        self.start("-c", "512")
        pattern = {"type": "regex", "pattern": "<think>[a-z]{5}</think>[0-9]{3}"}
        body = CHAT | {"max_tokens": 100, "temperature": 1, "seed": 1, "response_format": pattern}
        whole = self.ask("/v1/chat/completions", body)[1]
        message = whole["choices"][0]["message"]
        self.assertRegex(message["reasoning_content"], r"\A[a-z]{5}\Z")
        self.assertRegex(message["content"], r"\A[0-9]{3}\Z")
        tokens = whole["usage"]
        self.assertIn(tokens["completion_tokens_details"]["reasoning_tokens"], range(5, tokens["completion_tokens"]))
        deltas = [p["choices"][0]["delta"] for p in self.stream("/v1/chat/completions", body)]
        self.assertEqual("".join(d.get("reasoning_content", "") for d in deltas), message["reasoning_content"])
        self.assertEqual("".join(d.get("content", "") for d in deltas), message["content"])
        ask = {"input": "Hello", "temperature": 1, "seed": 1, "text": {"format": pattern}}
        items = self.ask("/v1/responses", ask)[1]["output"]
        self.assertEqual([(i["type"], i["content"][0]["text"]) for i in items], [("reasoning", message["reasoning_content"]), ("message", message["content"])])

    def test_a_thought_that_the_prompt_began(self):
        self.start("--template", self.write("thinking.jinja", THINKING_TEMPLATE.encode()))
        message = self.ask("/v1/chat/completions", CHAT)[1]["choices"][0]["message"]
        self.assertEqual(message["content"], "")
        self.assertNotEqual(message["reasoning_content"], "")
        whole = self.ask("/v1/messages", {"max_tokens": 12, "temperature": 0, "messages": CHAT["messages"]})[1]
        self.assertEqual([b["type"] for b in whole["content"]], ["thinking"])
        connection = self.connect()
        connection.request("POST", "/v1/messages", json.dumps({"max_tokens": 12, "temperature": 0, "messages": CHAT["messages"], "stream": True}).encode())
        deltas = [json.loads(e.split("\ndata: ")[1]) for e in connection.getresponse().read().decode().split("\n\n")[:-1]]
        self.assertEqual("".join(d["delta"]["thinking"] for d in deltas if d["type"] == "content_block_delta"), whole["content"][0]["thinking"])
        options = {"temperature": 0, "num_predict": 12}
        for path, field in (("/api/chat", "message"), ("/api/generate", None)):
            body = {"messages": CHAT["messages"], "prompt": "Hello", "options": options, "stream": False}
            said = self.ask(path, body)[1]
            self.assertNotEqual((said[field] if field else said)["thinking"], "")
        answer = self.ask("/v1/chat/completions", CHAT | {"response_format": {"type": "regex", "pattern": "[0-9]{3}"}})[1]["choices"][0]["message"]
        self.assertRegex(answer["content"], r"\A[0-9]{3}\Z")


class Sessions(ServeTest):
    def test_saved_and_restored(self):
        folder = self.path("sessions")
        self.start("--sessions", folder)
        chat = CHAT | {"messages": [{"role": "user", "content": "Tell me a story. " * 20}]}
        answer = self.ask("/v1/chat/completions", chat)[1]
        change = lambda **body: self.ask("/snug/sessions", body)
        status, saved = change(action="save", name="story-1", messages=chat["messages"])
        self.assertEqual(status, 200, saved)
        self.assertGreaterEqual(saved["tokens"], answer["usage"]["prompt_tokens"] - 1)
        self.assertEqual(saved["bytes"], os.path.getsize(os.path.join(folder, "story-1.kv")))
        self.assertEqual(self.ask("/snug/sessions")[1]["sessions"], [{"name": "story-1", "tokens": saved["tokens"], "bytes": saved["bytes"]}])
        self.stop()
        self.start("--sessions", folder)
        self.assertEqual(change(action="restore", name="story-1")[1]["tokens"], saved["tokens"])
        again = self.ask("/v1/chat/completions", chat)[1]
        self.assertEqual(again["choices"], answer["choices"])
        self.assertGreaterEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], answer["usage"]["prompt_tokens"] - 1)
        self.assertEqual(change(action="erase", name="story-1")[0], 200)
        self.assertEqual(self.ask("/snug/sessions")[1]["sessions"], [])
        self.assert_refused(404, change(action="restore", name="story-1"), "session_not_found")
        self.assert_refused(409, change(action="save", name="x", prompt="zzzz"), "not_kept")
        for name in ("../x", "/etc/passwd", "a/b", ".x", "", "a\x00b", "x" * 200, "..", "a\\b", "é"):
            for action in ("save", "restore", "erase"):
                self.assert_refused(400, change(action=action, name=name, prompt="Tell me"), "invalid_value", "name")
        self.assert_refused(400, change(action="strange", name="x"), "invalid_value", "action")
        with open(os.path.join(folder, "bad.kv"), "wb") as f:
            f.write(b"no session" * 100)
        self.assert_refused(400, change(action="restore", name="bad"))

    def test_only_with_a_folder(self):
        self.start()
        self.assert_refused(501, self.ask("/snug/sessions"), "sessions_disabled", "--sessions")


class Operation(ServeTest):
    def drain(self, ask):
        """Tells the server to end while it answers; returns the thread that asks."""
        thread = threading.Thread(target=ask)
        thread.start()
        while "snug_requests_running 0" in self.ask("/metrics")[1] and thread.is_alive():
            time.sleep(0.02)
        self.server.terminate()
        late = self.ask("/ready")
        while late[0] == 200 and thread.is_alive():
            late = self.ask("/ready")
        self.assertEqual(late, (503, {"status": "draining"}))
        return thread

    def test_ready_until_it_drains(self):
        self.start()
        self.assertEqual(self.ask("/ready"), (200, {"status": "ready"}))
        answers = []
        thread = self.drain(lambda: answers.append(self.ask("/v1/chat/completions", CHAT | {"max_tokens": 2000, "n": 16})))
        self.server.terminate()  # as when it is sent to a process and to its group
        self.assert_refused(503, self.ask("/v1/models"), words="ends")
        self.assertEqual(self.ask("/health")[0], 200)
        thread.join()
        self.assertEqual(answers[0][0], 200)
        self.server.wait(timeout=30)
        self.assertEqual(self.server.returncode, 0)

    def test_ctrl_c_ends_it_at_once_while_it_drains(self):
        self.start()
        def ask():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask("/v1/chat/completions", CHAT | {"max_tokens": 2000, "n": 16})
        thread = self.drain(ask)
        self.server.send_signal(signal.SIGINT)
        self.assertEqual(self.server.wait(timeout=30), -signal.SIGINT)
        thread.join()

    def test_not_ready_while_it_loads(self):
        hub = self.occupied()  # it takes the download's connection and says nothing
        environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{hub}", "HF_HOME": self.path("hf"), "SNUG_MODELS": self.path("models")}
        self.port = self.free_port()
        server = subprocess.Popen([SNUG, "serve", "hf:a/b/c.gguf", "--port", str(self.port)], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=environment)
        self.addCleanup(server.communicate)
        self.addCleanup(server.kill)
        for _ in range(200):
            try:
                early = self.ask("/ready")
                break
            except OSError:
                time.sleep(0.02)
        self.assertEqual(early, (503, {"status": "loading"}))
        self.assertEqual(self.ask("/health")[0], 200)
        self.assert_refused(503, self.ask("/v1/models"), words="loaded")
        status, error = self.ask("/v1/messages", {})
        self.assertEqual((status, error["type"], error["error"]["type"]), (503, "error", "api_error"))

    def test_origins(self):
        self.start("--cors", "https://a.org")
        def headers(origin, method="GET"):
            connection = self.connect()
            connection.request(method, "/v1/models", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
            response = connection.getresponse()
            response.read()
            return response.status, response.getheader("access-control-allow-origin")
        self.assertEqual(headers("https://a.org"), (200, "https://a.org"))
        self.assertEqual(headers("https://a.org", "OPTIONS"), (200, "https://a.org"))
        self.assertEqual(headers("https://b.org"), (200, None))
        self.assertEqual(headers("https://b.org", "OPTIONS"), (405, None))

    def test_a_line_for_each_request(self):
        self.start("--log-json")
        self.ask("/v1/chat/completions", CHAT | {"messages": [{"role": "user", "content": "secret"}]})
        self.ask("/v1/nothing")
        self.ask("/v1/embeddings", {"input": [1, 2, 3]})
        self.server.terminate()
        output = self.server.communicate(timeout=30)[1]
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        lines = {line["path"]: line for line in lines}  # the next request may be quicker than a line
        self.assertEqual({(l["method"], l["path"], l["status"]) for l in lines.values()},
                         {("POST", "/v1/chat/completions", 200), ("GET", "/v1/nothing", 404), ("POST", "/v1/embeddings", 200)})
        chat = lines["/v1/chat/completions"]
        self.assertEqual((chat["generated_tokens"], lines["/v1/embeddings"]["prompt_tokens"]), (12, 3))
        self.assertLessEqual(chat["first_token_seconds"], chat["seconds"])
        self.assertNotIn("secret", output)

    def test_requests_that_did_not_come_whole_get_the_shape_of_their_api(self):
        self.start("--max-body", "1000")
        def refused(path, length=b"100000"):
            answer = self.raw(b"POST " + path + b" HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
            return int(answer.split()[1]), json.loads(answer.split(b"\r\n\r\n", 1)[1])
        self.assert_refused(413, refused(b"/v1/chat/completions"), words="too large")
        self.assertEqual(refused(b"/v1/messages")[1]["type"], "error")
        self.assertEqual(list(refused(b"/api/chat")[1]), ["error"])
        self.assert_refused(413, refused(b"/strange"))

    def test_joules_are_there_where_they_can_be_read(self):
        self.start()
        known = any(os.access(os.path.join("/sys/class/powercap", d, "energy_uj"), os.R_OK)
                    for d in (os.listdir("/sys/class/powercap") if os.path.isdir("/sys/class/powercap") else []) if d.count(":") == 1)
        self.assertEqual("snug_energy_joules_total" in self.ask("/metrics")[1], known)
        if not known:
            self.assertIsNone(self.ask("/snug/status")[1]["joules_per_token"])

    def test_configuration_in_a_file(self):
        model = self.write("model.gguf", self.model_bytes)
        config = self.write("snug.toml", f'# a server\nmodel = "{model}"\nport = 0\nname = "of the file"\nctx-size = 512\n'
                            'api-key = ["one", "two"]\nlog-json = true\ntemplate = "chatml"\n'.encode())
        def name(*options, **environment):
            clean = {k: v for k, v in os.environ.items() if not k.startswith("SNUG_")}
            server = subprocess.Popen([SNUG, "serve", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean | environment)
            line = server.stdout.readline()
            self.assertRegex(line, r"\Aserving ", server.stderr.read() if not line else "")
            self.port = int(line.split("127.0.0.1:")[1].split("/")[0])
            models = self.ask("/v1/models", headers={"x-api-key": "two"})[1]["data"][0]
            self.assert_refused(401, self.ask("/v1/models"))
            server.terminate()
            self.assertIn('"path":"/v1/models"', server.communicate(timeout=30)[1])
            return models["id"], models["context_length"]
        self.assertEqual(name("--config", config), ("of the file", 512))
        self.assertEqual(name(SNUG_CONFIG=config, SNUG_NAME="of the variable"), ("of the variable", 512))
        self.assertEqual(name("--config", config, "--name", "given", "-c", "256", SNUG_NAME="of the variable"), ("given", 256))
        fails = lambda text, *words: self.assert_fails(self.snug("serve", "--config", self.write("bad.toml", text)), *words, code=2)
        fails(b"prot = 80\n", "prot", "bad.toml")
        fails(b"port = many\n", "port")
        fails(b"[serve]\nport = 80\n", "section")
        fails(b"max-batch = 0\n", "max-batch")
        fails(b"port = 0\n", "MODEL")
        self.assert_fails(self.snug("serve", "--config", self.path("nowhere.toml")), "nowhere.toml", code=2)
        self.assert_fails(self.snug("serve"), "MODEL", code=2)


main()
