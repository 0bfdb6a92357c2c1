"""Runs in: nowhere; a docstring. `bunri ftpd`: an FTP server whose processes are its privilege table, one file each.

| file | process | rights |
|---|---|---|
| monitor.py | one, the parent | the listener, data sockets, starting workers |
| prelogin.py | one a connection, until login | the control socket and a `Login` |
| session.py | one a connection, from then on | the control socket, a `Data`, the shared folder read-only as its root |

engine.py is what the session runs; messages.py is all that crosses between them.
"""
