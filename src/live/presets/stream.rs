//! A dump on its way from the container: its beginning, its end, its length and, where its format has one, its checksum. The
//! end is held back until it was judged, so that what follows the dump can be left off and a command that fails at once can be
//! tried another way.

use super::redis::crc64;
use super::{etcd, mongodb, mysql, postgres, redis, sqlite, vault};
use crate::error::Result;
use crate::seal::sha256::Sha256;

/// How much of a dump's end is held back, in bytes.
pub(super) const TAIL_BYTES: usize = 64 << 10;
/// How much of its beginning is kept.
const HEAD_BYTES: usize = 128;
/// How much is handed on at a time, at least: what is held is moved that often.
const PIECE_BYTES: usize = 256 << 10;

/// Takes the bytes of a dump, in order.
pub type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + Send + 'a;

/// How the end of a whole dump is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailer {
    /// The comment at the end of `pg_dumpall`'s script.
    PostgresCluster,
    /// The comment at the end of `mysqldump`'s script.
    MySql,
    /// The end of the last collection of `mongodump`'s archive.
    MongoArchive,
    /// The end mark and the checksum of an RDB file.
    Rdb,
    /// A SQLite database's header and its length.
    Sqlite,
    /// The end of a compressed tar archive.
    GzipTar,
    /// The hash at the end of etcd's snapshot.
    EtcdHash,
}

/// How many bytes at the end are not part of the dump, or why it is not whole.
pub(super) type Verdict = std::result::Result<usize, String>;

/// A checksum over all of a stream but its tail.
#[derive(Clone)]
pub(super) enum Digest {
    None,
    Crc64(u64),
    Sha256(Sha256),
}

impl Digest {
    fn of(trailer: Trailer) -> Self {
        match trailer {
            Trailer::Rdb => Self::Crc64(0),
            Trailer::EtcdHash => Self::Sha256(Sha256::default()),
            _ => Self::None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc64(crc) => *crc = crc64(*crc, bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }
}

/// What a trailer is judged by.
pub(super) struct Ends<'a> {
    /// The first bytes, at most [`HEAD_BYTES`].
    pub(super) head: &'a [u8],
    /// The last bytes: [`TAIL_BYTES`] or more, or all.
    pub(super) tail: &'a [u8],
    /// The length of all.
    pub(super) len: u64,
    /// Over all bytes before `tail`.
    pub(super) digest: &'a Digest,
}

impl Trailer {
    fn judge(self, ends: &Ends<'_>) -> Verdict {
        match self {
            Self::PostgresCluster => postgres::judge(ends),
            Self::MySql => mysql::judge(ends),
            Self::MongoArchive => mongodb::judge(ends),
            Self::Rdb => redis::judge(ends),
            Self::Sqlite => sqlite::judge(ends),
            Self::GzipTar => vault::judge(ends),
            Self::EtcdHash => etcd::judge(ends),
        }
    }
}

/// A dump on its way.
pub(super) struct Stream<'a> {
    trailer: Trailer,
    sink: &'a mut Sink<'a>,
    head: Vec<u8>,
    held: Vec<u8>,
    handed_on: u64,
    digest: Digest,
}

impl<'a> Stream<'a> {
    pub(super) fn new(trailer: Trailer, sink: &'a mut Sink<'a>) -> Self {
        Self { trailer, sink, head: Vec::new(), held: Vec::new(), handed_on: 0, digest: Digest::of(trailer) }
    }

