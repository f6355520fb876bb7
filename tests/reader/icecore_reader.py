#!/usr/bin/env python3
"""An independent reader of icecore repositories, written from docs/format.md alone.

It shares no code with the program and keeps no index: it reads the footer of every pack, and, to compare, every index
delta of the journals. It is for proving that the format is what its document says, and for getting data out of a
repository should the program ever be lost. It reads local repositories and never writes to one.

    icecore_reader.py REPO [--password X | --key-file FILE] list
    icecore_reader.py REPO [...] extract SNAPSHOT DIR
    icecore_reader.py REPO [...] check

Numbers in comments are sections of docs/format.md. Exit codes: 0 done, 1 failed, 3 done but not all of it, 4 damage found.
"""

import argparse
import datetime
import io
import json
import os
import re
import stat
import struct
import sys

import argon2.low_level
import cbor2
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

OBJECT_MAX, CONFIG_MAX, SLOT_MAX, PACK_MAX = 64 << 20, 1 << 20, 64 << 10, 256 << 20
CHUNK_MAX, BLOB_MAX = 4 << 20, (4 << 20) + (64 << 10)
SHARD = 65536
DATA, TREE, LIST = 0, 1, 2
FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK = range(1, 8)
HOLE = bytes(32)


class Damaged(Exception):
    """The bytes can't be what was written."""


class Unsupported(Exception):
    """A newer program is needed."""


def need(condition, what):
    if not condition:
        raise Damaged(what)


# 3. CBOR


def cbor(data, what):
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except Exception as error:  # the library has many
        raise Damaged(f"{what} is malformed: {error}") from None
    need(not stream.read(1), f"{what} is followed by something else")
    return value


def field(mapping, key, kind, what):
    """A required field of a map."""
    need(isinstance(mapping, dict) and isinstance(mapping.get(key), kind), f"{what}: field {key} is missing or of another type")
    return mapping[key]


def identifier(value, length, what):
    need(isinstance(value, bytes) and len(value) == length, f"{what}: an id of the wrong length")
    return value


def moment(value, what):
    need(isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value), f"{what}: not a time")
    return value[0], min(value[1], 999_999_999)


# 6. Keys


def keyed(key, *pieces):
    return blake3(b"".join(pieces), key=key).digest()


def derive(context, material):
    return blake3(material, derive_key_context=context).digest()


# 7. Sealing


class Seal:
    def __init__(self, suite, key):
        self.key, self.aes = key, AESGCM(key) if suite == 1 else None

    def open(self, number, associated, sealed):
        need(len(sealed) >= 16, "sealed bytes are too short")
        nonce = struct.pack("<I", number)
        if self.aes:
            try:
                return self.aes.decrypt(nonce + bytes(8), sealed, associated)
            except InvalidTag:
                raise Damaged("sealed bytes do not open") from None
        plain, tag = sealed[:-16], sealed[-16:]
        need(keyed(self.key, nonce, struct.pack("<Q", len(associated)), associated, plain)[:16] == tag, "sealed bytes do not open")
        return plain


