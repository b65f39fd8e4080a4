"""What the measurements here share: commands in a memory cgroup (v1 or v2), the page cache dropped before (needs root), and the
JSON that they end with."""

import json
import os
import subprocess
import threading
import time

MIB = 1 << 20
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def drop_caches():
    subprocess.run(["sync"])
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("1")


def disk_speed(build, model, seconds):
    """Bytes a second of reads as streaming asks for them, of the file that it would read."""
    pack = model + ".snug"
    return float(subprocess.check_output([f"{build}/disk_read", pack if os.path.exists(pack) else model, str(seconds)]))


class Group:
    """A memory cgroup; commands run in it."""

    def __init__(self, limit):
        self.v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        base = "/sys/fs/cgroup" if self.v2 else "/sys/fs/cgroup/memory"
        self.path = f"{base}/snug-budget-{os.getpid()}"
        os.makedirs(self.path, exist_ok=True)
        self.write("memory.max" if self.v2 else "memory.limit_in_bytes", limit)
        try:
            self.write("memory.swap.max" if self.v2 else "memory.swappiness", 0)
        except OSError:
            pass

    def write(self, name, value):
        with open(f"{self.path}/{name}", "w") as f:
            f.write(str(value))

    def process_bytes(self):
        """Bytes of the processes: anonymous and mapped, not what the page cache keeps beside them."""
        wanted = ("anon", "file_mapped") if self.v2 else ("rss", "mapped_file")
        with open(f"{self.path}/memory.stat") as f:
            stat = dict(line.split() for line in f)
        return sum(int(stat[name]) for name in wanted)

    def run(self, command, started=lambda child: None):
        """(exit code, stdout, largest process_bytes()); `started` is called with the Popen."""
        drop_caches()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                 preexec_fn=lambda: self.write("cgroup.procs", os.getpid()))
        most, running = [0], [True]

        def watch():
            while running[0]:
                try:
                    most[0] = max(most[0], self.process_bytes())
                except OSError:
                    pass
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        started(child)
        out, _ = child.communicate()
        running[0] = False
        watcher.join()
        return child.returncode, out, most[0]

    def close(self):
        for _ in range(50):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.1)
