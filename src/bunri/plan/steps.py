"""Runs in: nowhere; values only. The steps a plan is made of.

Each step is one thing done to the calling process by `bunri.confine.carry_out`, in the order of the plan.
Two sequences make a worker. The *template* does once what a fork inherits; each *worker* does the rest after the clone.
`AT_REQUEST` stands for what is known only when the monitor asks for one worker (its uid).

Steps cross from the monitor to its zygotes as msgpack; the tags below are the whole vocabulary.
"""

from __future__ import annotations

import msgspec

EMPTY_DIRECTORY = (
    "/run/bunri/empty"  # root's, mode 0555, made by the carrying out where it is missing: nobody can write in it
)


class Step(msgspec.Struct, frozen=True, tag_field="step", kw_only=True):
    """One step. `reason` is shown by explain and by the plan's listing."""

    reason: str = ""


class Unshare(Step, frozen=True, tag="unshare"):
    """unshare(2): leave these namespaces. Names: mnt net ipc uts cgroup time pid user."""

    namespaces: tuple[str, ...]


class Mount(msgspec.Struct, frozen=True):
    """One thing that is to stand in the new root.

    kind "bind": the subtree `source` of the old root, at `at`; "tmpfs": an empty file system of `size` bytes;
    "link": a symbolic link at `at` to `source`; "device": the old root's /dev/null and the like, by bind;
    "proc": a fresh /proc of the worker's own pid namespace; "directory": an empty directory, for a worker's own mount
    to go on; "text": a file with `source` as its content.

    A bind at "/" is the root itself (what chroot did): nothing is made in it, so all other mounts need their place to
    exist there. A tmpfs is mode 0700 and belongs to the ids of the context. `optional`: left out where the old root
    has no `source`.
    """

    kind: str
    at: str
    source: str = ""
    writable: bool = False
    executable: bool = False
    size: int = 0
    inodes: int = 0
    optional: bool = False


class NewRoot(Step, frozen=True, tag="new_root"):
    """An empty tmpfs root with only `mounts` in it, entered by pivot_root(2); the old root is detached; cwd is /."""

    mounts: tuple[Mount, ...]


class MountInRoot(Step, frozen=True, tag="mount_in_root"):
    """Mounts of a worker's own (its scratch), made in the root that the template already entered."""

    mounts: tuple[Mount, ...]


class Chroot(Step, frozen=True, tag="chroot"):
    """chroot(2) and chdir(2) to `path`: for root without a mount namespace. EMPTY_DIRECTORY, or the grant that stands
    at "/"."""

    path: str


class DropBounding(Step, frozen=True, tag="drop_bounding"):
    """Drop the capability bounding set down to `keep` (capability numbers), clear the ambient set."""

    keep: tuple[int, ...] = ()


class Securebits(Step, frozen=True, tag="securebits"):
    """NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE and their locks (capabilities(7))."""


class SetIds(Step, frozen=True, tag="set_ids"):
    """setgroups(2), setresgid(2), setresuid(2). uid or gid None: the request's. groups None: cannot be changed here.

    `groups_of_request`: the groups too are the request's (`Context.groups`); `groups` is then ()."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = ()
    groups_of_request: bool = False


class SetCapabilities(Step, frozen=True, tag="set_capabilities"):
    """capset(2): effective, permitted and inheritable become exactly `keep`. Explicit also where the uid change drops
    them."""

    keep: tuple[int, ...] = ()


class NoNewPrivs(Step, frozen=True, tag="no_new_privs"):
    """PR_SET_NO_NEW_PRIVS."""


class Mdwe(Step, frozen=True, tag="mdwe"):
    """PR_SET_MDWE: no mapping is ever both writable and executable, and none becomes executable later (Linux 6.3)."""


class Limits(Step, frozen=True, tag="limits"):
    """setrlimit(2), hard = soft. `values`: name (as "NOFILE") -> number.
    `above_image`: RLIMIT_AS is the process's own VmSize now plus this many bytes; None leaves it alone."""

    values: dict[str, int]
    above_image: int | None = None


class OomScore(Step, frozen=True, tag="oom_score"):
    score: int = 500


class Landlock(Step, frozen=True, tag="landlock"):
    """landlock_restrict_self(2) for ABI `abi`: access rights `handled_fs` and `handled_net` (bit masks) are refused but
    for `paths` (path, access mask) and `ports` (port, access mask); `scoped` is the mask of scopes.

    Paths are those of the root that the process has by then. The kernel refuses rights for directories on a path that
    is none: the carrying out takes them out of the mask there. A path of an `optional` mount that does not exist is
    left out."""

    abi: int
    handled_fs: int = 0
    handled_net: int = 0
    scoped: int = 0
    paths: tuple[tuple[str, int], ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    optional: tuple[str, ...] = ()


class Filter(Step, frozen=True, tag="filter"):
    """seccomp(2) SET_MODE_FILTER. `program` is an array of struct sock_filter. With `listener`, a notify descriptor
    results."""

    program: bytes
    listener: bool = False


class Heap(Step, frozen=True, tag="heap"):
    """All the memory that the worker will ever have, as room in its heap: `size` bytes. `arenas`: the interpreter's own
    come from there, for where a refused mmap is death; otherwise it gets none, and takes small objects from the heap."""

    size: int
    arenas: bool = False


class StrictMode(Step, frozen=True, tag="strict_mode"):
    """seccomp(2) SET_MODE_STRICT."""


class Label(Step, frozen=True, tag="label"):
    """Write `label` to /proc/self/attr (proc_pid_attr(5)): the SELinux domain, or the AppArmor profile, changes.
    `module`: "selinux" or "apparmor"."""

    module: str
    label: str


class NewSession(Step, frozen=True, tag="new_session"):
    """setsid(2): no controlling terminal."""


class Keyring(Step, frozen=True, tag="keyring"):
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): a fresh session keyring."""


class ParentDeath(Step, frozen=True, tag="parent_death"):
    """PR_SET_PDEATHSIG, SIGKILL, after the last credential change; then the parent is looked at again."""


class NotDumpable(Step, frozen=True, tag="not_dumpable"):
    """PR_SET_DUMPABLE 0."""


class CloseDescriptors(Step, frozen=True, tag="close_descriptors"):
    """close_range(2): everything but the descriptors the worker is meant to have."""


class Hostname(Step, frozen=True, tag="hostname"):
    """sethostname(2), in a uts namespace of its own."""

    name: str = "bunri"


class Surroundings(Step, frozen=True, tag="surroundings"):
    """umask 077, cwd /, and the environment: exactly `environment`."""

    environment: dict[str, str]


class Checkpoint(Step, frozen=True, tag="checkpoint"):
    """Stop until the monitor has looked. For hosts where nobody outside can look once the process is not dumpable."""


AnyStep = (
    Unshare
    | NewRoot
    | MountInRoot
    | Chroot
    | DropBounding
    | Securebits
    | SetIds
    | SetCapabilities
    | NoNewPrivs
    | Mdwe
    | Limits
    | OomScore
    | Landlock
    | Filter
    | Heap
    | StrictMode
    | Label
    | NewSession
    | Keyring
    | ParentDeath
    | NotDumpable
    | CloseDescriptors
    | Hostname
    | Surroundings
    | Checkpoint
)