class Fields:
    """Little-endian fields of a byte string."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, length):
        need(length <= len(self.data) - self.at, f"{self.what} ends too early")
        self.at += length
        return self.data[self.at - length : self.at]

    def get(self, layout):
        values = struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))
        return values[0] if len(values) == 1 else values

    def end(self):
        need(self.at == len(self.data), f"{self.what} is too long")


class Pack:
    """8. What is needed of a pack: its keys by kind, and (id, kind, codec, offset, stored, raw, base) of its blobs."""

    def __init__(self, repo, pack_id, salt, entries):
        self.id, self.salt, self.entries = pack_id, salt, entries
        data = Seal(repo.suite, keyed(repo.secrets["data"], b"pack data", salt))
        tree = Seal(repo.suite, keyed(repo.secrets["tree"], b"pack tree", salt))
        self.seals = {DATA: data, TREE: tree, LIST: tree}


def parse_index(index, blobs_end):
    """8.2"""
    fields = Fields(index, "a pack index")
    count = fields.get("I")
    need(count <= len(index) // 48, "a pack index counts more blobs than it has")
    entries, offset = [], 128
    for _ in range(count):
        chunk, kind, codec, zero, stored, raw, zeros = fields.get("32sBBHIII")
        base = fields.get("32s") if codec == 2 else None
        possible = kind <= 2 and not zero and not zeros and 1 <= raw <= BLOB_MAX and stored <= BLOB_MAX and chunk != HOLE
        possible = possible and base not in (HOLE, chunk)
        need(possible and offset + stored <= blobs_end, "a pack index has an impossible entry")
        entries.append((chunk, kind, codec, offset, stored, raw, base))
        offset += stored
    fields.end()
    return entries


class Repository:
    def __init__(self, root, password=None, key_file=None):
        self.root, self.problems = os.fsencode(root), []
        self.read_config(password, key_file)
        self.read_cycles()
        self.read_journals()
        self.index, self.packs = None, {}

    # 2. Objects

    def path(self, key):
        return os.path.join(self.root, key.encode())

    def get(self, key, longest):
        with open(self.path(key), "rb") as file:
            need(os.fstat(file.fileno()).st_size <= longest, f"{key} is longer than such an object can be")
            return file.read()

    def keys(self, prefix, pattern):
        """The keys below a prefix that match, with the groups of the match."""
        found = []
        for folder, _, names in os.walk(self.path(prefix)):
            for name in names:
                key = os.path.relpath(os.path.join(folder, name), self.root).decode("utf-8", "replace")
                match = re.fullmatch(pattern, key)
                if match:
                    found.append((key, match.groups()))
        return sorted(found)

    def object(self, key, kind):
        """7.2. Returns the salt and the body."""
        data = self.get(key, OBJECT_MAX)
        need(len(data) >= 72 and data[:4] == b"ICEO", f"{key} is no icecore object")
        if data[4] != 1:
            raise Unsupported(f"{key} has version {data[4]}")
        need(data[5:8] == bytes([kind, self.suite, 0]) and data[8:24] == self.id, f"{key} is not what its name says")
        salt = data[24:56]
        seal = Seal(self.suite, keyed(self.secrets["meta"], b"object", salt))
        return salt, cbor(seal.open(0, data[:56] + key.encode(), data[56:]), key)

    # 4. Config, 5. Key slots

    def read_config(self, password, key_file):
        data = self.get("config", CONFIG_MAX)
        need(len(data) >= 72 and data[:4] == b"ICEC", "this is no icecore repository")
        need(blake3(data[:-32]).digest() == data[-32:], "the config's checksum is wrong")
        body = data[8:-64]
        need(struct.unpack("<I", data[4:8])[0] == len(body), "the config's length is wrong")
        config = cbor(body, "the config")
        if field(config, 0, int, "the config") != 1:
            raise Unsupported(f"the repository has format {config[0]}")
        if field(config, 4, list, "the config"):
            raise Unsupported(f"the repository needs the features {config[4]}")
        self.id = identifier(config.get(1), 16, "the config")
        self.suite = field(config, 3, int, "the config")
        if self.suite not in (0, 1):
            raise Unsupported(f"encryption suite {self.suite}")
        names = ["id", "cdc", "meta", "tree", "data"]
        if self.suite == 0:
            public = derive("icecore v1 public repository", self.id)
            self.secrets = {name: keyed(public, name.encode()) for name in names}
        else:
            bundle = self.open_slots(password, key_file)
            self.secrets = {name: identifier(bundle.get(n), 32, "the key bundle") for n, name in enumerate(names)}
        mac = keyed(keyed(self.secrets["meta"], b"config mac"), data[:-64])
        need(mac == data[-64:-32], "the config was changed by somebody without the key")

    def open_slots(self, password, key_file):
        slots = self.keys("keys", r"keys/([0-9a-f]{16})")
        need(len(slots) <= 256, "too many key slots")
        for key, _ in slots:
            data = self.get(key, SLOT_MAX)
            need(len(data) > 32 and blake3(data[32:]).digest() == data[:32], f"{key} is damaged")
            slot = cbor(data[32:], key)
            repository, kind, role, label = (slot.get(n) for n in range(4))
            if repository != self.id:
                continue
            if role != 0:
                raise Unsupported(f"{key} has role {role}")
            seconds, nanos = moment(slot.get(4), key)
            salt = identifier(slot.get(5), 32, key)
            memory, passes, lanes = field(slot, 6, list, key)
            need(memory <= 1 << 20 and passes <= 16 and lanes <= 16, f"{key} asks for too much work")
            if kind == 0 and password is not None:
                wrapping = argon2.low_level.hash_secret_raw(password, salt, passes, memory, lanes, 32, argon2.low_level.Type.ID, 0x13)
            elif kind == 1 and key_file is not None:
                wrapping = keyed(derive("icecore v1 key file", key_file), salt)
            else:
                continue
            numbers = struct.pack("<IIIIqI", role, memory, passes, lanes, seconds, nanos)
            associated = b"icecore key slot v1" + repository + bytes([kind]) + numbers + label.encode()
            try:
                return cbor(Seal(1, wrapping).open(0, associated, field(slot, 7, bytes, key)), "the key bundle")
            except Damaged:
                continue
        raise Damaged("no key slot opens with this key")

    # 12. Prune's sets

    def read_cycles(self):
        self.dead, self.dropped = set(), set()
        for key, _ in self.keys("gc", r"gc/([0-9]{8,})/final"):
            try:
                _, cycle = self.object(key, 7)
            except Damaged as error:
                self.problems.append(f"{key}: {error}")
                continue
            self.dead.update(identifier(pack, 32, key) for pack in field(cycle, 0, list, key))
            self.dropped.update((identifier(session, 16, key), number) for session, number in field(cycle, 1, list, key))

    # 9. Journals, 11. Forget markers

    def read_journals(self):
        self.snapshots, self.published = {}, []
        members, fences, reached = {}, {}, {}
        for session, number in self.dropped:
            reached[session] = max(reached.get(session, 0), number)
        for key, (session, number) in self.keys("log", r"log/([0-9a-f]{32})/([0-9]{8})"):
            session, number = bytes.fromhex(session), int(number)
            reached[session] = max(reached.get(session, 0), number)
            if (session, number) in self.dropped:
                continue
            try:
                salt, entry = self.object(key, 3)
                need(isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list), f"{key} is no journal entry")
                variant, fields = entry
                need(variant in range(7), f"{key} is an entry of unknown kind {variant}")
                need(number == 0 or variant != 0, f"{key}: a second BEGIN")
                if variant in (1, 2, 6):
                    self.published.append((key, fields[0]))
                if variant == 2:
                    self.snapshots[session, number] = self.record(key, salt, fields[1])
                if variant == 5:
                    fences[session] = number
                if variant == 6:
                    need(fields[2] < fields[3], f"{key} is no member of its group")
                    last = number + fields[3] - 1 - fields[2]
                    members[session, number] = last, self.record(key, salt, fields[1])
            except Damaged as error:
                self.problems.append(f"{key}: {error}")
        for (session, number), (last, record) in members.items():
            if reached[session] >= last and not fences.get(session, last + 1) <= last:
                self.snapshots[session, number] = record
        for key, (session, number) in self.keys("forget", r"forget/([0-9a-f]{32})-([0-9]{8})"):
            try:
                self.object(key, 5)
                self.snapshots.pop((bytes.fromhex(session), int(number)), None)
            except Damaged as error:
                self.problems.append(f"{key}: {error}")

    def record(self, key, salt, sealed):
        """9.3"""
        plain = Seal(self.suite, keyed(self.secrets["tree"], b"record", salt)).open(1, b"snapshot record", sealed)
        record = cbor(plain, key)
        root = Node(field(record, 8, bytes, key))
        need(root.kind == DIRECTORY and not root.name, f"{key}: the root is no directory")
        record["id"], record["root"] = keyed(keyed(self.secrets["meta"], b"snapshot id"), plain).hex(), root
        return record

    # 8. Packs, 10. Index deltas

    def pack_keys(self):
        found = self.keys("packs", r"packs/([0-9a-f]{2})/([0-9a-f]{64})")
        named = [(key, bytes.fromhex(name)) for key, (folder, name) in found if name.startswith(folder)]
        return [(key, pack) for key, pack in named if pack not in self.dead]

    def read_footer(self, key, pack_id, file):
        """8.5. Returns the pack, the scrub table and how many bytes that covers."""
        length = os.fstat(file.fileno()).st_size
        need(192 <= length <= PACK_MAX, "a pack of impossible length")
        file.seek(length - 64)
        trailer = file.read(64)
        need(trailer[:4] == b"ICET" and blake3(trailer[:60]).digest()[:4] == trailer[60:], "the trailer is damaged")
        index_at, index_len, scrub_at, scrub_len, parity_at, parity_len = struct.unpack("<6I", trailer[4:28])
        if parity_at or parity_len:
            raise Unsupported(f"{key} has parity")
        fits = index_at >= 128 and index_at + index_len == scrub_at and scrub_at + scrub_len == length - 64
        need(fits and scrub_len == 8 + 16 * -(-scrub_at // SHARD), "the sections do not fit together")
        file.seek(0)
        header = file.read(128)
        file.seek(index_at)
        index, scrub = file.read(index_len), file.read(scrub_len)
        need(blake3(header + index + scrub).digest() == trailer[28:60] == pack_id, "the pack is not what its name says")
        fields = Fields(header, "a pack header")
        magic, version, kind, suite, zero, repository, _, _, slots, salt, reserved = fields.get("4sBBBB16s16sII32s48s")
        need(magic == b"ICEP", "this is no pack")
        if version != 1 or slots or zero or any(reserved) or kind not in (1, 2, 3):
            raise Unsupported(f"{key} uses fields of a later version")
        need(repository == self.id and suite == self.suite, "the pack is another repository's")
        need(scrub[:8] == struct.pack("<II", SHARD, -(-scrub_at // SHARD)), "the scrub table's header is wrong")
        seal = Seal(self.suite, keyed(self.secrets["meta"], b"pack index", salt))
        return Pack(self, pack_id, salt, parse_index(seal.open(0, header, index), index_at)), scrub[8:], scrub_at

    def index_of_footers(self):
        """Reads every pack's footer: pack id to pack."""
        packs = {}
        for key, pack_id in self.pack_keys():
            try:
                with open(self.path(key), "rb") as file:
                    packs[pack_id] = self.read_footer(key, pack_id, file)[0]
            except Damaged as error:
                self.problems.append(f"{key}: {error}")
        return packs

    def index_of_deltas(self):
        """Reads every delta of the journals: pack id to (length, salt, entries)."""
        packs = {}
        for key, published in self.published:
            try:
                named = [identifier(pack, 32, key) for pack in field(published, 0, list, key)]
                described = cbor(published[1], key) if 1 in published else []
                for delta in field(published, 2, list, key):
                    need(re.fullmatch(r"idx/[0-9a-f]{32}(-[0-9]+){1,2}", delta), f"{key} names a delta {delta!r}")
                    if not os.path.exists(self.path(delta)) and self.dead.issuperset(named):
                        named, described = [], []
                        break
                    described += self.object(delta, 4)[1]
                need({pack.get(0) for pack in described} == set(named), "the deltas are not of the packs that the entry names")
                for pack in described:
                    length = field(pack, 1, int, key)
                    entries = parse_index(field(pack, 3, bytes, key), length)
                    packs[pack[0]] = length, identifier(pack.get(2), 32, key), entries
            except (Damaged, OSError) as error:
                self.problems.append(f"{key}: {error}")
        return packs

    def locate(self, chunk):
        if self.index is None:
            self.packs = self.index_of_footers()
            self.index = {}
            for pack in self.packs.values():
                for number, entry in enumerate(pack.entries):
                    # A full copy serves readers of the chunk and of deltas against it.
                    if entry[0] not in self.index or (entry[6] is None and self.entry(self.index[entry[0]])[6] is not None):
                        self.index[entry[0]] = (pack, number)
        need(chunk in self.index, f"the chunk {chunk.hex()} is in no pack")
        return self.index[chunk]

    def entry(self, place):
        pack, number = place
        return pack.entries[number]

    def chunk(self, kind, chunk, as_base=False):
        pack, number = self.locate(chunk)
        _, stored_kind, codec, offset, stored, _, _ = pack.entries[number]
        need(not as_base or codec != 2, f"the base {chunk.hex()} has no full copy")
        need(stored_kind == kind, f"the chunk {chunk.hex()} is of another kind than the reference to it")
        name = pack.id.hex()
        with open(self.path(f"packs/{name[:2]}/{name}"), "rb") as file:
            file.seek(offset)
            return self.open_blob(pack, number, file.read(stored))

    def open_blob(self, pack, number, sealed):
        """8.3"""
        chunk, kind, codec, _, _, raw_len, base = pack.entries[number]
        associated = self.id + pack.salt + struct.pack("<IBBI", number, kind, codec, raw_len) + chunk + (base or b"")
        raw = pack.seals[kind].open(number, associated, sealed)
        need(raw_len <= CHUNK_MAX, "a chunk is longer than a chunk can be")
        if codec in (1, 2):
            dictionary = None
            if codec == 2:
                before = self.chunk(kind, base, as_base=True)
                need(64 <= len(before) <= 524_288 and not before.startswith(b"\x37\xa4\x30\xec"), "a chunk that can't be a base")
                dictionary = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            try:
                claimed = zstandard.get_frame_parameters(raw).content_size
                need(claimed in (raw_len, zstandard.CONTENTSIZE_UNKNOWN), "a chunk of another length than the index says")
                raw = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(raw, max_output_size=raw_len, allow_extra_data=False)
            except zstandard.ZstdError as error:
                raise Damaged(f"a chunk does not decompress: {error}") from None
        elif codec != 0:
            raise Unsupported(f"blob codec {codec}")
        need(len(raw) == raw_len, "a chunk of another length than the index says")
        name = (b"chunk data", b"chunk tree", b"chunk list")[kind]
        need(keyed(keyed(self.secrets["id"], name), raw) == chunk, f"the content of {chunk.hex()} is not what its id says")
        return raw

    # 14. Streams

    def leaves(self, stream, seen=None):
        """The stream's (chunk or hole, length) in order. With `seen`, lists that are in it are passed over."""
        length, depth, top = stream
        if length == 0:
            return
        stack = [iter([(top, length)])]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
            elif step[0] == HOLE or len(stack) > depth:
                yield step
            elif seen is None or step[0] not in seen:
                if seen is not None:
                    seen.add(step[0])
                data = self.chunk(LIST, step[0])
                need(len(data) % 40 == 0, "a list ends inside an entry")
                entries = [struct.unpack("<32sQ", data[at : at + 40]) for at in range(0, len(data), 40)]
                covered = all(size > 0 for _, size in entries) and sum(size for _, size in entries) == step[1]
                need(covered, "a list does not cover what it should")
                stack.append(iter(entries))

    def pieces(self, stream, kind):
        """The stream's (bytes or none for a hole, length) in order."""
        for chunk, length in self.leaves(stream):
            if chunk == HOLE:
                yield None, length
            else:
                data = self.chunk(kind, chunk)
                need(len(data) == length, "a chunk has another length than its list says")
                yield data, length

    def nodes(self, stream):
        """15. The nodes of a directory, in order."""
        rest, last = b"", b""
        for data, _ in self.pieces(stream, TREE):
            need(data is not None, "a directory has a hole")
            rest, at = rest + data, 0
            while len(rest) - at >= 4:
                length = 4 + struct.unpack_from("<I", rest, at)[0]
                need(length <= 4 + 8192, "a node is longer than a node can be")
                if len(rest) - at < length:
                    break
                node = Node(rest[at : at + length])
                need(node.name > last, "a directory's entries are not in order")
                last, at = node.name, at + length
                yield node
            rest = rest[at:]
        need(not rest, "a directory ends inside an entry")

    def xattrs(self, node):
        if not isinstance(node.xattrs, tuple):
            return parse_xattrs(node.xattrs)
        pieces = [data for data, _ in self.pieces(node.xattrs, TREE)]
        need(None not in pieces, "an xattr set has a hole")
        return parse_xattrs(b"".join(pieces))


