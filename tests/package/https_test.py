#!/usr/bin/env python3
"""https_test.py SNUG: `snug pull` over HTTPS believes the file of SSL_CERT_FILE, else that of the system, and nobody else.

Lays a certificate over the system's: to be run by root, where mounts are its own (unshare --mount).
"""

import hashlib
import http.server
import os
import ssl
import subprocess
import sys
import tempfile
import threading

SNUG = os.path.abspath(sys.argv[1])
SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
CONTENT = b"a model"


class Hub(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Linked-Etag", hashlib.sha256(CONTENT).hexdigest())
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)


def main(folder):
    certificate, key = os.path.join(folder, "certificate"), os.path.join(folder, "key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    clean = {k: v for k, v in os.environ.items() if k.lower() not in ("ssl_cert_file", "curl_ca_bundle", "https_proxy", "all_proxy")}
    clean |= {"HF_ENDPOINT": f"https://localhost:{server.server_port}", "HF_HOME": folder}

    def pull(name, **environment):
        models = os.path.join(folder, name)
        result = subprocess.run([SNUG, "pull", "hf:owner/repo/model.gguf"], env=clean | {"SNUG_MODELS": models} | environment,
                                capture_output=True, text=True, timeout=60)
        path = os.path.join(models, "hf/owner/repo/model.gguf")
        if result.returncode:
            assert not os.path.exists(path), "a model that nobody vouches for"
            return result.stderr
        with open(path, "rb") as f:
            assert f.read() == CONTENT
        return ""

    for case in (pull("stranger"), pull("no-file", SSL_CERT_FILE=folder + "/none")):
        assert case.startswith("error: ") and "cert" in case.lower(), case
    assert pull("variable", SSL_CERT_FILE=certificate) == ""
    if not os.path.exists(SYSTEM):
        sys.exit(f"error: no {SYSTEM}: apt-get install ca-certificates")
    subprocess.run(["mount", "--bind", certificate, SYSTEM], check=True)
    try:
        assert pull("system") == ""
    finally:
        subprocess.run(["umount", SYSTEM], check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(temporary)
