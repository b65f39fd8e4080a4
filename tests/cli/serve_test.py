"""snug serve: what clients get over HTTP, and what hostile ones do not get."""

import gzip
import json
import socket
import threading
import time

from serve_support import CHAT, ServeTest
from support import main


class Serve(ServeTest):
    def test_chat_whole_and_as_a_stream(self):
        self.start()
        status, whole = self.ask("/v1/chat/completions", CHAT)
        self.assertEqual(status, 200, whole)
        choice = whole["choices"][0]
        self.assertEqual((whole["object"], choice["message"]["role"], choice["finish_reason"]), ("chat.completion", "assistant", "length"))
        self.assertEqual(whole["usage"]["completion_tokens"], 12)
        self.assertEqual(whole["usage"]["total_tokens"], whole["usage"]["prompt_tokens"] + 12)
        pieces = self.stream("/v1/chat/completions", CHAT | {"stream_options": {"include_usage": True}})
        self.assertEqual(pieces[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual("".join(p["choices"][0]["delta"].get("content", "") for p in pieces[:-1]), choice["message"]["content"])
        self.assertEqual(pieces[-2]["choices"][0]["finish_reason"], "length")
        self.assertEqual((pieces[-1]["choices"], pieces[-1]["usage"]["completion_tokens"]), ([], 12))
        self.assertGreater(pieces[-1]["usage"]["prompt_tokens_details"]["cached_tokens"], 0)

    def test_choices_seeds_logprobs_and_parts(self):
        self.start()
        body = CHAT | {"n": 3, "temperature": 1, "seed": 7, "logprobs": True, "top_logprobs": 2, "unknown": 1,
                       "tools": [{"type": "strange"}], "messages": [{"role": "developer", "content": "Be brief."},
                       {"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}
        first, second = self.ask("/v1/chat/completions", body)[1], self.ask("/v1/chat/completions", body)[1]
        texts = [c["message"]["content"] for c in first["choices"]]
        self.assertEqual(texts, [c["message"]["content"] for c in second["choices"]])
        self.assertEqual(len(set(texts)), 3)
        token = first["choices"][0]["logprobs"]["content"][0]
        self.assertEqual(len(token["top_logprobs"]), 2)
        self.assertLessEqual(token["logprob"], 0)

    def test_completions(self):
        self.start()
        body = {"prompt": "The quick brown", "max_tokens": 8, "temperature": 0, "ignore_eos": True, "logprobs": 1, "echo": True}
        status, whole = self.ask("/v1/completions", body)
        self.assertEqual(status, 200, whole)
        self.assertTrue(whole["choices"][0]["text"].startswith("The quick brown"))
        self.assertEqual(len(whole["choices"][0]["logprobs"]["tokens"]), 8)
        pieces = self.stream("/v1/completions", body)
        self.assertEqual("".join(p["choices"][0]["text"] for p in pieces), whole["choices"][0]["text"])
        self.assertEqual(self.ask("/v1/models")[1]["data"][0]["id"], "model")
        self.assertEqual(self.ask("/health")[0], 200)
        self.assertIn("snug_generated_tokens_total 16", self.ask("/metrics")[1])

    def test_answers_follow_a_grammar(self):
        self.start("-c", "256")
        body = CHAT | {"max_tokens": 150, "temperature": 1, "seed": 1}
        schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9},
                  "on": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}}, "required": ["n", "on", "kind"], "additionalProperties": False}
        choice = self.ask("/v1/chat/completions", body | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})[1]["choices"][0]
        self.assertEqual(choice["finish_reason"], "stop")
        answer = json.loads(choice["message"]["content"])
        self.assertEqual((sorted(answer), answer["n"] in range(1, 10), answer["kind"] in "ab"), (["kind", "n", "on"], True, True))
        ask = lambda **format: self.ask("/v1/chat/completions", body | {"n": 2, "response_format": format})[1]
        for choice in ask(type="regex", pattern="[0-9]{3}-[a-f]{2}")["choices"]:
            self.assertRegex(choice["message"]["content"], r"\A[0-9]{3}-[a-f]{2}\Z")
        for choice in ask(type="grammar", grammar='start: "yes" | "no"')["choices"]:
            self.assertIn(choice["message"]["content"], ("yes", "no"))
        self.assertIn(self.ask("/api/chat", {"messages": CHAT["messages"], "stream": False, "format": {"enum": [1, 2]}})[1]["message"]["content"], "12")

    def test_tool_calls(self):
        self.start("-c", "1024")
        schema = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"], "additionalProperties": False}
        tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
        body = CHAT | {"tools": tools, "tool_choice": "required", "max_tokens": 200}
        choice = self.ask("/v1/chat/completions", body)[1]["choices"][0]
        call = choice["message"]["tool_calls"][0]
        self.assertEqual((choice["finish_reason"], choice["message"]["content"], call["function"]["name"]), ("tool_calls", None, "weather"))
        self.assertIn(json.loads(call["function"]["arguments"])["city"], ("Rome", "Oslo"))
        pieces = self.stream("/v1/chat/completions", body | {"tool_choice": {"type": "function", "function": {"name": "weather"}}})
        calls = [c for p in pieces for c in p["choices"][0]["delta"].get("tool_calls", [])]
        self.assertEqual([c["function"] for c in calls], [call["function"]])
        again = CHAT["messages"] + [choice["message"], {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
        self.assertEqual(self.ask("/v1/chat/completions", CHAT | {"tools": tools, "messages": again})[0], 200)
        self.assert_refused(400, self.ask("/v1/chat/completions", body | {"tool_choice": {"type": "function", "function": {"name": "x"}}}), words="tool_choice")
        theirs = {"max_tokens": 200, "temperature": 0, "messages": CHAT["messages"], "tool_choice": {"type": "any"},
                  "tools": [{"name": "weather", "input_schema": schema}]}
        whole = self.ask("/v1/messages", theirs)[1]
        self.assertEqual((whole["stop_reason"], whole["content"][0]["type"], whole["content"][0]["name"]), ("tool_use", "tool_use", "weather"))
        self.assertIn(whole["content"][0]["input"]["city"], ("Rome", "Oslo"))

    def test_anthropic(self):
        self.start()
        body = {"model": "model", "max_tokens": 10, "temperature": 0, "system": [{"type": "text", "text": "Be brief."}],
                "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": [{"type": "text", "text": "Hi."},
                             {"type": "tool_use", "id": "1", "name": "clock", "input": {}}]},
                             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "noon"}]}]}
        status, whole = self.ask("/v1/messages", body)
        self.assertEqual(status, 200, whole)
        self.assertEqual((whole["type"], whole["role"], whole["content"][0]["type"]), ("message", "assistant", "text"))
        self.assertIn(whole["stop_reason"], ("max_tokens", "end_turn"))
        count = self.ask("/v1/messages/count_tokens", body)[1]["input_tokens"]
        self.assertEqual(count, whole["usage"]["input_tokens"] + whole["usage"]["cache_read_input_tokens"])
        connection = self.connect()
        connection.request("POST", "/v1/messages", json.dumps(body | {"stream": True}).encode())
        events = [e.split("\n") for e in connection.getresponse().read().decode().split("\n\n")[:-1]]
        self.assertEqual([e[0] for e in events[:3]], ["event: message_start", "event: ping", "event: content_block_start"])
        self.assertEqual([e[0] for e in events[-3:]], ["event: content_block_stop", "event: message_delta", "event: message_stop"])
        texts = [json.loads(e[1].removeprefix("data: ")) for e in events[3:-3]]
        self.assertEqual("".join(t["delta"]["text"] for t in texts), whole["content"][0]["text"])
        stop = whole["content"][0]["text"][1:3]
        cut = self.ask("/v1/messages", body | {"stop_sequences": [stop]})[1]
        self.assertEqual((cut["stop_reason"], cut["stop_sequence"]), ("stop_sequence", stop))
        del body["max_tokens"]
        status, error = self.ask("/v1/messages", body)
        self.assertEqual((status, error["type"], error["error"]["type"]), (400, "error", "invalid_request_error"))

    def test_ollama(self):
        self.start()
        options = {"temperature": 0, "num_predict": 8}
        body = {"model": "model", "messages": [{"role": "user", "content": "Hello"}], "options": options}
        lines = [json.loads(line) for line in self.ask("/api/chat", body)[1].splitlines()]
        self.assertEqual([line["done"] for line in lines], [False] * (len(lines) - 1) + [True])
        whole = self.ask("/api/chat", body | {"stream": False})[1]
        self.assertEqual("".join(line["message"]["content"] for line in lines), whole["message"]["content"])
        self.assertEqual((whole["done_reason"], whole["eval_count"]), ("length", 8))
        self.assertEqual(self.ask("/api/generate", {"prompt": "Hello", "stream": False, "options": options})[1]["response"],
                         whole["message"]["content"])
        self.assertEqual(self.ask("/api/tags")[1]["models"][0]["name"], "model")
        self.assertIn("model_info", self.ask("/api/show", {"model": "model"})[1])
        self.assertIn("version", self.ask("/api/version")[1])
        status, error = self.ask("/api/chat", {"messages": 1})
        self.assertEqual((status, list(error)), (400, ["error"]))

    def test_the_page_and_what_it_shows(self):
        self.start()
        for path, kind in (("/", "<!doctype html>"), ("/app.js", "snug/status"), ("/app.css", "#map")):
            self.assertIn(kind, self.ask(path)[1])
        self.ask("/v1/chat/completions", CHAT)
        # What is shown is made after an answer, and lists what the look before asked for.
        end = time.monotonic() + 20
        status = self.ask("/snug/status")[1]
        while not status["kept"] and time.monotonic() < end:
            time.sleep(0.05)
            status = self.ask("/snug/status")[1]
        self.assertEqual(sum(status["memory"].values()), status["used"])
        self.assertGreater(status["prefixes"], 0)
        self.assertEqual(len(status["kept"]), status["prefixes"])
        self.assertEqual(status["kv_running"] + status["kv_kept"], sum(form["bytes"] for form in status["kv_forms"]))
        small = self.ask("/app.css", headers={"Accept-Encoding": "gzip"}, binary=True)[1]
        self.assertEqual(gzip.decompress(small).decode(), self.ask("/app.css")[1])
        self.assertEqual(self.ask("/snug/memory", {"bytes": status["budget"] // 2})[0], 200)
        self.assertEqual(self.ask("/snug/status")[1]["budget"], status["budget"] // 2)
        self.assert_refused(400, self.ask("/snug/memory", {"bytes": 1000}), "invalid_value", "too small")

    def test_bench_serve(self):
        self.start("-c", "2048")
        url = f"http://127.0.0.1:{self.port}/v1"
        for kind in ("shared-prefix", "multi-turn", "mixed-lengths"):
            result = self.snug("bench-serve", url, "--kind", kind, "--users", "6", "--rate", "20", "--prompt-words", "20",
                               "--max-tokens", "8", "--ignore-eos", "--json", "--svg", self.path("times.svg"))
            self.assertEqual(result.returncode, 0, result.stderr)
            figures = json.loads(result.stdout)
            self.assertEqual((figures["answered"], figures["failed"]), (24 if kind == "multi-turn" else 6, 0))
            if kind == "shared-prefix":
                self.assertEqual(figures["tokens"], 48)
            self.assertLessEqual(figures["first_token_seconds"]["p50"], figures["answer_seconds"]["p50"])
            with open(self.path("times.svg")) as f:
                self.assertIn("<svg", f.read())
        self.assertEqual(self.snug("bench-serve", "http://127.0.0.1:9/v1", "--users", "1").returncode, 1)

    def test_what_is_wrong_is_said(self):
        self.start("-c", "64")
        ask = lambda **changes: self.ask("/v1/chat/completions", CHAT | changes)
        self.assert_refused(400, ask(temperature="hot"), "invalid_value", "temperature")
        self.assert_refused(400, ask(n=0), "invalid_value", "'n'")
        self.assert_refused(400, ask(stop=[1]), "invalid_value", "stop")
        self.assert_refused(400, ask(messages=[]), "invalid_value", "messages")
        self.assert_refused(400, ask(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "invalid_value", "parts")
        self.assert_refused(400, ask(messages=[{"role": "user", "content": "long " * 100}]), "context_length_exceeded", "context")
        self.assert_refused(400, ask(response_format={"type": "strange"}), "invalid_value", "json_schema")
        self.assert_refused(400, ask(response_format={"type": "regex", "pattern": "("}), "invalid_value", "grammar")
        self.assert_refused(400, ask(response_format={"type": "json_schema", "json_schema": {"schema": {"type": 7}}}), "invalid_value")
        self.assert_refused(404, self.ask("/v1/nothing"), "unknown_url")
        self.assert_refused(405, self.ask("/v1/models", {}), words="takes GET")
        for body in (b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"messages": "' + b"\xff" * 9 + b'"}', b"[" * 200000, b'{"a":' * 100000):
            self.assert_refused(400, self.ask("/v1/chat/completions", body))
        self.assertEqual(ask()[0], 200)

    def test_keys(self):
        self.start("--api-key", "one", "--api-key", "two")
        self.assert_refused(401, self.ask("/v1/models"), "invalid_api_key")
        self.assert_refused(401, self.ask("/v1/models", headers={"Authorization": "Bearer on"}), "invalid_api_key")
        self.assertEqual(self.ask("/v1/models", headers={"Authorization": "Bearer two"})[0], 200)
        self.assertEqual(self.ask("/health")[0], 200)

    def test_hostile_clients_hold_up_nobody(self):
        self.start("--max-body", "100000")
        idle = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(500)]
        for s in idle[:250]:
            s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        self.assertIn(b"413", self.raw(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100))
        self.assertIn(b"413", self.raw(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 8))
        self.assertIn(b"431", self.raw(b"GET / HTTP/1.1\r\nX: " + b"y" * 100000 + b"\r\n\r\n"))
        self.assertIn(b"400", self.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 nonsense\r\n\r\n"))
        for path in (b"/../../etc/passwd", b"//etc/passwd", b"/v1/%2e%2e/models", b"/v1/models%00"):
            self.assertIn(b"404", self.raw(b"GET " + path + b" HTTP/1.1\r\nConnection: close\r\n\r\n"))
        endless = json.dumps(CHAT | {"max_tokens": 100000, "stream": True}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(endless)
        for _ in range(20):  # they leave in mid-stream
            with socket.create_connection(("127.0.0.1", self.port)) as s:
                s.sendall(head + endless)
                s.recv(100)
        begin = time.time()
        self.assertEqual(self.ask("/v1/chat/completions", CHAT)[0], 200)
        self.assertLess(time.time() - begin, 10)
        for _ in range(100):
            if "snug_requests_running 0" in self.ask("/metrics")[1]:
                break
            time.sleep(0.1)
        self.assertIn("snug_requests_running 0", self.ask("/metrics")[1])
        for s in idle:
            s.close()

    def test_it_finishes_what_is_under_way(self):
        self.start()
        answers = []
        body = CHAT | {"max_tokens": 200}
        threads = [threading.Thread(target=lambda: answers.append(self.ask("/v1/chat/completions", body))) for _ in range(8)]
        for t in threads:
            t.start()
        time.sleep(0.3)
        self.server.terminate()
        for t in threads:
            t.join()
        self.assertEqual([a[0] for a in answers], [200] * 8)
        self.server.communicate(timeout=30)
        self.assertEqual(self.server.returncode, 0)
        self.assertIn("in use", self.snug("serve", self.path("model.gguf"), "--port", str(self.occupied())).stderr)


main()