def parse_stream(fields):
    length = fields.get("Q")
    if length == 0:
        return 0, 0, HOLE
    profile, depth, top = fields.get("BB32s")
    need(profile and depth <= 8 and (top != HOLE or depth == 0), "a stream reference is impossible")
    return length, depth, top


def parse_xattrs(data):
    fields, found = Fields(data, "an xattr set"), []
    while fields.at < len(data):
        name = fields.take(fields.get("H"))
        length = fields.get("I")
        need(name and len(name) <= 255 and b"\0" not in name and length <= 65536, "an xattr set is malformed")
        need(not found or found[-1][0] < name, "an xattr set is not sorted")
        found.append((name, fields.take(length)))
    return found


class Node:
    """15. One entry of a directory."""

    def __init__(self, record):
        fields = Fields(record, "a node")
        length, self.kind, flags, self.mode, self.uid, self.gid, seconds, nanos = fields.get("IBBHIIqI")
        need(length == len(record) - 4 <= 8192, "a node's length is wrong")
        self.name = fields.take(fields.get("B"))
        need(not set(self.name) & {0, ord("/")} and self.name not in (b".", b".."), f"{self.name!r} can name no file")
        possible = flags <= 31 and flags & 3 != 3 and self.mode <= 0o7777 and nanos < 10**9 and (self.kind == FILE or not flags & 8)
        need(possible, "a node's fields are impossible")
        self.mtime = seconds * 10**9 + nanos
        self.changed = bool(flags & 16)
        self.group = fields.get("Q") if flags & 4 else None
        self.xattrs, self.stream, self.inline, self.target, self.device = b"", None, None, None, None
        if flags & 1:
            self.xattrs = self.short(fields, 256)
        elif flags & 2:
            self.xattrs = parse_stream(fields)
            need(1 <= self.xattrs[0] <= 8 << 20, "an xattr set of impossible length")
        if flags & 8:
            self.inline = self.short(fields, 512)
        elif self.kind in (FILE, DIRECTORY):
            self.stream = parse_stream(fields)
        elif self.kind == SYMLINK:
            self.target = self.short(fields, 4095)
            need(0 not in self.target, "a symlink's target holds a NUL")
        elif self.kind in (CHARACTER, BLOCK):
            self.device = fields.get("II")
        else:
            need(self.kind in (FIFO, SOCKET), f"a node of unknown kind {self.kind}")
        fields.end()

    @staticmethod
    def short(fields, longest):
        length = fields.get("H")
        need(1 <= length <= longest, "a node's field is out of bounds")
        return fields.take(length)


