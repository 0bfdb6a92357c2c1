"""Runs in: nowhere; a docstring. `bunri ftpd`: an FTP server whose processes are its privilege table, one file each.

| file | process | rights |
|---|---|---|
| monitor.py | one, the parent | whoever started it: the listener, data sockets, starting workers, logs |
| prelogin.py | one a connection, until login | its own uid, 26 calls; the control socket and a `Login` |
| session.py | one a connection, from then on | the user's ids and folder; the control socket, a `Data`, a `Log` |
| tls.py | one a connection with TLS | its own uid; the key, the ciphertext |
| auth.py | one a password | PAM, as root; or the file of virtual users, with a uid of its own |

engine.py, transfers.py and files.py are what the session runs; messages.py is all that crosses between them. broker.py, favours.py,
logins.py, logs.py, pace.py, secure.py, accounts.py and listening.py are parts of the monitor.
"""
