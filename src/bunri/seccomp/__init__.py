"""Runs in: the process that makes a plan; pure. System call filters as values: write, compile, simulate, explain, dump.

    from bunri.seccomp import Arg, allow, attack_rules, compile

    program = compile([
        *attack_rules(),
        allow("mmap", when=Arg(2).masked(PROT_EXEC) == 0, reason="memory, but no code"),
        allow("read", "write", "exit_group", reason="the work"),
    ])
    program.decide("x86_64", "mmap", (0, 4096, PROT_READ))      # Action.ALLOW
    print(program.explain("mmap", (0, 4096, PROT_EXEC)))        # which rule, and why
    print(program.listing())                                    # the instructions
    bunri.filters.install(program)                              # for this process, without the rest of bunri

The grammar of a rule:

    rule      = verb "(" name {"," name} ["," "when=" condition] ["," "with_=" action] "," "reason=" text ")"
    verb      = "allow" | "deny" | "kill" | "notify" | "trap" | "log" | "dangerous_allow" | "dangerous_log"
    name      = the kernel's name of a system call ("openat")  |  "@" group ("@stdio", "@system-service")
    condition = test | condition "&" condition | condition "|" condition      (each in parentheses)
    test      = arg ("==" | "!=" | "<" | "<=" | ">" | ">=") number
              | arg ".one_of(" number {"," number} ")" | arg ".between(" number "," number ")"
              | bits ("==" | "!=") number  |  bits ".one_of(" number {"," number} ")"
    bits      = arg ".masked(" number ")"  |  arg ".int32"
    arg       = "Arg(" 0..5 ")"

What the rules mean:

- For one call, the first rule whose condition holds decides; if none does, the program's `default`. A call that no
  table knows gets `unknown`. Another architecture, or x32, dies before any rule is asked.
- A rule that could never decide a call that it names is an error that shows both rules, unless both would do the
  same. What comes with a *group* may have been decided by an earlier rule: exceptions stand first, then the group.
- An `allow` with a condition does not narrow an `allow` without one, before or after it; the call would go on whatever
  the condition says. That is an error too: refuse what is not wanted with `deny(when=)`, before the group.
- Arguments are unsigned 64-bit numbers and all 64 bits are compared. The kernel itself reads an `int` parameter by
  its low 32 bits: where a refusal hangs on it (deny, kill, allow with != or >) write `.int32`, else a caller gets past
  by setting a high bit.
- Pointers cannot be compared, except with 0: a filter cannot see what they point to. Grant paths and addresses instead
  (`fs.read(...)`, Landlock), or let a broker look at them.
- A name that one architecture lacks ("open" on arm64) is passed over there; one that none has is an error with the
  nearest name.
- Attack-shaped calls (`ATTACK_SHAPED`) are not taken by `allow` or `log`, and left out of their groups, unless
  spelled `dangerous_allow`. A filter in which clone can make namespaces does not compile: `clone_rules(...)` goes
  before what names clone.

Sources: seccomp(2), Documentation/userspace-api/seccomp_filter.rst, pledge(2), systemd.exec(5).
"""

from typing import TYPE_CHECKING

from bunri import later
from bunri.seccomp._names import AUDIT_ARCH, KERNEL_OF_TABLES, X32_BIT, arches, is_known, name_of, syscalls_of
from bunri.seccomp._pointers import POINTERS
from bunri.seccomp.actions import Action, Kind
from bunri.seccomp.attack import ATTACK_REASONS, ATTACK_SHAPED
from bunri.seccomp.conditions import Arg, Condition
from bunri.seccomp.groups import group, groups
from bunri.seccomp.rules import Rule, allow, dangerous_allow, dangerous_log, deny, kill, log, notify, trap

if TYPE_CHECKING:
    from bunri.seccomp._assemble import MOST_INSTRUCTIONS, Instruction
    from bunri.seccomp._compile import compile
    from bunri.seccomp._minijail import from_minijail
    from bunri.seccomp._oci import from_oci
    from bunri.seccomp._oci_out import to_oci
    from bunri.seccomp._systemd import from_systemd, to_systemd
    from bunri.seccomp._trace import from_trace
    from bunri.seccomp.imported import Exported, Imported
    from bunri.seccomp.presets import Children, attack_rules, clone_rules
    from bunri.seccomp.program import Program, Source
else:
    __getattr__ = later.names_of(
        __name__,
        {
            "_assemble": "MOST_INSTRUCTIONS Instruction",
            "_compile": "compile",
            "_minijail": "from_minijail",
            "_oci": "from_oci",
            "_oci_out": "to_oci",
            "_systemd": "from_systemd to_systemd",
            "_trace": "from_trace",
            "imported": "Exported Imported",
            "presets": "Children attack_rules clone_rules",
            "program": "Program Source",
        },
    )

__all__ = [
    "ATTACK_REASONS",
    "ATTACK_SHAPED",
    "AUDIT_ARCH",
    "KERNEL_OF_TABLES",
    "MOST_INSTRUCTIONS",
    "POINTERS",
    "X32_BIT",
    "Action",
    "Arg",
    "Children",
    "Condition",
    "Exported",
    "Imported",
    "Instruction",
    "Kind",
    "Program",
    "Rule",
    "Source",
    "allow",
    "arches",
    "attack_rules",
    "clone_rules",
    "compile",
    "dangerous_allow",
    "dangerous_log",
    "deny",
    "from_minijail",
    "from_oci",
    "from_systemd",
    "from_trace",
    "group",
    "groups",
    "is_known",
    "kill",
    "log",
    "name_of",
    "notify",
    "syscalls_of",
    "to_oci",
    "to_systemd",
    "trap",
]