class Extraction:
    """Writes a snapshot into a new or empty directory."""

    def __init__(self, repo, root):
        self.repo, self.root, self.first, self.shortfalls = repo, os.fsencode(root), {}, []

    def run(self, node):
        os.makedirs(self.root, exist_ok=True)
        if os.listdir(self.root):
            raise SystemExit(f"{os.fsdecode(self.root)} is not empty")
        # A stack instead of recursion: snapshots may have very deep directories.
        stack = [(self.root, node, self.repo.nodes(node.stream))]
        while stack:
            folder, directory, nodes = stack[-1]
            entry = next(nodes, None)
            if entry is None:
                self.dress(folder, directory)
                stack.pop()
                continue
            path = os.path.join(folder, entry.name)
            if entry.kind == DIRECTORY:
                os.mkdir(path, 0o700)
                stack.append((path, entry, self.repo.nodes(entry.stream)))
            elif entry.group in self.first:
                os.link(self.first[entry.group], path, follow_symlinks=False)
            else:
                self.place(path, entry)
                if entry.group is not None:
                    self.first[entry.group] = path

    def place(self, path, node):
        if node.kind == FILE:
            self.write(path, node)
        elif node.kind == SYMLINK:
            os.symlink(node.target, path)
        else:
            kind = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}[node.kind]
            device = os.makedev(*node.device) if node.device else 0
            if not self.attempt(path, lambda: os.mknod(path, kind | 0o600, device)):
                return
        self.dress(path, node)

    def write(self, path, node):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            if node.inline is not None:
                os.write(file, node.inline)
                return
            offset = 0
            for data, length in self.repo.pieces(node.stream, DATA):
                if data is not None:
                    view = memoryview(data)
                    while view:
                        view = view[os.pwrite(file, view, offset + length - len(view)) :]
                offset += length
            os.ftruncate(file, offset)
        finally:
            os.close(file)

    def dress(self, path, node):
        """Owner first, which takes setuid bits and capabilities away; time last, which all else changes."""
        if os.geteuid() == 0:
            self.attempt(path, lambda: os.chown(path, node.uid, node.gid, follow_symlinks=False))
        for name, value in self.repo.xattrs(node):
            self.attempt(path, lambda: os.setxattr(path, name, value, follow_symlinks=False))
        if node.kind != SYMLINK:
            self.attempt(path, lambda: os.chmod(path, node.mode))
        self.attempt(path, lambda: os.utime(path, ns=(node.mtime, node.mtime), follow_symlinks=False))

    def attempt(self, path, change):
        try:
            change()
            return True
        except OSError as error:
            self.shortfalls.append(f"{os.fsdecode(path)!r}: {error.strerror}")
            return False


