"""`snug pull` against a local server that speaks the hub's protocol: listing, quant choice, resume, hashes, HF_* variables."""

import hashlib
import http.server
import json
import os
import threading

from support import CliTest, main

REPO = "owner/tiny-GGUF"


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        s = self.server
        s.requests.append((self.path, dict(self.headers)))
        if s.token and self.headers.get("Authorization") != "Bearer " + s.token:
            return self.answer(401)
        if self.path == f"/api/models/{REPO}":
            return self.answer(200, s.listing if s.listing is not None else json.dumps(
                {"siblings": [{"rfilename": name} for name in s.files]}).encode())
        prefix = f"/{REPO}/resolve/main/"
        if self.path.startswith(prefix) and self.path[len(prefix):] in s.files:
            return self.answer(302, Location="/cdn/" + self.path[len(prefix):], X_Linked_Etag='"%s"' % s.hash)
        if not self.path.startswith("/cdn/"):
            return self.answer(404)
        data, status, headers = s.files[self.path[5:]], 200, {}
        if "Range" in self.headers and s.ranges:
            start = int(self.headers["Range"].split("=")[1].split("-")[0])
            if start >= len(data):
                return self.answer(416)
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        if s.cut:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: s.cut])
            self.close_connection = True
            return None
        return self.answer(status, data, **headers)


class Pull(CliTest):
    def setUp(self):
        super().setUp()
        self.server = server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        server.files = {"README.md": b"", "tiny-Q4_K_M.gguf": self.model_bytes, "tiny-Q4_K_S.gguf": b"other", "mmproj-Q4_K_M.gguf": b"no"}
        server.hash = hashlib.sha256(self.model_bytes).hexdigest()
        server.token, server.ranges, server.cut, server.listing, server.requests = "", True, 0, None, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.endpoint = f"http://127.0.0.1:{server.server_port}"
        self.stored = self.path(f"models/hf/{REPO}/tiny-Q4_K_M.gguf")

    def pull(self, name=f"hf:{REPO}", **environment):
        return self.snug("pull", name, HF_ENDPOINT=self.endpoint, **environment)

    def assert_pulled(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.strip(), self.stored)
        with open(self.stored, "rb") as f:
            self.assertEqual(f.read(), self.model_bytes)
        self.assertEqual(os.listdir(os.path.dirname(self.stored)), ["tiny-Q4_K_M.gguf"])

    def test_quant_is_chosen_from_the_listing(self):
        self.assert_pulled(self.pull())
        self.assertIn(f"hf:{REPO}/tiny-Q4_K_M.gguf", self.snug("list").stdout)

    def test_nothing_is_asked_once_it_is_there(self):
        self.pull()
        self.server.requests.clear()
        self.assert_pulled(self.pull())
        self.assertEqual(self.snug("run", f"hf:{REPO}", "-n", "1", "hi", HF_ENDPOINT=self.endpoint).returncode, 0)
        self.assertEqual(self.server.requests, [])

    def test_a_file_by_name_needs_no_listing(self):
        self.assert_pulled(self.pull(f"hf:{REPO}/tiny-Q4_K_M.gguf"))
        self.assertFalse([path for path, _ in self.server.requests if path.startswith("/api")])

    def test_split_models_come_whole(self):
        self.server.files = {f"big-Q8_0-0000{i}-of-00002.gguf": self.model_bytes for i in (1, 2)}
        result = self.pull(f"hf:{REPO}:Q8_0")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(os.listdir(os.path.dirname(self.stored))), 2)

    def test_a_missing_quant_lists_what_there_is(self):
        self.assert_fails(self.pull(f"hf:{REPO}:Q2_K"), "Q2_K", "tiny-Q4_K_M.gguf")

    def test_resumes_after_a_cut(self):
        self.server.cut = 1000
        self.assert_fails(self.pull())
        self.assertEqual(os.path.getsize(self.stored + ".part"), 1000)
        self.assertFalse(os.path.exists(self.stored))
        self.server.cut = 0
        self.assert_pulled(self.pull())
        self.assertIn("bytes=1000-", [headers.get("Range") for _, headers in self.server.requests])

    def test_a_server_without_ranges_starts_again(self):
        self.server.cut, self.server.ranges = 1000, False
        self.pull()
        self.server.cut = 0
        self.assert_pulled(self.pull())

    def test_a_part_that_is_whole_already(self):
        os.makedirs(os.path.dirname(self.stored))
        with open(self.stored + ".part", "wb") as f:
            f.write(self.model_bytes)
        self.assert_pulled(self.pull())

    def test_a_wrong_hash_is_refused(self):
        self.server.hash = "0" * 64
        self.assert_fails(self.pull(), "SHA-256")
        self.assertFalse(os.path.exists(self.stored))
        self.assertFalse(os.path.exists(self.stored + ".part"))

    def test_gated_models_need_the_token(self):
        self.server.token = "secret"
        self.assert_fails(self.pull(), "HF_TOKEN")
        self.assert_fails(self.pull(HF_TOKEN="wrong"), "401")
        self.assert_pulled(self.pull(HF_TOKEN="secret"))

    def test_offline_asks_nothing(self):
        self.assert_fails(self.pull(HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE")
        self.assertEqual(self.server.requests, [])

    def test_the_hub_clients_cache_is_read_in_place(self):
        snapshot = self.path("hf-home/hub/models--owner--tiny-GGUF/snapshots/abc")
        os.makedirs(snapshot)
        with open(os.path.join(snapshot, "tiny-Q4_K_M.gguf"), "wb") as f:
            f.write(self.model_bytes)
        self.assertEqual(self.pull(HF_HUB_OFFLINE="1").stdout.strip(), os.path.join(snapshot, "tiny-Q4_K_M.gguf"))

    def test_hostile_listings(self):
        for listing in (b"", b"[]", b"{", b'{"siblings": 3}', b'{"siblings": [{"rfilename": "../../x-Q4_K_M.gguf"}]}',
                        b'{"siblings": [{"rfilename": "/tmp/x-Q4_K_M.gguf"}, 7, null]}'):
            self.server.listing = listing
            self.assert_fails(self.pull())
        self.assertFalse(os.path.exists(self.path("models/x-Q4_K_M.gguf")))

    def test_names_that_leave_the_folder(self):
        for name in ("hf:../x", "hf:a/../b", "hf:a", "hf:a/b/../../c.gguf"):
            self.assert_fails(self.pull(name), code=2)

    def test_missing_repository(self):
        self.assert_fails(self.pull("hf:owner/other"), "404")

    def test_rm_removes(self):
        self.pull()
        self.assertEqual(self.snug("rm", f"hf:{REPO}/tiny-Q4_K_M.gguf").returncode, 0)
        self.assertFalse(os.path.exists(self.stored))
        self.assert_fails(self.snug("rm", "nothing"), "nothing")


main()
