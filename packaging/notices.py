#!/usr/bin/env python3
"""The licences of everything that is compiled into the binary: notices.py OUT.gz CARGO MANIFEST...

Those of Debian's libraries come from /usr/share/doc, those of Rust crates from cargo. One that is missing is an error.
"""

import glob
import gzip
import json
import os
import subprocess
import sys

# Header-only, or static where SNUG_STATIC is on. Boost's licence asks for no notice beside a binary.
DEBIAN = ("libbsd-dev", "libcli11-dev", "libedit-dev", "libfmt-dev", "libhiredis-dev", "libmd-dev", "libncurses-dev",
          "libpcre2-dev", "libspdlog-dev", "libssl-dev", "liburing-dev", "libxxhash-dev", "nlohmann-json3-dev", "zlib1g-dev")
# Of the page in web/; DOMPurify's notice stands in the page itself.
PAGE = """marked
Copyright (c) 2018+, MarkedJS (https://github.com/markedjs/)
Copyright (c) 2011-2018, Christopher Jeffrey (https://github.com/chjj/)

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read().strip()


def debian():
    for name in DEBIAN:
        yield name, read(f"/usr/share/doc/{name}/copyright")


def crates(cargo, manifest):
    found = json.loads(subprocess.run(
        [cargo, "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu",
         "--manifest-path", manifest], check=True, capture_output=True, text=True).stdout)
    for crate in found["packages"]:
        if crate["source"] is None:
            continue  # ours
        folder = os.path.dirname(crate["manifest_path"])
        files = sorted(f for pattern in ("LICEN[CS]E*", "COPYING*", "*/COPYING") for f in glob.glob(os.path.join(folder, pattern))
                       if os.path.isfile(f))
        yield f"{crate['name']} {crate['version']} ({crate['license']})", "\n\n".join(map(read, files))


def main():
    out, cargo, *manifests = sys.argv[1:]
    names = {}  # by text: many crates have the same
    for source in (debian(), *(crates(cargo, m) for m in manifests)):
        for name, text in source:
            names.setdefault(text, []).append(name)
    parts = ["\n".join(found) + "\n\n" + text for text, found in sorted(names.items(), key=lambda item: item[1])]
    text = ("\n\n" + "-" * 100 + "\n\n").join(["What snug is built with, and the licences.", *parts, PAGE]) + "\n"
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(out, "wb") as f:
        f.write(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.CalledProcessError) as e:
        sys.exit(f"error: {e}")