def listed(repo):
    """The snapshots as the JSON of `list`, by source, then sequence."""
    snapshots = []
    for (session, number), record in repo.snapshots.items():
        source, counts = record[0], record[14]
        seconds, nanos = moment(record[4], "a snapshot")
        time = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        snapshots.append(
            {
                "id": record["id"],
                "source": {"kind": ["volume", "path"][source[0]], "name": source[1], "host": source[2]},
                "run": record[1].hex(),
                "sequence": record[2],
                "time": f"{time}.{nanos:09}Z",
                "consistency": ["fuzzy", "dump", "hook", "frozen", "stopped"][record[6]],
                "parent": record[9].hex() if 9 in record else None,
                "files": counts[0],
                "directories": counts[1],
                "bytes": counts[2],
                "unreadable": record[11],
                "changed": record[13],
                "tags": record[16],
                "program": record[17],
                "entry": f"log/{session.hex()}/{number:08}",
            }
        )
    return sorted(snapshots, key=lambda s: (sorted(s["source"].items()), s["sequence"], s["time"]))


def extract(repo, name, directory):
    found = [record for record in repo.snapshots.values() if record["id"].startswith(name)]
    if len(found) != 1:
        raise SystemExit(f"{len(found)} snapshots begin with {name!r}")
    extraction = Extraction(repo, directory)
    extraction.run(found[0]["root"])
    for shortfall in extraction.shortfalls:
        print(shortfall, file=sys.stderr)
    return 3 if extraction.shortfalls else 0


