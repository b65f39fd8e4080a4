#!/usr/bin/env python3
"""A wheel that carries the binary: wheel.py STAGE VERSION FOLDER

STAGE is an installed tree (bin/, share/). `pip install` puts the binary beside python, manual pages and completions where
shells look for them in a user's or a virtual environment's share/. The tag says which glibc the binary needs at least.
"""

import os
import re
import shutil
import subprocess
import sys

METADATA = """Metadata-Version: 2.1
Name: snug-llm
Version: {version}
Summary: Language models inside the memory you have: runs and serves GGUF models on the CPU
License: Apache-2.0
Keywords: llm,gguf,inference,cpu
Classifier: Environment :: Console
Classifier: License :: OSI Approved :: Apache Software License
Classifier: Operating System :: POSIX :: Linux
Classifier: Topic :: Scientific/Engineering :: Artificial Intelligence
Requires-Python: >=3.8
Description-Content-Type: text/markdown

# snug

Language models inside the memory you have. This package is the `snug` program; it has no Python interface.

    pip install snug-llm
    snug run smollm2-135m "Why is the sky blue?"
    snug serve qwen2.5-coder-0.5b --memory 2GiB

`snug --help` and `man snug` say more.
"""
WHEEL = """Wheel-Version: 1.0
Generator: snug
Root-Is-Purelib: false
Tag: {tag}
"""


def needed_glibc(binary):
    """The newest version of glibc's symbols that it uses, as (2, 34)."""
    symbols = subprocess.run(["objdump", "-T", binary], check=True, capture_output=True, text=True).stdout
    return max(tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([0-9]+\.[0-9]+)", symbols))


def main():
    stage, version, folder = sys.argv[1:]
    tag = "py3-none-manylinux_{}_{}_x86_64".format(*needed_glibc(os.path.join(stage, "bin/snug")))
    tree = os.path.join(folder, "wheel")
    shutil.rmtree(tree, ignore_errors=True)
    data, info = (os.path.join(tree, f"snug_llm-{version}.{part}") for part in ("data", "dist-info"))
    os.makedirs(info)
    shutil.copytree(os.path.join(stage, "bin"), os.path.join(data, "scripts"))
    shutil.copytree(os.path.join(stage, "share"), os.path.join(data, "data", "share"))
    shutil.copy(os.path.join(stage, "share/doc/snug/LICENSE"), info)
    for name, text in (("METADATA", METADATA.format(version=version)), ("WHEEL", WHEEL.format(tag=tag))):
        with open(os.path.join(info, name), "w") as f:
            f.write(text)
    subprocess.run([sys.executable, "-m", "wheel", "pack", "--dest-dir", folder, tree], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, subprocess.CalledProcessError) as e:
        sys.exit(f"error: {e}")
