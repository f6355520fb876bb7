//! Which profile a file is cut with. Pure: from a file's name, length and first bytes, and how it was cut before.

use super::profile::{DB, GENERIC, MEDIA, Profile};

/// What is known of a file before it is cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileFacts<'a> {
    /// Its name in its directory.
    pub name: &'a [u8],
    /// Its length.
    pub bytes: u64,
    /// What it begins with: 4 KiB, or all of it.
    pub head: &'a [u8],
    /// Whether its first chunk's worth of bytes is known not to compress.
    pub is_incompressible: bool,
    /// How its version in the parent snapshot was cut.
    pub before: Option<CutBefore>,
}

/// How a version of a file was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutBefore {
    /// The profile's number.
    pub profile: u8,
    /// The file's length then.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Pages that are written in place: databases and disk images.
    Pages,
    /// Compressed already: what changes, changes as a whole.
    Packed,
    Other,
}

/// Kinds of files that are worth a profile of their own, from which length on. All else is [`GENERIC`].
///
/// Pages are not among them: small fixed chunks store less of a database than large ones when they are stored whole, but a
/// large chunk stored as the difference from its former version stores less still, with a quarter of the entries. [`DB`] can
/// be read, and is kept by files that have it.
const DECISIONS: [(Kind, u64, &Profile); 1] = [(Kind::Packed, 64 << 20, &MEDIA)];

/// A file that grew so many times over is cut anew: what is stored of it is little beside what is not.
const REGROWN: u64 = 4;

