"""DER that can be taken apart and put together again, and its PEM."""

import base64


def pem(*ders: bytes) -> str:
    return "".join(f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n" for der in ders)


def ders(chain: str) -> list[bytes]:
    blocks = chain.split("-----BEGIN CERTIFICATE-----")[1:]
    return [base64.b64decode(block.split("-----END")[0]) for block in blocks]


class Node:
    """A DER value that can be taken apart, changed and put together, with lengths that fit."""

    def __init__(self, tag: int, content: "bytes | list[Node]"):
        self.tag, self.content = tag, content

    @classmethod
    def parse(cls, data: bytes) -> "list[Node]":
        nodes, place = [], 0
        while place < len(data):
            tag, length, place = data[place], data[place + 1], place + 2
            if length & 0x80:
                size = length & 0x7F
                length, place = int.from_bytes(data[place : place + size], "big"), place + size
            content = data[place : place + length]
            assert len(content) == length
            place += length
            nodes.append(cls(tag, cls.parse(content) if tag & 0x20 else content))
        return nodes

    def encode(self) -> bytes:
        content = self.content if isinstance(self.content, bytes) else b"".join(node.encode() for node in self.content)
        length = bytes([len(content)]) if len(content) < 128 else bytes([0x80 | (size := (len(content).bit_length() + 7) // 8)]) + len(content).to_bytes(size, "big")
        return bytes([self.tag]) + length + content

    def all(self) -> "list[Node]":
        return [self, *(inner for node in (self.content if isinstance(self.content, list) else []) for inner in node.all())]
