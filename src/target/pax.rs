//! The headers of a POSIX pax archive: a ustar header, and before it the records for what ustar can't say. Pure bytes.

use tar::{EntryType, Header};

use crate::clock::Timestamp;
use crate::model::{Meta, XattrSet};

/// The longest name or link target of a ustar header.
const NAME_BYTES_MAX: usize = 100;
/// The largest number of an 8-byte octal field.
const ID_MAX: u32 = 0o7_777_777;
/// The largest number of a 12-byte octal field.
const SIZE_MAX: u64 = 0o77_777_777_777;

/// One entry of an archive.
pub(super) struct Entry<'a> {
    pub(super) kind: EntryType,
    /// Its path, as the reader is to see it; a directory's ends with `/`.
    pub(super) path: &'a [u8],
    /// Where a symlink points, or the path of the file that a hard link is another name for.
    pub(super) link: Option<&'a [u8]>,
    pub(super) meta: &'a Meta,
    pub(super) xattrs: &'a XattrSet,
    /// Bytes that follow the header.
    pub(super) stored_bytes: u64,
    /// The size of a sparse file; its map and parts follow the header.
    pub(super) sparse_len: Option<u64>,
    /// Major and minor number of a device.
    pub(super) device: Option<(u32, u32)>,
}

/// The entry's headers.
pub(super) fn headers(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1536);
    let records = records(entry);
    if !records.is_empty() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        set_name(&mut header.as_old_mut().name, b"./PaxHeaders/entry");
        header.set_mode(0o600);
        header.set_size(records.len() as u64);
        finish(&mut header, &mut out);
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    let mut header = Header::new_ustar();
    header.set_entry_type(entry.kind);
    // Readers that know no sparse files must not take map and parts for the file.
    let path: &[u8] = if entry.sparse_len.is_some() { b"./GNUSparseFile.0/entry" } else { entry.path };
    set_name(&mut header.as_old_mut().name, path);
    set_name(&mut header.as_old_mut().linkname, entry.link.unwrap_or(b""));
    header.set_mode(u32::from(entry.meta.mode) & 0o7777);
    header.set_uid(fits(entry.meta.uid));
    header.set_gid(fits(entry.meta.gid));
    header.set_size(if entry.stored_bytes > SIZE_MAX { 0 } else { entry.stored_bytes });
    header.set_mtime(u64::try_from(entry.meta.mtime.seconds).ok().filter(|&seconds| seconds <= SIZE_MAX).unwrap_or(0));
    if let (Some((major, minor)), Some(ustar)) = (entry.device, header.as_ustar_mut()) {
        ustar.set_device_major(major);
        ustar.set_device_minor(minor);
    }
    finish(&mut header, &mut out);
    out
}

/// Whether the archive can hold a device's numbers.
pub(super) fn holds_device(major: u32, minor: u32) -> bool {
    major <= ID_MAX && minor <= ID_MAX
}

fn records(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let path = (needs_record(entry.path) || entry.sparse_len.is_some()).then_some(entry.path);
    let link = entry.link.filter(|link| needs_record(link));
    if [path, link].iter().flatten().any(|text| str::from_utf8(text).is_err()) {
        record(&mut out, b"hdrcharset", b"BINARY");
    }
    if let Some(len) = entry.sparse_len {
        record(&mut out, b"GNU.sparse.major", b"1");
        record(&mut out, b"GNU.sparse.minor", b"0");
        record(&mut out, b"GNU.sparse.name", entry.path);
        record(&mut out, b"GNU.sparse.realsize", len.to_string().as_bytes());
    } else if let Some(path) = path {
        record(&mut out, b"path", path);
    }
    if let Some(link) = link {
        record(&mut out, b"linkpath", link);
    }
    if entry.stored_bytes > SIZE_MAX {
        record(&mut out, b"size", entry.stored_bytes.to_string().as_bytes());
    }
    for (name, id) in [(&b"uid"[..], entry.meta.uid), (b"gid", entry.meta.gid)] {
        if id > ID_MAX {
            record(&mut out, name, id.to_string().as_bytes());
        }
    }
    let mtime = entry.meta.mtime;
    if mtime.nanos != 0 || u64::try_from(mtime.seconds).map_or(true, |seconds| seconds > SIZE_MAX) {
        record(&mut out, b"mtime", decimal(mtime).as_bytes());
    }
    for (name, value) in entry.xattrs {
        record(&mut out, &xattr_keyword(name), value);
    }
    out
}

/// Whether a name can't stand in a ustar header: it is too long, or its character set has to be told.
fn needs_record(name: &[u8]) -> bool {
    name.len() > NAME_BYTES_MAX || !name.is_ascii()
}

fn fits(id: u32) -> u64 {
    if id > ID_MAX { 0 } else { id.into() }
}

fn set_name(field: &mut [u8; NAME_BYTES_MAX], name: &[u8]) {
    let len = name.len().min(field.len());
    field[..len].copy_from_slice(&name[..len]);
}

fn finish(header: &mut Header, out: &mut Vec<u8>) {
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

/// `LENGTH KEYWORD=VALUE\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(format!("{len} ").as_bytes());
    out.extend_from_slice(keyword);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Seconds with a decimal fraction; before 1970 both count backwards.
fn decimal(time: Timestamp) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos.min(999_999_999));
    let (sign, total) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A keyword can't hold `=`; GNU tar's way around that is that of URLs.
fn xattr_keyword(name: &[u8]) -> Vec<u8> {
    let mut keyword = b"SCHILY.xattr.".to_vec();
    for &byte in name {
        match byte {
            b'%' => keyword.extend_from_slice(b"%25"),
            b'=' => keyword.extend_from_slice(b"%3D"),
            other => keyword.push(other),
        }
    }
    keyword
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let of = |value: &[u8]| {
            let mut out = Vec::new();
            record(&mut out, b"k", value);
            out
        };
        assert_eq!(of(b""), b"5 k=\n");
        assert_eq!(of(b"1234"), b"9 k=1234\n");
        assert_eq!(of(b"12345"), b"11 k=12345\n", "ten digits would count nine");
        for len in [80, 90, 91, 92, 93, 94, 95, 985, 990, 991, 992, 993, 994] {
            let out = of(&vec![b'v'; len]);
            let counted: usize =
                str::from_utf8(&out[..out.iter().position(|&b| b == b' ').unwrap_or(0)]).unwrap_or("").parse().unwrap_or(0);
            assert_eq!(counted, out.len(), "{len}");
        }
    }

    #[test]
    fn times_before_1970_count_backwards() {
        assert_eq!(decimal(Timestamp::new(-5, 300_000_000)), "-4.7");
        assert_eq!(decimal(Timestamp::new(-5, 0)), "-5");
        assert_eq!(decimal(Timestamp::new(0, 1)), "0.000000001");
        assert_eq!(decimal(Timestamp::new(1_700_000_000, 120_000_000)), "1700000000.12");
        assert_eq!(decimal(Timestamp::new(100, 0)), "100");
    }
}
