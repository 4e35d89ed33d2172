"""Somebody in the middle between a gateway and its PostgreSQL, with a certificate that is believed: decrypts, encrypts again.

Prints `port N`, then serves until its standard input ends. Only channel binding can tell it from the server. With ASKS it does not
pass on the login but asks for less itself, and prints what it is told: `cleartext`, `md5` or `nothing`.
"""
import os
import socket
import ssl
import sys
import threading

SSL_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])


def pump(source, sink):
    try:
        while block := source.recv(65536):
            sink.sendall(block)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


ASKS = {"cleartext": b"\0\0\0\3", "md5": b"\0\0\0\5salt", "nothing": b"\0\0\0\0"}


def ask(client, body):
    """Authentication requests: PostgreSQL manual, "Message Formats"."""
    try:
        client.recv(65536)
        client.sendall(b"R" + (4 + len(body)).to_bytes(4, "big") + body)
        print("told", client.recv(65536), flush=True)
        client.close()
    except OSError:
        pass


def serve(plain, certificate):
    try:
        if plain.recv(8, socket.MSG_WAITALL) != SSL_REQUEST:
            return plain.close()
        plain.sendall(b"S")
        client = certificate.wrap_socket(plain, server_side=True)
    except OSError:
        return plain.close()  # it did not believe us
    if "ASKS" in os.environ:
        return ask(client, ASKS[os.environ["ASKS"]])
    server = socket.create_connection(("127.0.0.1", int(os.environ["TARGET_PORT"])))
    server.sendall(SSL_REQUEST)
    assert server.recv(1) == b"S"
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    server = anyone.wrap_socket(server)
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)


def accept(listener, certificate):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, certificate), daemon=True).start()


certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
certificate.load_cert_chain(os.environ["CERTIFICATE"], os.environ["KEY"])
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener, certificate), daemon=True).start()
print(f"port {listener.getsockname()[1]}", flush=True)
sys.stdin.read()
