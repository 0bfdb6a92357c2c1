"""Runs in: nowhere; values only. Calls that no granted work needs, each with the reason (THREATS 4 and 15).

Whoever makes one has been taken over, or is a debugger: the shipped answer is the death of the process.
They are refused under broad profiles too: `allow` does not take them, and leaves them out of groups.
Namespace flags of clone are attack-shaped as well, but by argument: see `clone_rules`.

Not here, though THREATS 4 refuses them by default: pidfd_open and pidfd_send_signal. asyncio tries pidfd_open when a
loop is made and takes EPERM for an answer; death would end harmless workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "it controls another process from outside": ("ptrace",),
    "it reads or writes another process's memory": ("process_vm_readv", "process_vm_writev"),
    "it acts on another process's memory": ("process_madvise",),
    "it takes a descriptor out of another process": ("pidfd_getfd",),
    "it compares other processes' kernel objects, which tells kernel addresses apart": ("kcmp",),
    "it changes what the file tree looks like, and with it every path rule": (
        "mount",
        "umount2",
        "pivot_root",
        "open_tree",
        "open_tree_attr",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
    ),
    "a second chroot is the way out of the first": ("chroot",),
    "new namespaces give an ordinary user capabilities over kernel code that he could not reach before": ("unshare",),
    "it enters another process's namespaces": ("setns",),
    "it runs programs inside the kernel": ("bpf",),
    "it is a large and often broken kernel interface, and observes other processes": ("perf_event_open",),
    "it holds the kernel still at a page fault of the attacker's choosing (THREATS 17)": ("userfaultfd",),
    "its operations pass no filter: what it is told to open or send is not seen here": (
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
    ),
    "keys outlive the process and are shared by all of a user's": ("add_key", "request_key", "keyctl"),
    "it opens a file by number, past every directory": ("open_by_handle_at",),
    "it gives out the numbers that open_by_handle_at takes": ("name_to_handle_at",),
    "it starts another kernel": ("kexec_load", "kexec_file_load"),
    "it stops or restarts the machine": ("reboot",),
    "it loads or removes kernel code": ("init_module", "finit_module", "delete_module"),
    "a filter of the worker's own could lie to its libraries, or hold a listener": ("seccomp",),
    "READ_IMPLIES_EXEC makes data executable, and others weaken address randomisation": ("personality",),
    "it sees, and can hold, other processes' file accesses": ("fanotify_init", "fanotify_mark"),
    "it changes what the machine swaps to": ("swapon", "swapoff"),
    "it turns the machine's accounting file": ("acct",),
    "it changes disk quotas": ("quotactl", "quotactl_fd"),
    "it talks to devices past the kernel": ("iopl", "ioperm"),
    "it makes segments of other kinds of code; an old source of kernel faults": ("modify_ldt",),
}

ATTACK_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {name: reason for reason, names in _FAMILIES.items() for name in names}
)
"""Each attack-shaped call, with the reason why nothing granted needs it."""

ATTACK_SHAPED: Final[frozenset[str]] = frozenset(ATTACK_REASONS)
"""The names. Death by default, also under broad profiles."""
