"""Runs in: the test process. Policies of every kind, for properties that hold of all of them."""

from __future__ import annotations

from bunri.errors import Promise
from bunri.policy import AT_START, Capability, Policy, User, Via, fs, net

POLICIES = [
    Policy(),
    Policy(memory="512M", cpu="5s", wall="1m"),
    Policy(cpu=None, file_size="1G", open_files=100, threads=3, processes=2),
    Policy(user="ftp"),
    Policy(user=User.ids(1, 2, [4, 3])),
    Policy(user=User.same()),
    Policy(user=AT_START, files=AT_START, env=AT_START, memory=AT_START, wall=AT_START),
    Policy(files=[fs.read("/usr"), fs.write("/srv/x", at="/data"), fs.execute("/bin/sh"), fs.scratch("/tmp", "16M")]),
    Policy(files=[fs.python(), fs.system()]),
    Policy(files=[fs.read("/a'b \"c", via=Via.BROKER)]),
    Policy(network=[net.connect("db", 5432), net.listen(80), net.unix("/run/x")]),
    Policy(network=[net.dangerous_host()]),
    Policy(capabilities=[Capability.NET_RAW], syscalls=["flock", "@stdio", "dangerous_ptrace"], may_miss=list(Promise)),
    Policy(env={"TZ": "UTC", "A": 'b"\n'}, selinux="worker_t"),
    Policy.compute(),
    Policy.strict().with_(cpu="1s"),
    Policy.dangerous_unconfined(user="alice"),
]