    /// Takes what comes next.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..missing]);
        // One call may bring any number of bytes; what is held stays bounded.
        for piece in bytes.chunks(PIECE_BYTES) {
            self.held.extend_from_slice(piece);
            if self.held.len() >= TAIL_BYTES + PIECE_BYTES {
                self.hand_on(self.held.len() - TAIL_BYTES)?;
            }
        }
        Ok(())
    }

    fn hand_on(&mut self, count: usize) -> Result<()> {
        let bytes = &self.held[..count];
        self.digest.update(bytes);
        (self.sink)(bytes)?;
        self.handed_on += count as u64;
        self.held.drain(..count);
        Ok(())
    }

    /// How many bytes have come.
    pub(super) fn len(&self) -> u64 {
        self.handed_on + self.held.len() as u64
    }

    /// Forgets what has come, if nothing was handed on yet.
    pub(super) fn start_again(&mut self) -> bool {
        let can = self.handed_on == 0;
        if can {
            self.head.clear();
            self.held.clear();
        }
        can
    }

    /// Judges the end and hands on the rest. The inner error is why the dump is not whole.
    pub(super) fn finish(mut self) -> Result<std::result::Result<u64, String>> {
        let ends = Ends { head: &self.head, tail: &self.held, len: self.len(), digest: &self.digest };
        match self.trailer.judge(&ends) {
            Err(why) => Ok(Err(why)),
            Ok(surplus) => {
                self.hand_on(self.held.len() - surplus)?;
                Ok(Ok(self.handed_on))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MARK: &[u8; 40] = b"e885ae47591906f20123456789abcdef01234567";

    /// What reaches the sink, and the verdict, for several sizes of the pieces that come.
    fn through(trailer: Trailer, dump: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let mut results = [1000, 64 << 10, 1 << 20, usize::MAX].map(|size| {
            let mut out = Vec::new();
            let mut sink = |bytes: &[u8]| {
                out.extend_from_slice(bytes);
                Ok(())
            };
            let mut stream = Stream::new(trailer, &mut sink);
            for piece in dump.chunks(size.min(dump.len().max(1))) {
                stream.push(piece).unwrap();
                assert!(stream.held.len() < TAIL_BYTES + PIECE_BYTES + PIECE_BYTES);
            }
            stream.finish().unwrap().map(|length| {
                assert_eq!(length, out.len() as u64);
                out
            })
        });
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "the sizes of the pieces make no difference");
        std::mem::replace(&mut results[0], Ok(Vec::new()))
    }

    fn whole(trailer: Trailer, dump: &[u8]) -> bool {
        through(trailer, dump).is_ok_and(|out| out == dump)
    }

    /// A dump cut at its end or in its middle is not whole.
    fn check_cuts(trailer: Trailer, dump: &[u8]) {
        assert!(whole(trailer, dump), "{trailer:?}");
        for length in [0, 1, dump.len() / 2, dump.len() - 3] {
            assert!(!whole(trailer, &dump[..length]), "{trailer:?} cut to {length}");
        }
        assert!(!whole(trailer, &[dump, b"x"].concat()), "{trailer:?} with something after it");
    }

    fn rdb(size: usize, checksum: bool) -> Vec<u8> {
        let mut file = [&b"REDIS0011"[..], &vec![b'v'; size], &[0xff]].concat();
        let crc = if checksum { crc64(0, &file) } else { 0 };
        file.extend_from_slice(&crc.to_le_bytes());
        file
    }

    fn database(pages: u32, page_bytes: u32) -> Vec<u8> {
        let mut file = vec![0; ((pages * page_bytes) as usize).max(100)];
        file[..16].copy_from_slice(b"SQLite format 3\0");
        file[16..18].copy_from_slice(&(if page_bytes == 65536 { 1 } else { page_bytes as u16 }).to_be_bytes());
        file[28..32].copy_from_slice(&pages.to_be_bytes());
        file
    }

    fn document(fields: &[u8]) -> Vec<u8> {
        [&(fields.len() as u32 + 5).to_le_bytes()[..], fields, &[0]].concat()
    }

    fn archive() -> Vec<u8> {
        let header = document(b"\x02version\0\x04\0\0\0\x30.1\0");
        let ends = |yes: u8| document(&[b"\x02db\0\x02\0\0\0a\0\x08EOF\0", &[yes][..], b"\x12CRC\0\0\0\0\0\0\0\0\0"].concat());
        let end = &[0xff; 4][..];
        [&0x8199_e26d_u32.to_le_bytes()[..], &header, end, &ends(0), &document(&[7; 70_000]), end, &ends(1), end].concat()
    }

    #[test]
    fn scripts_are_whole_with_their_last_comment() {
        let cluster = b"SELECT 1;\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";
        check_cuts(Trailer::PostgresCluster, &[&vec![b' '; 400_000][..], cluster].concat());
        let database = b"SELECT 1;\n--\n-- PostgreSQL database dump complete\n--\n\n";
        assert!(!whole(Trailer::PostgresCluster, database), "one database's end is not the end of all");
        assert!(whole(Trailer::MySql, b"/* */;\n\n-- Dump completed\n"));
        assert!(whole(Trailer::MySql, b"/* */;\n-- Dump completed on 2026-11-25 21:04:16\n"));
        assert!(!whole(Trailer::MySql, b"/* */;\n-- Dump comple"));
        assert!(!whole(Trailer::MySql, b"-- Dump completed\nINSERT INTO `t`"));
    }

    #[test]
    fn an_rdb_file_is_whole_with_its_checksum_and_loses_the_mark_after_it() {
        for size in [10, 100_000, 1_000_000] {
            let file = rdb(size, true);
            check_cuts(Trailer::Rdb, &file);
            let marked = [&file[..], MARK].concat();
            assert_eq!(through(Trailer::Rdb, &marked).unwrap(), file);
            assert!(through(Trailer::Rdb, &marked[..marked.len() - 1]).is_err());
            let plain = rdb(size, false);
            assert_eq!(through(Trailer::Rdb, &[&plain[..], MARK].concat()).unwrap(), plain, "a server without checksums");
            let mut wrong = file.clone();
            wrong[15] ^= 1;
            assert!(through(Trailer::Rdb, &wrong).is_err(), "a byte in the middle changed");
        }
        let valkey = [&b"VALKEY080"[..], &[0xff]].concat();
        let valkey = [&valkey[..], &crc64(0, &valkey).to_le_bytes()].concat();
        assert!(whole(Trailer::Rdb, &valkey));
        assert!(through(Trailer::Rdb, b"-ERR unknown command").is_err());
    }

    #[test]
    fn a_database_is_whole_with_all_its_pages() {
        check_cuts(Trailer::Sqlite, &database(3, 4096));
        check_cuts(Trailer::Sqlite, &database(2, 65536));
        let short = database(300, 4096);
        assert!(!whole(Trailer::Sqlite, &short[..299 * 4096]));
        assert!(!whole(Trailer::Sqlite, &database(0, 4096)));
        assert!(!whole(Trailer::Sqlite, &[0; 4096]));
    }

    #[test]
    fn an_archive_is_whole_when_its_last_collection_is() {
        check_cuts(Trailer::MongoArchive, &archive());
        let open = &archive()[..archive().len() - 4 - document(b"\x02db\0\x02\0\0\0a\0\x08EOF\0\x01\x12CRC\0\0\0\0\0\0\0\0\0").len()];
        assert!(open.ends_with(&[0xff; 4]) && !whole(Trailer::MongoArchive, open), "the end of a segment is not that of a collection");
    }

    #[test]
    fn a_snapshot_of_etcd_is_whole_with_the_hash_of_its_contents() {
        let body = vec![5; 512 * 1000];
        let file = [&body[..], &Sha256::default().finish_with(&body)].concat();
        check_cuts(Trailer::EtcdHash, &file);
        let mut wrong = file.clone();
        wrong[100] ^= 1;
        assert!(!whole(Trailer::EtcdHash, &wrong));
    }

    #[test]
    fn a_compressed_snapshot_that_was_cut_is_noticed() {
        let file = [&b"\x1f\x8b\x08\0"[..], &[9; 500], &3072_u32.to_le_bytes()].concat();
        check_cuts(Trailer::GzipTar, &file);
        assert!(!whole(Trailer::GzipTar, b"Error taking the snapshot"));
    }

    #[test]
    fn a_dump_of_which_something_was_handed_on_does_not_start_again() {
        let mut sink = |_: &[u8]| Ok(());
        let mut stream = Stream::new(Trailer::MySql, &mut sink);
        stream.push(b"early").unwrap();
        assert!(stream.start_again() && stream.len() == 0);
        stream.push(&vec![0; TAIL_BYTES + PIECE_BYTES]).unwrap();
        assert!(!stream.start_again());
    }
}
