# pyright: basic, reportMissingTypeStubs=false, reportMissingModuleSource=false
"""Runs in: the session worker, after confinement. The data connections of one peer, and what goes over them.

They come from the monitor as descriptors, when a transfer begins and not before; a call to the monitor blocks, which is
right where one process serves one peer. Small files go and come at once, without pyftpdlib's loop.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import bunri
from bunri.apps.ftpd.files import NotStoredError
from bunri.apps.ftpd.lines import Lines
from bunri.apps.ftpd.messages import Data, NoData, Rights
from bunri.apps.ftpd.passive import Passive
from bunri.apps.ftpd.transfers import Aborted, handler_for, send_at_once, take_at_once

LOWEST_PORT = 1024
BEFORE, AFTER = "150 File status okay. About to open data connection.", "226 Transfer complete."


class DataConnections(Lines):
    """What PASV, PORT and the transfers behind them are about."""

    _in_dtp_queue: Any
    _out_dtp_queue: Any
    _respond: Callable[..., None]  # several answers, said together

    def __init__(
        self,
        control: Any,
        server: Any,
        loop: Any,
        data: Data,
        rights: Rights,
        protected: bool,
        before_long: Callable[[], None],
    ) -> None:
        """`before_long`: called before the peer is waited for, who has to come."""
        self._data = data
        self._rights = rights
        self._protected = protected
        self._passive = Passive(data, rights.patience, before_long)
        self._port: int | None = None  # 0: the peer comes to us
        self._connection: socket.socket | None = None  # of the peer, who has come before he was told to
        self._sent = self._taken = 0  # bytes of the present file that have gone, or come
        self._is_logged = False  # what the present command did
        self.data_channel: Any = None
        self.dtp_handler = handler_for(rights)
        super().__init__(control, server, ioloop=loop)

    def _make_epasv(self, extmode: bool = False) -> None:
        self._forget_data()
        here: Any = self.socket
        address = here.getsockname()[0].removeprefix("::ffff:")
        if ":" in address and not extmode:
            self.respond("425 PASV has no room for an IPv6 address. Use EPSV.")
            return
        try:
            port = self._passive.listen()
        except NoData as fault:
            self.respond(str(fault))
            return
        self._port = 0
        if extmode:
            self.respond(f"229 Entering Extended Passive Mode (|||{port}|)")
            return
        shown = (self._rights.pasv_address or address).replace(".", ",")
        self.respond(f"227 Entering Passive Mode ({shown},{port >> 8},{port & 255}).")

    def _make_eport(self, ip: str, port: int) -> None:
        if ip != self.remote_ip.removeprefix("::ffff:") or port < LOWEST_PORT:
            self.respond("500 Illegal PORT command.")  # said early; the monitor would not do it
            return
        self._forget_data()
        self._port = port
        self.respond("200 PORT command successful. Consider using PASV.")

    def _forget_data(self) -> None:
        if self.data_channel is not None:
            self.data_channel.close()
            self.data_channel = None
        self._passive.forget()
        self._port = None

    def ftp_EPSV(self, line: str) -> None:
        if line.upper() != "ALL":
            super().ftp_EPSV(line)
            return
        self._epsvall = True
        self.respond("200 EPSV ALL ok.")  # RFC 2428, section 4

    def ftp_PBSZ(self, line: str) -> None:
        self.respond("200 PBSZ set to 0.")

    def ftp_PROT(self, line: str) -> None:
        if line.upper() not in ("C", "P"):
            self.respond("536 PROT knows C and P.")
        else:
            self._protected = line.upper() == "P"
            self.respond("200 PROT now Private." if self._protected else "200 PROT now Clear.")

    def _has_data(self) -> bool:
        if self._may_have_data():
            return True
        self._is_logged = True  # as vsftpd: nothing was begun
        return False

    def _may_have_data(self) -> bool:
        if self._rights.only_tls and not self._protected:
            self.respond("522 Data connections must be encrypted.")
            return False
        if self._port is None and self.data_channel is None:
            self.respond("425 Use PORT or PASV first.")
            return False
        return True

    def push_dtp_data(self, data: Any, isproducer: bool = False, file: Any = None, cmd: str | None = None) -> None:
        if not self._has_data():
            if file is not None:
                file.close()
            return
        if file is not None and self._goes_at_once(file):
            return
        super().push_dtp_data(data, isproducer=isproducer, file=file, cmd=cmd)
        if self.data_channel is None:
            self._fetch_data_channel(file)

    def _goes_at_once(self, file: Any) -> bool:
        """A small file to a peer who has come already: what is said before it and behind it is said together."""
        if not self._is_as_it_stands():
            return False
        self._connection = self._passive.come()
        if self._connection is None:
            return False
        self._port = None
        return self._is_sent_whole(self._connection, file, BEFORE, AFTER)

    def _is_as_it_stands(self) -> bool:
        return self._current_type == "i" and not self._rights.rate

    def ftp_STOR(self, file: str, mode: str = "w") -> None:
        if not self._has_data():
            return
        try:
            super().ftp_STOR(file, mode)
        except NotStoredError as fault:
            self.respond(f"553 {fault}.")  # RFC 959, section 5.4; pyftpdlib says 550
        else:
            self._fetch_for_upload()

    def ftp_STOU(self, line: str) -> None:
        if self._has_data():
            super().ftp_STOU(line)
            self._fetch_for_upload()

    def _fetch_for_upload(self) -> None:
        if self._in_dtp_queue is not None and self.data_channel is None:
            self._fetch_data_channel(self._in_dtp_queue[0])

    def _fetch_data_channel(self, file: Any) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            self._sent = self._taken = 0
            port, self._port = self._port, None
            try:
                p = self._protected
                connection = self._connected(port, p) if port else self._passive.accept(p)
            except NoData as fault:
                self._give_up(file, str(fault))
                return
            if file is not None and self._is_as_it_stands() and self._is_over(connection, file):
                self._out_dtp_queue = self._in_dtp_queue = None
                return
        channel = self.dtp_handler(connection, self)
        if not channel.connected:  # he has reset it already: pyftpdlib would say nothing
            if file is not None:
                self.log_transfer("", file.name, self._in_dtp_queue is not None, False, 0.0, self._sent)
            self._give_up(file, f"426 Transfer aborted; {self._sent} bytes transmitted.")
            return
        channel.tot_bytes_sent, channel.tot_bytes_received = self._sent, self._taken
        self.data_channel = channel
        self._on_dtp_connection()

    def _connected(self, port: int, protected: bool) -> socket.socket:
        connection = bunri.call(self._data.connect, port, protected).result()
        connection.setblocking(False)
        return connection

    def _give_up(self, file: Any, answer: str) -> None:
        self._out_dtp_queue = self._in_dtp_queue = None
        if file is not None:
            file.close()
        self.respond(answer)

    def _is_over(self, connection: socket.socket, file: Any) -> bool:
        """Whether a transfer has ended here, as small ones do."""
        if self._in_dtp_queue is None:
            return self._is_sent_whole(connection, file, AFTER)
        return self._is_taken_whole(connection, file)

    def _is_taken_whole(self, connection: socket.socket, file: Any) -> bool:
        """Of an upload. Else `_taken` bytes of it have come."""
        begun, answer = time.monotonic(), AFTER
        control: Any = self.socket
        try:
            self._taken, is_over = take_at_once(connection, control, file)
        except Aborted as fault:
            self._taken, is_over, answer = fault.taken, True, fault.answer
        if is_over:
            connection.close()
            file.close()
            self.respond(answer)
            elapsed = round(time.monotonic() - begun, 3)
            self.log_transfer("STOR", file.name, True, answer is AFTER, elapsed, self._taken)
        return is_over

    def _is_sent_whole(self, connection: socket.socket, file: Any, *answers: str) -> bool:
        """Whether a download has ended here, as small ones do. Else `_sent` bytes of it have gone."""
        begun = time.monotonic()
        self._sent, is_whole = send_at_once(connection, file)
        if is_whole:
            connection.close()  # before the answer (RFC 959, section 3.3)
            file.close()
            self._connection = None
            self._respond(*answers)
            self.log_transfer("RETR", file.name, False, True, round(time.monotonic() - begun, 3), self._sent)
        return is_whole
