"""The compartments of the tests of labels. The domains and profiles are those of the guests of `make test-vm`."""

from __future__ import annotations

import bunri
from bunri import fs

FOLDER = "/usr/share/zoneinfo"
_READS = bunri.Policy(files=[fs.read(FOLDER)])


class Reader(bunri.Compartment):
    """Without a label of its own."""

    policy = _READS

    def read(self, path: str) -> int:
        with open(path, "rb") as file:
            return len(file.read())


class Worker(Reader):
    """In a domain that may open no file, whatever the policy grants."""

    policy = _READS.with_(selinux="bunri_worker_t")


class Spelled(Reader):
    """The same, with the whole context spelled out."""

    policy = _READS.with_(selinux="system_u:system_r:bunri_worker_t:s0")


class Allowed(Reader):
    """In a domain that may open files."""

    policy = _READS.with_(selinux="bunri_reader_t")


class Forbidden(Reader):
    """In a domain that the program may not change to."""

    policy = _READS.with_(selinux="bunri_forbidden_t")


class Nowhere(Reader):
    """In a domain that the loaded policy does not have."""

    policy = _READS.with_(selinux="bunri_nowhere_t")


class Profile(Reader):
    """Under a profile that allows no file."""

    policy = _READS.with_(apparmor="bunri_worker")


class AllowedProfile(Reader):
    """Under a profile that allows the folder."""

    policy = _READS.with_(apparmor="bunri_reader")


class Complaining(Reader):
    """Under a profile that only logs."""

    policy = _READS.with_(apparmor="bunri_complains")


class NoProfile(Reader):
    """Under a profile that nobody loaded."""

    policy = _READS.with_(apparmor="bunri_nowhere")