def check(repo):
    """Every byte of every pack, every blob, both indexes, and that every snapshot finds its chunks."""
    footers, blobs, size = {}, 0, 0
    for key, pack_id in repo.pack_keys():
        try:
            with open(repo.path(key), "rb") as file:
                pack, scrub, covered = repo.read_footer(key, pack_id, file)
                file.seek(0)
                data = file.read(covered)
                length = os.fstat(file.fileno()).st_size
            size += length
            footers[pack_id] = length, pack.salt, pack.entries
            for at in range(0, covered, SHARD):
                if blake3(data[at : at + SHARD]).digest()[:16] != scrub[at // SHARD * 16 :][:16]:
                    repo.problems.append(f"{key}: the bytes from {at} are damaged")
            for number, (chunk, _, _, offset, stored, _, _) in enumerate(pack.entries):
                blobs += 1
                try:
                    repo.open_blob(pack, number, data[offset : offset + stored])
                except Damaged as error:
                    repo.problems.append(f"{key}: blob {number} ({chunk.hex()}): {error}")
        except Damaged as error:
            repo.problems.append(f"{key}: {error}")
    deltas = {pack: told for pack, told in repo.index_of_deltas().items() if pack not in repo.dead}
    for pack in deltas.keys() - footers.keys():
        repo.problems.append(f"the pack {pack.hex()} is in a journal and not there, or damaged")
    for pack in deltas.keys() & footers.keys():
        if deltas[pack] != footers[pack]:
            repo.problems.append(f"the pack {pack.hex()} has another index than a journal says")
    depths, seen = {}, set()
    for (session, number), record in repo.snapshots.items():
        try:
            walk(repo, record["root"], seen, depths)
        except Damaged as error:
            repo.problems.append(f"the snapshot {record['id']}: {error}")
    report = {
        "snapshots": len(repo.snapshots),
        "packs": len(footers),
        "blobs": blobs,
        "bytes": size,
        "packs_in_no_delta": len(footers.keys() - deltas.keys()),
        "streams_by_depth": {str(depth): count for depth, count in sorted(depths.items())},
        "problems": repo.problems,
    }
    print(json.dumps(report, indent=2))
    return 4 if repo.problems else 0


def walk(repo, root, seen, depths):
    """Finds every chunk below a root. What was walked for another snapshot is not walked again."""

    def find(stream, kind):
        depths[stream[1]] = depths.get(stream[1], 0) + 1
        for chunk, _ in repo.leaves(stream, seen):
            if chunk != HOLE:
                pack, number = repo.locate(chunk)
                need(pack.entries[number][1] == kind, f"the chunk {chunk.hex()} is of another kind than the reference to it")

    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node.xattrs, tuple):
            find(node.xattrs, TREE)
        repo.xattrs(node)
        if node.kind == FILE and node.stream:
            find(node.stream, DATA)
        elif node.kind == DIRECTORY and node.stream not in seen:
            seen.add(node.stream)
            depths[node.stream[1]] = depths.get(node.stream[1], 0) + 1
            waiting.extend(repo.nodes(node.stream))


def main():
    parser = argparse.ArgumentParser(description="An independent reader of icecore repositories.")
    parser.add_argument("repository")
    parser.add_argument("--password", help="the passphrase itself; others can see it in the list of processes")
    parser.add_argument("--key-file")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="print the snapshots as JSON")
    one = verbs.add_parser("extract", help="write a snapshot into a new directory")
    one.add_argument("snapshot", help="its id, or how that begins")
    one.add_argument("directory")
    verbs.add_parser("check", help="read everything and print what was found as JSON")
    arguments = parser.parse_args()
    key_file = open(arguments.key_file, "rb").read() if arguments.key_file else None
    password = os.fsencode(arguments.password) if arguments.password is not None else None
    try:
        repo = Repository(arguments.repository, password, key_file)
        if arguments.verb == "extract":
            return extract(repo, arguments.snapshot, arguments.directory)
        if arguments.verb == "check":
            return check(repo)
        print(json.dumps(listed(repo), indent=2))
        for problem in repo.problems:
            print(problem, file=sys.stderr)
        return 4 if repo.problems else 0
    except (Damaged, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
    except Unsupported as error:
        print(f"a newer program is needed: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