/// The profile for a file. A file keeps the one that it had, because with another all of it would be stored once more: unless
/// it has become another kind of file, or much longer.
pub fn choose(file: &FileFacts<'_>) -> &'static Profile {
    let kind = kind(file);
    let kept = file.before.filter(|before| file.bytes / REGROWN < before.bytes).and_then(|before| Profile::by_number(before.profile));
    match kept {
        Some(profile) if *profile == GENERIC || (*profile == DB && kind == Kind::Pages) => profile,
        // It may shrink somewhat without being stored once more.
        Some(profile) if *profile == MEDIA && kind == Kind::Packed && file.bytes >= MEDIA.max as u64 => profile,
        _ => DECISIONS.iter().find(|(of, bytes_min, _)| *of == kind && file.bytes >= *bytes_min).map_or(&GENERIC, |(.., profile)| profile),
    }
}

fn kind(file: &FileFacts<'_>) -> Kind {
    if is_pages(file) {
        Kind::Pages
    } else if file.is_incompressible || is_packed(file.head) {
        Kind::Packed
    } else {
        Kind::Other
    }
}

fn is_pages(file: &FileFacts<'_>) -> bool {
    let starts = |magic: &[u8]| file.head.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| file.head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let ends = |suffix: &[u8]| file.name.ends_with(suffix);
    let pages_of = |bytes: u64| file.bytes > 0 && file.bytes.is_multiple_of(bytes);
    starts(b"SQLite format 3\0")
        || is_postgres(file)
        // InnoDB: tables, the system tablespace, undo logs.
        || pages_of(16 << 10) && (ends(b".ibd") || ends(b".ibu") || file.name.starts_with(b"ibdata") || file.name.starts_with(b"undo_0"))
        // WiredTiger.
        || pages_of(4 << 10) && starts(&120_897u32.to_le_bytes())
        // LMDB; bbolt, which etcd uses.
        || at(16, &0xbeef_c0deu32.to_le_bytes())
        || at(16, &0xed0c_daedu32.to_le_bytes())
        // Disk images: qcow2, VMDK, VDI, VHDX, LUKS, and raw ones with a partition table or an ext file system.
        || starts(b"QFI\xfb")
        || starts(b"KDMV")
        || at(64, &0xbeda_107fu32.to_le_bytes())
        || starts(b"vhdxfile")
        || starts(b"LUKS\xba\xbe")
        || pages_of(1 << 20) && at(510, b"\x55\xaa")
        || pages_of(4 << 10) && file.bytes >= 1 << 20 && at(1024 + 56, b"\x53\xef")
}

/// A segment of a PostgreSQL relation: named by number, and its first page says how long a page is.
fn is_postgres(file: &FileFacts<'_>) -> bool {
    let digits = file.name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = &file.name[digits..];
    let is_named = digits > 0 && (rest.is_empty() || rest.strip_prefix(b".").is_some_and(|part| part.iter().all(u8::is_ascii_digit)));
    let number = |offset: usize| file.head.get(offset..offset + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let (Some(lower), Some(upper), Some(special), Some(size)) = (number(12), number(14), number(16), number(18)) else { return false };
    let page = size & 0xff00;
    is_named
        && page.is_power_of_two()
        && file.bytes.is_multiple_of(u64::from(page))
        && lower <= upper
        && upper <= special
        && special <= page
}

/// Formats whose every byte depends on those before: versions of such a file have nothing in common behind their first
/// difference. Not zip and the like: members that did not change are the same bytes.
const PACKED: &[&[u8]] = &[
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"\x1a\x45\xdf\xa3",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"\xff\xfb",
    b"FLV\x01",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ\0",
    b"BZh",
    b"\x04\x22\x4d\x18",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"Salted__",
    b"age-encryption.org/",
];

fn is_packed(head: &[u8]) -> bool {
    // MP4, MOV, HEIC and AVIF begin with the length of their first box.
    let is_box = head.get(4..8) == Some(b"ftyp");
    let is_riff = head.starts_with(b"RIFF") && matches!(head.get(8..12), Some(b"WEBP" | b"AVI "));
    is_box || is_riff || PACKED.iter().any(|magic| head.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::super::META;
    use super::*;

    const BIG: u64 = 100 << 20;

    fn postgres_page() -> Vec<u8> {
        let mut head = vec![0; 4096];
        for (offset, number) in [(12, 100u16), (14, 4000), (16, 8192), (18, 8192 | 4)] {
            head[offset..offset + 2].copy_from_slice(&number.to_le_bytes());
        }
        head
    }

    fn at(offset: usize, magic: &[u8]) -> Vec<u8> {
        let mut head = vec![0; 4096];
        head[offset..offset + magic.len()].copy_from_slice(magic);
        head
    }

    #[test]
    fn kinds_are_known_by_their_first_bytes() {
        let kind = |name: &str, bytes, head: &[u8]| kind(&FileFacts { name: name.as_bytes(), bytes, head, ..FileFacts::default() });
        for (name, bytes, head) in [
            ("app.db", 12_345, at(0, b"SQLite format 3\0")),
            ("16384", 8192 * 77, postgres_page()),
            ("16384.2", 8192, postgres_page()),
            ("t.ibd", 16_384 * 7, at(0, b"")),
            ("collection-0.wt", 8192, at(0, &[0x41, 0xd8, 1, 0])),
            ("db", 65_536, at(16, &[0xed, 0xda, 0x0c, 0xed])),
            ("disk", 196_616, at(0, b"QFI\xfb")),
            ("disk.img", 10 << 20, at(510, b"\x55\xaa")),
            ("root.ext4", 10 << 20, at(1080, b"\x53\xef")),
        ] {
            assert_eq!(kind(name, bytes, &head), Kind::Pages, "{name}");
        }
        for (name, head) in [("a.mp4", at(4, b"ftypisom")), ("a", at(0, b"\x28\xb5\x2f\xfd")), ("a.webp", at(0, b"RIFF....WEBP"))] {
            assert_eq!(kind(name, BIG, &head), Kind::Packed, "{name}");
        }
        for (name, bytes, head) in [
            ("16384", 8192 * 7, vec![0; 4096]),
            ("16384", 8191, postgres_page()),
            ("notes16384", 8192, postgres_page()),
            ("16384.old", 8192, postgres_page()),
            ("t.ibd", 16_385, at(0, b"")),
            ("a.zip", BIG, at(0, b"PK\x03\x04")),
            ("a.wav", BIG, at(0, b"RIFF....WAVE")),
            ("empty", 0, vec![]),
            ("one", 1, vec![0xff]),
        ] {
            assert_eq!(kind(name, bytes, &head), Kind::Other, "{name}");
        }
    }

    #[test]
    fn only_large_packed_files_get_large_chunks() {
        let packed = FileFacts { name: b"a.mp4", bytes: BIG, is_incompressible: true, ..FileFacts::default() };
        assert_eq!(*choose(&packed), MEDIA);
        assert_eq!(*choose(&FileFacts { bytes: 60 << 20, ..packed }), GENERIC);
        assert_eq!(*choose(&FileFacts { is_incompressible: false, ..packed }), GENERIC);
        let head = at(0, b"SQLite format 3\0");
        assert_eq!(*choose(&FileFacts { head: &head, is_incompressible: false, ..packed }), GENERIC);
        // An encrypted database is one of pages all the same.
        assert_eq!(*choose(&FileFacts { head: &head, ..packed }), GENERIC);
    }

    #[test]
    fn a_file_keeps_its_profile_until_it_is_another_file() {
        let before = |profile: u8, bytes| Some(CutBefore { profile, bytes });
        let packed = FileFacts { name: b"a.mp4", bytes: BIG, is_incompressible: true, ..FileFacts::default() };
        assert_eq!(*choose(&FileFacts { before: before(GENERIC.number, BIG), ..packed }), GENERIC);
        assert_eq!(*choose(&FileFacts { before: before(GENERIC.number, BIG / 5), ..packed }), MEDIA, "it has grown");
        assert_eq!(*choose(&FileFacts { before: before(MEDIA.number, BIG), bytes: 30 << 20, ..packed }), MEDIA);
        assert_eq!(*choose(&FileFacts { before: before(MEDIA.number, BIG), bytes: 3 << 20, ..packed }), GENERIC, "it has shrunk");
        assert_eq!(*choose(&FileFacts { before: before(MEDIA.number, BIG), is_incompressible: false, ..packed }), GENERIC);
        let head = at(0, b"SQLite format 3\0");
        let pages = FileFacts { name: b"app.db", bytes: BIG, head: &head, ..FileFacts::default() };
        assert_eq!(*choose(&FileFacts { before: before(DB.number, BIG), ..pages }), DB);
        assert_eq!(*choose(&FileFacts { before: before(DB.number, BIG), head: b"", ..pages }), GENERIC);
        // Numbers that no file can have, or that a later version gave.
        for profile in [0, META.number, 99, Profile::trial(1 << 16).number] {
            assert_eq!(*choose(&FileFacts { before: before(profile, BIG), ..packed }), MEDIA, "{profile}");
        }
    }
}
