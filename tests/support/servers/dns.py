"""A DNS server on the loopback interface with the TXT records of a test."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class DnsServer:
    """A running server. `records` has the texts by the name of their record; `is_silent` answers nothing."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.records: dict[str, str] = {}
        self.is_silent = False


@contextmanager
def run_dns_server() -> Iterator[DnsServer]:
    """Run a DNS server within the block."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if server.is_silent:
                return
            data, connection = self.request
            query = dns.message.from_wire(data)
            response = dns.message.make_response(query)
            response.flags |= dns.flags.RA
            (question,) = query.question
            text = server.records.get(question.name.to_text(omit_final_dot=True))
            if text is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
            else:
                # In two parts, as long texts are stored.
                value = f'"{text[:10]}" "{text[10:]}"'
                response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "TXT", value))
            connection.sendto(response.to_wire(), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler) as udp:
        server = DnsServer(udp.server_address[1])
        thread = threading.Thread(target=udp.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        udp.shutdown()
        thread.join()
