"""Runs in: every process. prctl(2): what a process says about itself, and cannot take back."""

from __future__ import annotations

import ctypes

from bunri.kernel._call import failure, function

SET_PDEATHSIG = 1
GET_PDEATHSIG = 2
GET_DUMPABLE = 3
SET_DUMPABLE = 4
SET_NAME = 15
GET_NAME = 16
CAPBSET_READ = 23
CAPBSET_DROP = 24
GET_SECUREBITS = 27
SET_SECUREBITS = 28
SET_NO_NEW_PRIVS = 38
GET_NO_NEW_PRIVS = 39
GET_TID_ADDRESS = 40
SET_THP_DISABLE = 41
GET_THP_DISABLE = 42
CAP_AMBIENT = 47
SET_MDWE = 65
GET_MDWE = 66

_AMBIENT_IS_SET, _AMBIENT_RAISE, AMBIENT_CLEAR_ALL = 1, 2, 4
_MDWE_REFUSE_EXEC_GAIN = 1

# securebits, capabilities(7); the lock of each is the next bit
NOROOT = 1 << 0
NO_SETUID_FIXUP = 1 << 2
KEEP_CAPS = 1 << 4
NO_CAP_AMBIENT_RAISE = 1 << 6

_prctl = function("prctl", ctypes.c_int, *[ctypes.c_void_p] * 4)


def prctl(option: int, name: str, *arguments: object) -> int:
    """prctl(2) itself; `name` is for the error."""
    result: int = _prctl(option, *(*arguments, 0, 0, 0, 0)[:4])
    if result < 0:
        raise failure(f"prctl({name})")
    return result


def set_no_new_privs() -> None:
    prctl(SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", 1)


def no_new_privs() -> bool:
    return prctl(GET_NO_NEW_PRIVS, "PR_GET_NO_NEW_PRIVS") == 1


def set_mdwe() -> None:
    """Memory-deny-write-execute: no mapping gains execution. EINVAL before Linux 6.3."""
    prctl(SET_MDWE, "PR_SET_MDWE", _MDWE_REFUSE_EXEC_GAIN)


def mdwe() -> bool:
    return prctl(GET_MDWE, "PR_GET_MDWE") & _MDWE_REFUSE_EXEC_GAIN != 0


def set_small_pages() -> None:
    """No transparent huge pages for this process, nor for what is forked from it until that takes it back."""
    prctl(SET_THP_DISABLE, "PR_SET_THP_DISABLE", 1)


def small_pages() -> bool:
    return prctl(GET_THP_DISABLE, "PR_GET_THP_DISABLE") == 1


def set_dumpable(value: int) -> None:
    """0: no core, and /proc/self belongs to root; 1: the ordinary state."""
    prctl(SET_DUMPABLE, "PR_SET_DUMPABLE", value)


def dumpable() -> int:
    return prctl(GET_DUMPABLE, "PR_GET_DUMPABLE")


def set_parent_death_signal(number: int) -> None:
    """The signal to get when the *thread* that made this process ends. A change of credentials clears it."""
    prctl(SET_PDEATHSIG, "PR_SET_PDEATHSIG", number)


def parent_death_signal() -> int:
    found = ctypes.c_int()
    prctl(GET_PDEATHSIG, "PR_GET_PDEATHSIG", ctypes.byref(found))
    return found.value


def set_securebits(bits: int) -> None:
    prctl(SET_SECUREBITS, "PR_SET_SECUREBITS", bits)


def securebits() -> int:
    return prctl(GET_SECUREBITS, "PR_GET_SECUREBITS")


def in_bounding_set(capability: int) -> bool:
    """Whether a capability is in the bounding set. EINVAL above the kernel's last one."""
    return prctl(CAPBSET_READ, "PR_CAPBSET_READ", capability) == 1


def drop_from_bounding_set(capability: int) -> None:
    prctl(CAPBSET_DROP, "PR_CAPBSET_DROP", capability)


def clear_ambient() -> None:
    prctl(CAP_AMBIENT, "PR_CAP_AMBIENT_CLEAR_ALL", AMBIENT_CLEAR_ALL)


def raise_ambient(capability: int) -> None:
    prctl(CAP_AMBIENT, "PR_CAP_AMBIENT_RAISE", _AMBIENT_RAISE, capability)


def in_ambient_set(capability: int) -> bool:
    return prctl(CAP_AMBIENT, "PR_CAP_AMBIENT_IS_SET", _AMBIENT_IS_SET, capability) == 1


def set_name(name: str) -> None:
    """The thread's name, as ps shows it; the kernel keeps 15 bytes."""
    prctl(SET_NAME, "PR_SET_NAME", name.encode()[:15])


def name() -> str:
    buffer = ctypes.create_string_buffer(16)
    prctl(GET_NAME, "PR_GET_NAME", buffer)
    return buffer.value.decode(errors="replace")


def tid_address() -> int:
    """Where the C library keeps this thread's id. EINVAL where the kernel was built without checkpoint/restore."""
    found = ctypes.c_void_p()
    prctl(GET_TID_ADDRESS, "PR_GET_TID_ADDRESS", ctypes.byref(found))
    return found.value or 0
