#!/usr/bin/env python3
"""service_test.py ROOT MODEL: what the unit in the Debian system ROOT starts, as a user without rights: it comes up with the
configuration of the package, takes requests, and ends by SIGTERM with what it keeps written down. MODEL is a path in ROOT."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request

ROOT, MODEL = sys.argv[1:3]
USER = 64242
STATE = "/var/lib/snug"


def inside(path):
    return ROOT + path


def unit(name):
    with open(inside("/lib/systemd/system/snug.service")) as f:
        return re.findall(rf"^{name}=(.*)$", f.read(), re.MULTILINE)


def main():
    for folder in (STATE, "/var/cache/snug"):  # StateDirectory, CacheDirectory
        os.mkdir(inside(folder))
        os.chown(inside(folder), USER, USER)
    shutil.copy(inside(MODEL), inside(STATE + "/tiny.gguf"))
    with open(inside("/etc/snug/serve.toml")) as f:
        settings = f.read()
    changed = re.sub(r'(?m)^model = .*$', f'model = "{STATE}/tiny.gguf"', settings).replace("port = 8080", "port = 0")
    assert changed.count("tiny.gguf") == 1 and "port = 0" in changed, changed
    with open(inside("/etc/snug/serve.toml"), "w") as f:
        f.write(changed)
    variables = [word.replace("%S", "/var/lib").replace("%C", "/var/cache") for line in unit("Environment") for word in line.split()]
    assert not any("%" in v for v in variables), variables
    program = unit("ExecStart")[0].split()
    server = subprocess.Popen(
        ["timeout", "120", "chroot", f"--userspec={USER}:{USER}", ROOT, "env", "-i", "PATH=/usr/bin:/bin", *variables, *program],
        stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        line = server.stdout.readline()
        address = re.search(r"http://\S+?:\d+", line)
        assert address, f"it does not start: {line!r}"
        address = address[0]
        with urllib.request.urlopen(address + "/ready") as reply:
            assert reply.status == 200
        body = b'{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}'
        with urllib.request.urlopen(urllib.request.Request(address + "/v1/chat/completions", body)) as reply:
            assert b'"choices"' in reply.read()
        server.send_signal(signal.SIGTERM)  # timeout passes it on
        assert server.wait(60) == 0, server.returncode
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    assert os.listdir(inside(STATE + "/kv")), "nothing was kept"


if __name__ == "__main__":
    main()
