"""A `snug serve` on a tiny model, and what its clients do."""

import http.client
import json
import socket
import subprocess

from support import SNUG, CliTest

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "temperature": 0, "ignore_eos": True}


class ServeTest(CliTest):
    def start(self, *options):
        model = self.write("model.gguf", self.model_bytes)
        template = [] if "--template" in options else ["--template", "chatml"]
        self.server = subprocess.Popen([SNUG, "serve", model, "--port", "0", *template, *options],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop)
        line = self.server.stdout.readline()
        self.assertIn("serving model at http://127.0.0.1:", line)
        self.port = int(line.split(":")[2].split("/")[0])

    def stop(self):
        if self.server.poll() is None:
            self.server.terminate()
        self.server.communicate(timeout=30)

    def connect(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(connection.close)
        return connection

    def ask(self, path, body=None, headers={}, method=None):
        connection = self.connect()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
        response = connection.getresponse()
        text = response.read()
        kind = response.getheader("content-type")
        return response.status, json.loads(text) if kind == "application/json" and text else text.decode()

    def stream(self, path, body):
        connection = self.connect()
        connection.request("POST", path, json.dumps(body | {"stream": True}).encode())
        response = connection.getresponse()
        self.assertEqual((response.status, response.getheader("content-type")), (200, "text/event-stream"))
        events = response.read().decode().split("\n\n")
        self.assertEqual(events[-2:], ["data: [DONE]", ""])
        return [json.loads(e.removeprefix("data: ")) for e in events[:-2]]

    def raw(self, data, wait=True):
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as s:
            s.sendall(data)
            answer = b""
            while wait and (piece := s.recv(65536)):
                answer += piece
            return answer

    def assert_refused(self, status, answer, code=None, words=""):
        self.assertEqual(answer[0], status, answer)
        self.assertEqual(set(answer[1]["error"]), {"message", "type", "param", "code"})
        self.assertIn(words, answer[1]["error"]["message"])
        if code:
            self.assertEqual(answer[1]["error"]["code"], code)

    def occupied(self):
        s = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(s.close)
        return s.getsockname()[1]

    def free_port(self):
        with socket.create_server(("127.0.0.1", 0)) as s:
            return s.getsockname()[1]
