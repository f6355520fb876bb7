//! A read that leaves the page cache as it was: whoever goes over a whole repository once would otherwise push out what
//! others had there. What was cached before stays cached.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr};

/// `RWF_DONTCACHE` (Linux 6.14): pages that the read brings in are dropped when it is done. rustix has no name for it yet.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Fills `buffer` from `offset`. `UnexpectedEof` when the file ends before.
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        match retry_on_intr(|| preadv2(file, &mut [IoSliceMut::new(&mut buffer[done..])], at, DONT_CACHE)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            // An older kernel, or a file system that does not know the flag.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => return read_and_drop(file, &mut buffer[done..], at),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Reads what is cached, then the rest, whose pages are given back. Should only a later part have been cached, it goes too.
fn read_and_drop(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let cached = retry_on_intr(|| preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)).unwrap_or(0);
    let rest = &mut buffer[cached..];
    let at = offset + cached as u64;
    file.read_exact_at(rest, at)?;
    // A length of 0 would mean the whole rest of the file.
    if let Some(len) = NonZeroU64::new(rest.len() as u64) {
        // Advice only: a system that takes none keeps the pages, and the read was good all the same.
        let _ = fadvise(file, at, Some(len), Advice::DontNeed);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const LEN: usize = 1 << 20;

    fn pattern() -> Vec<u8> {
        (0..LEN).map(|at| (at / 4096).to_le_bytes()[0] ^ at.to_le_bytes()[0]).collect()
    }

    /// How many bytes of a file are cached, as `fincore` of util-linux counts them; none without it. (A read that does not
    /// wait would tell, too, but on the way starts to read ahead.)
    fn cached(path: &Path) -> Option<usize> {
        let output = Command::new("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }

    type Read = fn(&File, &mut [u8], u64) -> io::Result<()>;

    #[test]
    fn what_was_not_cached_is_not_and_what_was_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&pattern(), 0).unwrap();
        for read in [read_exact_at as Read, read_and_drop] {
            file.as_file().sync_all().unwrap();
            fadvise(file.as_file(), 0, None, Advice::DontNeed).unwrap();
            if cached(file.path()) != Some(0) {
                eprintln!("skipped: it can't be seen what is cached, or everything is");
                return;
            }
            let mut buffer = vec![0; LEN];
            read(file.as_file(), &mut buffer, 0).unwrap();
            assert!(buffer == pattern());
            assert_eq!(cached(file.path()), Some(0), "it was not cached before");
            file.as_file().read_exact_at(&mut buffer, 0).unwrap();
            assert_eq!(cached(file.path()), Some(LEN));
            read(file.as_file(), &mut buffer, 0).unwrap();
            assert!(buffer == pattern());
            assert_eq!(cached(file.path()), Some(LEN), "others had it cached");
        }
    }

    #[test]
    fn a_file_that_ends_too_early_is_told() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 5000], 0).unwrap();
        for read in [read_exact_at as Read, read_and_drop] {
            assert_eq!(read(&file, &mut [0; 5001], 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            let mut tail = [0; 100];
            read(&file, &mut tail, 4900).unwrap();
            assert_eq!(tail, [7; 100]);
            read(&file, &mut [], 9000).unwrap();
        }
    }
}
