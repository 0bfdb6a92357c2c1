"""Runs in: every process. Brokers: a process acts for a worker, as the subject, and hands back the descriptor.

    bunri.broker.Directory.at("/srv/pictures")     files beneath a directory
    bunri.broker.Connector.to("127.0.0.1", 5432)   connections to one address
    bunri.broker.Listener.on(8080)                 a listening socket
    bunri.broker.Names.here()                      look-up of hosts, users and groups

These are services: hand one to a worker, and it may use that one. For code that knows nothing of bunri there are the
grants `net.connect`, `net.listen`, `net.unix` and `via=Via.BROKER`, which go through a broker by themselves.
"""

from bunri.broker.services import Connector, Directory, GroupEntry, Listener, Names, UserEntry

__all__ = ["Connector", "Directory", "GroupEntry", "Listener", "Names", "UserEntry"]
