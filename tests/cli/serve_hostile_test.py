"""snug serve and clients that mean no good: nothing crashes, nothing leaks, nobody else waits. With SNUG_LONG=1 also
what takes minutes."""

import contextlib
import http.client
import json
import os
import resource
import socket
import threading
import time
import unittest

from serve_support import CHAT, ServeTest
from support import main

LONG = os.environ.get("SNUG_LONG") == "1"
MIB = 1 << 20
POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/messages/count_tokens", "/api/chat", "/api/generate", "/api/show")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1, 2]}}}


class Hostile(ServeTest):
    def open(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=90)
        self.addCleanup(s.close)
        return s

    def post(self, path, body, *headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", *headers, "", ""]).encode() + data

    def sent(self, data):
        s = self.open()
        s.sendall(data)
        return s

    def answer(self, s):
        """All that comes until the server closes."""
        answer = b""
        while piece := s.recv(65536):
            answer += piece
        return answer

    def status(self, data):
        """Of the last answer to a request that ends the connection; None: closed without a word."""
        heads = self.raw(data).split(b"HTTP/1.1 ")[1:]
        return int(heads[-1][:3]) if heads else None

    def fds(self):
        return len(os.listdir(f"/proc/{self.server.pid}/fd"))

    def rss(self):
        with open(f"/proc/{self.server.pid}/statm") as f:
            return int(f.read().split()[1]) * resource.getpagesize()

    def metric(self, name):
        return float(self.ask("/metrics")[1].split(f"\nsnug_{name} ")[1].split("\n")[0])

    def wait_for(self, check, seconds=20):
        end = time.time() + seconds
        while not check():
            self.assertLess(time.time(), end, "it never came to pass")
            time.sleep(0.05)

    @contextlib.contextmanager
    def unharmed(self, seconds=5):
        """Others are served within so long, and afterwards all is as before."""
        self.assertEqual(self.ask("/v1/chat/completions", CHAT)[0], 200)
        fds = self.fds()
        yield
        begin = time.time()
        self.assertEqual(self.ask("/v1/chat/completions", CHAT)[0], 200)
        self.assertEqual(self.ask("/health")[0], 200)
        self.assertLess(time.time() - begin, seconds)
        self.wait_for(lambda: self.metric("requests_running") + self.metric("requests_waiting") == 0)
        self.leave()
        self.wait_for(lambda: self.fds() <= fds + 1)
        self.assertIsNone(self.server.poll())

    def leave(self):
        """All clients of this test close."""
        for f, arguments, _ in self._cleanups:
            if isinstance(getattr(f, "__self__", None), (socket.socket, http.client.HTTPConnection)):
                f(*arguments)

    def test_slow_senders(self):
        self.start()
        with self.unharmed():
            for start in (b"G", b"POST /v1/chat/completions HTTP/1.1\r\nHo", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 30000000\r\n\r\n{",
                          b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1000000\r\n{"):
                for s in [self.sent(start) for _ in range(200)]:
                    s.send(b"o")

    def test_slow_readers(self):
        self.start()
        body = CHAT | {"stream": True, "n": 128, "max_tokens": 100000, "temperature": 1, "logprobs": True, "top_logprobs": 20}
        with self.unharmed(30):
            base = self.rss()
            for _ in range(4):
                s = socket.socket()
                self.addCleanup(s.close)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.connect(("127.0.0.1", self.port))
                s.sendall(self.post("/v1/chat/completions", body))
            self.wait_for(lambda: self.metric("requests_running") > 0)
            self.wait_for(lambda: self.metric("requests_running") + self.metric("requests_waiting") == 0, 120)
            self.assertLess(self.rss() - base, 200 * MIB)

    def test_ten_thousand_idle_connections(self):
        count = 10_000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < count + 200:
            self.skipTest(f"RLIMIT_NOFILE is {hard}: too few for {count} connections")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.start()
        with self.unharmed():
            base = self.rss()
            idle = [self.open() for _ in range(count)]
            for s in idle[:1000]:  # these have asked before
                s.sendall(self.post("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x" * 600}]}))
            for s in idle[:1000]:
                self.assertIn(b"200 OK", s.recv(4096))
            self.wait_for(lambda: self.fds() > count)
            for _ in range(5):
                begin = time.time()
                self.assertEqual(self.ask("/v1/chat/completions", CHAT)[0], 200)
                self.assertLess(time.time() - begin, 2)
            self.assertLess((self.rss() - base) / count, 16 << 10)

    def test_large_bodies(self):
        self.start()
        with self.unharmed(10):
            base = self.rss()
            for head in (b"Content-Length: 104857600", b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked"):
                s = self.sent(b"POST /v1/completions HTTP/1.1\r\n" + head + b"\r\n\r\n")
                chunk = b"x" * MIB if b"Content" in head else b"100000\r\n" + b"x" * MIB + b"\r\n"
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for _ in range(100):
                        s.sendall(chunk)
                with contextlib.suppress(ConnectionResetError):
                    self.assertRegex(self.answer(s), rb"HTTP/1.1 (413|400)")
            self.assertLess(self.rss() - base, 48 * MIB)
            # Many at a time, none of which comes to an end.
            holders = [self.sent(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 31000000\r\n\r\n") for _ in range(14)]
            turned_away = 0
            for s in holders:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for _ in range(29):
                        s.sendall(b"x" * MIB)
                s.settimeout(0.2)
                with contextlib.suppress(TimeoutError, ConnectionResetError):
                    turned_away += s.recv(100).startswith(b"HTTP/1.1 503")
            self.assertGreater(turned_away, 0)
            self.assertLess(self.rss() - base, 320 * MIB)
            for s in holders:
                s.close()
            whole = self.post("/v1/completions", b'{"prompt": "' + b"x " * 5_000_000 + b'"}', "Connection: close")
            self.wait_for(lambda: self.rss() - base < 64 * MIB)
            self.assertEqual(self.status(whole), 400)  # more than the context, and there is room again

    def test_broken_json(self):
        self.start()
        deep = 100_000
        bodies = [b"", b"{", b"nul", b"[]", b"1", b'"x"', b"{} {}", b'{"messages": [}', b"\xff\xfe{\x00}\x00", b'{"a": "\xff"}', b'{"\xc3\x28": 1}',
                  b"\xef\xbb\xbf", b"{" * deep, b"[" * deep, b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep, b'{"messages":1e999999}',
                  b'{"messages": [' + b"[" * deep + b"]" * deep + b"]}", b'{"prompt": ' + b"[" * deep + b"]" * deep + b"}",
                  b'{"messages": [{"role": "user", "content": ' + b"[" * deep + b"]" * deep + b"}]}", b"\0" * 1000]
        with self.unharmed():
            for path in POSTS:
                for body in bodies:
                    status, answer = self.ask(path, body)
                    self.assertEqual(status, 400, (path, body[:40], answer))
                    self.assertIn("error", answer)
            call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "1", "function": {"name": "f", "arguments": "[" * deep + "]" * deep}}]}
            self.assertIn(self.ask("/v1/chat/completions", CHAT | {"messages": CHAT["messages"] + [call]})[0], (200, 400))
            nested = b"[" * 400 + b"]" * 400
            for field in (b"tools", b"response_format", b"tool_choice", b"stop", b"stream_options", b"format", b"options", b"system"):
                for path in POSTS:
                    status, _ = self.ask(path, b'{"max_tokens": 2, "num_predict": 2, "messages": [{"role": "user", "content": "x"}], "prompt": "x", "' + field + b'": ' + nested + b"}")
                    self.assertIn(status, (200, 400), (path, field))

    def test_words_that_are_not_utf8(self):
        self.start()
        with self.unharmed():
            for text in ("\\ud800", "\\udfff\\ud800", "\\u0000", "\\uffff", "\x7f"):
                body = '{"messages": [{"role": "user", "content": "' + text + '"}], "max_tokens": 2, "options": {"num_predict": 2}, "prompt": "' + text + '"}'
                for path in POSTS[:-1]:
                    self.assertIn(self.ask(path, body.encode())[0], (200, 400), (path, text))

    def test_clients_that_leave(self):
        self.start("-c", "4096")
        endless = CHAT | {"max_tokens": 100000}
        with self.unharmed():
            for stream in (True, False):
                for _ in range(10):
                    self.sent(self.post("/v1/chat/completions", endless | {"stream": stream, "n": 4}))
                self.wait_for(lambda: self.metric("requests_running") > 0)
                generated = self.metric("generated_tokens_total")
                self.leave()
                self.wait_for(lambda: self.metric("requests_running") + self.metric("requests_waiting") == 0, 5)
                self.assertLess(self.metric("generated_tokens_total") - generated, 40 * 3000)

    def test_clients_that_have_no_more_to_say(self):
        self.start()
        with self.unharmed():
            for stream in (False, True):
                s = self.sent(self.post("/v1/chat/completions", CHAT | {"stream": stream, "max_tokens": 300}))
                s.shutdown(socket.SHUT_WR)
                answer = self.answer(s)
                self.assertIn(b"200 OK", answer)
                self.assertIn(b'"finish_reason":"length"', answer)
            s = self.sent(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            s.shutdown(socket.SHUT_WR)
            self.assertIn(b"200 OK", self.answer(s))

    def test_wrong_keys(self):
        self.start("--api-key", "right")
        chat = lambda key: self.ask("/v1/chat/completions", CHAT, {"Authorization": key})[0]
        for key in ("", "Bearer", "Bearer ", "Bearer righ", "Bearer rightt", "Basic right", "Bearer right right", "bearer right", "x" * 8000):
            self.assertEqual(chat(key), 401, key)
        self.assertEqual(chat("Bearer right"), 200)
        for path in ("/v1/models", "/metrics", "/snug/status", "/api/tags"):
            self.assertEqual(self.ask(path)[0], 401, path)

    def test_paths_and_methods(self):
        self.start()
        with self.unharmed():
            end = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            for path in (b"/../../etc/passwd", b"//etc/passwd", b"/v1/%2e%2e/models", b"/v1/models%00", b"/v1/models/", b"/V1/MODELS", b"*", b"/%",
                         b"/" + b"a/" * 5000, b"http://x/../v1/models", b"/./v1/models", b"/v1\\models", b"http:/v1/models", b"ftp://x/v1/models"):
                self.assertIn(self.status(b"GET " + path + end), (404, 400), path[:40])
            for path in (b"/v1/models\0", b"/v1/models \0", b"/\x01", b""):
                self.assertIn(self.status(b"GET " + path + end), (400, 404), path)
            self.assertEqual(self.status(b"GET /" + b"a" * 100_000 + end), 431)
            self.assertEqual(self.status(b"GET http://example.org/v1/models?x=1" + end), 200)
            self.assertEqual(self.status(b"GET https://example.org:80/v1/models" + end), 200)
            for method in (b"DELETE", b"PUT", b"PATCH", b"OPTIONS", b"TRACE", b"GET"):
                self.assertEqual(self.status(method + b" /v1/chat/completions" + end), 405, method)
            for method in (b"CONNECT", b"FOO", b"get", b"POST" * 100):
                self.assertIn(self.status(method + b" /v1/chat/completions" + end), (400, 405, 501), method)
            for line in (b"GET /health HTTP/2.0", b"GET /health HTTP/0.9", b"GET /health", b"GET  /health HTTP/1.1", b"PRI * HTTP/2.0"):
                self.assertIn(self.status(line + b"\r\nConnection: close\r\n\r\n"), (400, 404, 505), line)

    def test_pipelined_requests(self):
        self.start()
        with self.unharmed():
            body = CHAT | {"max_tokens": 3}
            s = self.sent(self.post("/v1/chat/completions", body) * 20 + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = self.answer(s)
            self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 21)
            self.assertTrue(answer.endswith(b'{"status":"ok"}'))
            s = self.sent(b"GET /health HTTP/1.1\r\n\r\n" * 20000 + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
            self.assertEqual(self.answer(s).count(b'{"status":"ok"}'), 20001)
            s = self.sent(self.post("/v1/chat/completions", CHAT | {"max_tokens": 100000}) * 50)
            time.sleep(0.2)
            s.close()  # with more requests under way

    def test_bodies_that_do_not_add_up(self):
        self.start()
        post = lambda *lines: b"\r\n".join([b"POST /v1/messages/count_tokens HTTP/1.1", b"Host: x", b"Connection: close", *lines])
        body = b'{"messages":[{"role":"user","content":"x"}]}'
        chunk = b"%x\r\n%s\r\n" % (len(body), body)
        with self.unharmed():
            good = post(b"Transfer-Encoding: chunked", b"", chunk + b"0\r\n\r\n")
            self.assertEqual(self.status(good), 200)
            self.assertEqual(self.status(post(b"Transfer-Encoding: chunked", b"", chunk + b"0\r\nX-Trailer: 1\r\n\r\n")), 200)
            for lines in ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
                          (b"Content-Length: 44", b"Content-Length: 45"), (b"Content-Length: -1",), (b"Content-Length: 4x",), (b"Content-Length: +44",),
                          (b"Content-Length: 44, 44, 45",), (b"Content-Length: 18446744073709551617",), (b"Content Length: 44",)):
                self.assertIn(self.status(post(*lines, b"", chunk + b"0\r\n\r\n")), (400, 413), lines)
            for lines in ((b"Transfer-Encoding: xchunked",), (b"Transfer-Encoding: gzip",), (b"Transfer-Encoding: chunked, gzip",)):
                self.assertEqual(self.status(post(*lines, b"", chunk + b"0\r\n\r\n")), 400, lines)
            for chunks in (b"zz\r\nx\r\n0\r\n\r\n", b"-1\r\nx\r\n", b"ffffffffffffffffff\r\nx", b"7fffffffffffffff\r\nx", b"5\r\nxx\r\n0\r\n\r\n", b"\r\n\r\n", b"5;" + b"x" * 100_000):
                s = self.sent(post(b"Transfer-Encoding: chunked", b"", chunks))
                s.shutdown(socket.SHUT_WR)
                self.assertRegex(self.answer(s), rb"\A(HTTP/1.1 (400|413|431)|\Z)", chunks[:20])

    def test_expect(self):
        self.start()
        body = json.dumps(CHAT).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: "
        with self.unharmed():
            s = self.sent(head + b"%d\r\n\r\n" % len(body))
            self.assertEqual(s.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            s.sendall(body)
            self.assertIn(b"200 OK", self.answer(s))
            self.assertTrue(self.answer(self.sent(head + b"104857600\r\n\r\n")).startswith(b"HTTP/1.1 413"))
            s = self.sent(head + b"%d\r\n\r\n" % len(body))
            s.close()

    def test_grammars_that_take_long(self):
        self.start()
        chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(2000)} | {"d2000": {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}}}
        schemas = [{"allOf": [{"type": "string", "pattern": "(a|b|c)*a(a|b|c){%d}$" % i} for i in range(40)]},
                   {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}},
                   {"type": "object", "patternProperties": {f"^x{i}_[a-z]+$": {"type": "string"} for i in range(1000)}},
                   {"$defs": chain, "$ref": "#/$defs/d0"}, {"type": "array", "minItems": 10**18, "items": {"type": "integer"}},
                   {"type": "string", "pattern": "(.*a.{20}.*b.{20}){200}"}, {"enum": ["x" * 200000]}, {"not": {}}, {"$ref": "http://127.0.0.1:9/x"}]
        rules = "start: r0\n" + "".join(f'r{i}: "a" r{i + 1} | r{i + 1}\n' for i in range(4000)) + 'r4000: "b"\n'
        formats = [{"type": "json_schema", "json_schema": {"name": "x", "schema": s}} for s in schemas]
        formats += [{"type": "grammar", "grammar": g} for g in (rules, "start: s\ns: s s |", "start: /(/", "start: start", "x" * MIB)]
        formats += [{"type": "regex", "pattern": p} for p in ("(a{0,1000}){0,1000}" * 20, "(?=x)", "[", "\\p{L}{1,500}" * 50)]
        statuses = []
        with self.unharmed():
            ask = lambda f: statuses.append(self.ask("/v1/chat/completions", CHAT | {"response_format": f, "n": 2})[0])
            threads = [threading.Thread(target=ask, args=(f,)) for f in formats]
            for t in threads:
                t.start()
            while any(t.is_alive() for t in threads):
                begin = time.time()
                self.assertEqual(self.ask("/v1/chat/completions", CHAT)[0], 200)
                self.assertLess(time.time() - begin, 2)
            self.assertLessEqual(set(statuses), {200, 400, 503})
            self.assertEqual(self.ask("/v1/chat/completions", CHAT | {"response_format": SCHEMA})[0], 200)

    @unittest.skipUnless(LONG, "takes minutes: SNUG_LONG=1")
    def test_they_are_turned_away_in_time(self):
        self.start("-c", "8192")
        begin = time.time()
        starts = (b"", b"GET /", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{", b"GET /health HTTP/1.1\r\n\r\n")
        slow = [self.sent(start) for start in starts for _ in range(50)]
        while any(slow) and time.time() - begin < 100:
            for i, s in enumerate(slow):
                with contextlib.suppress(OSError):
                    if s and i >= 50:
                        s.send(b"a")
                if s and time.time() - begin > 70:
                    s.settimeout(1)
                    with contextlib.suppress(ConnectionResetError):
                        self.answer(s)  # ends
                    slow[i] = None
            time.sleep(1)
        self.assertFalse(any(slow))

    @unittest.skipUnless(LONG, "takes minutes: SNUG_LONG=1")
    def test_a_storm(self):
        """Everything at once, for two minutes."""
        self.start("-c", "1024", "--memory", "200MiB")
        self.assertEqual(self.ask("/v1/chat/completions", CHAT)[0], 200)
        end, failures, served = time.time() + 120, [], []

        def rude(data, leave):
            while time.time() < end:
                with contextlib.suppress(OSError):
                    with socket.create_connection(("127.0.0.1", self.port), timeout=30) as s:
                        s.sendall(data)
                        s.recv(leave)

        def polite():
            while time.time() < end:
                begin = time.time()
                status = self.ask("/v1/chat/completions", CHAT)[0]
                (served if status == 200 and time.time() - begin < 10 else failures).append((status, time.time() - begin))

        requests = [(self.post("/v1/chat/completions", CHAT | {"stream": True, "max_tokens": 5000}), 1000), (b"\x16\x03\x01" * 100, 100),
                    (self.post("/v1/chat/completions", b"[" * 100_000), 100), (b"GET /../.. HTTP/1.1\r\n\r\n" * 50, 5000),
                    (self.post("/v1/chat/completions", CHAT | {"max_tokens": 5000, "n": 8}), 0),
                    (self.post("/v1/chat/completions", CHAT | {"response_format": SCHEMA}), 10)]
        threads = [threading.Thread(target=rude, args=r) for r in requests for _ in range(4)] + [threading.Thread(target=polite) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        self.assertGreater(len(served), 100)


main()
