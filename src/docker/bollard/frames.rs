//! The frames in which an engine sends stdout and stderr over one connection: a channel, three zeros, a length, the bytes.

use std::io::{self, Read};

/// How much of the engine's own complaint is kept.
const COMPLAINT_BYTES_MAX: usize = 4096;

/// What a piece of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Stdout,
    Stderr,
    /// The engine's own words: what it wanted to send failed.
    Engine,
}

/// Takes frames apart. A read that timed out can be tried again.
pub(super) struct Frames<R> {
    input: R,
    header: [u8; 8],
    header_bytes: usize,
    channel: Channel,
    left: usize,
    complaint: Vec<u8>,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, header: [0; 8], header_bytes: 0, channel: Channel::Stdout, left: 0, complaint: Vec::new() }
    }

    pub(super) fn input(&self) -> &R {
        &self.input
    }

    /// The next piece of either channel, at most `buffer` long; none at an end between two frames. An end within one is
    /// `UnexpectedEof`, what is no frame `InvalidData`, and the engine's own complaint `Other` with its words.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<(Channel, usize)>> {
        loop {
            if self.left == 0 && !self.read_header()? {
                return Ok(None);
            }
            let wanted = buffer.len().min(self.left);
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            if piece.is_empty() {
                // A frame of nothing.
                continue;
            }
            let length = read_some(&mut self.input, piece)?;
            if length == 0 {
                return Err(truncated());
            }
            self.left -= length;
            if self.channel != Channel::Engine {
                return Ok(Some((self.channel, length)));
            }
            let room = COMPLAINT_BYTES_MAX.saturating_sub(self.complaint.len()).min(length);
            self.complaint.extend_from_slice(piece.get(..room).unwrap_or_default());
            if self.left == 0 || room == 0 {
                let words = crate::model::path::escape(self.complaint.trim_ascii());
                return Err(io::Error::other(format!("the engine said: {words}")));
            }
        }
    }

    /// Whether there is another frame.
    fn read_header(&mut self) -> io::Result<bool> {
        while let Some(rest) = self.header.get_mut(self.header_bytes..).filter(|rest| !rest.is_empty()) {
            match read_some(&mut self.input, rest)? {
                0 if self.header_bytes == 0 => return Ok(false),
                0 => return Err(truncated()),
                length => self.header_bytes += length,
            }
        }
        self.header_bytes = 0;
        let [channel, zeros @ .., a, b, c, d] = self.header;
        self.channel = match (channel, zeros) {
            (1, [0, 0, 0]) => Channel::Stdout,
            (2, [0, 0, 0]) => Channel::Stderr,
            (3, [0, 0, 0]) => Channel::Engine,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the engine sent what is not a frame of stdout or stderr")),
        };
        self.left = u32::from_be_bytes([a, b, c, d]) as usize;
        Ok(true)
    }
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended within a frame")
}

/// Whether a read or write on a socket only took too long.
pub(super) fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Gives each entry by a read of its own; `None` is a timeout.
    struct Pieces(VecDeque<Option<Vec<u8>>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.pop_front() {
                None => Ok(0),
                Some(None) => Err(io::ErrorKind::WouldBlock.into()),
                Some(Some(mut piece)) => {
                    let length = piece.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&piece[..length]);
                    if length < piece.len() {
                        self.0.push_front(Some(piece.split_off(length)));
                    }
                    Ok(length)
                }
            }
        }
    }

    fn frame(channel: u8, bytes: &[u8]) -> Vec<u8> {
        [&[channel, 0, 0, 0], (bytes.len() as u32).to_be_bytes().as_slice(), bytes].concat()
    }

    /// All of stdout and stderr, or how it failed.
    fn read_all(input: impl Read) -> Result<(Vec<u8>, Vec<u8>), io::Error> {
        let mut frames = Frames::new(input);
        let (mut out, mut err, mut buffer) = (Vec::new(), Vec::new(), [0; 5]);
        loop {
            match frames.read(&mut buffer) {
                Ok(Some((Channel::Stderr, length))) => err.extend_from_slice(&buffer[..length]),
                Ok(Some((_, length))) => out.extend_from_slice(&buffer[..length]),
                Ok(None) => return Ok((out, err)),
                Err(error) if timed_out(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    #[test]
    fn channels_are_told_apart_however_the_bytes_arrive() {
        let bytes = [frame(1, b"hello "), frame(2, b"oops"), frame(1, b""), frame(1, b"world")].concat();
        assert_eq!(read_all(bytes.as_slice()).unwrap(), (b"hello world".to_vec(), b"oops".to_vec()));
        let single = bytes.iter().flat_map(|byte| [None, Some(vec![*byte])]).collect();
        assert_eq!(read_all(Pieces(single)).unwrap(), (b"hello world".to_vec(), b"oops".to_vec()));
    }

    #[test]
    fn an_end_within_a_frame_is_never_the_end() {
        let bytes = [frame(1, b"hello"), frame(2, b"x")].concat();
        let whole = [0, 13, bytes.len()];
        for length in 0..=bytes.len() {
            let result = read_all(&bytes[..length]);
            match result {
                Ok(_) => assert!(whole.contains(&length), "{length}"),
                Err(error) => assert!(error.kind() == io::ErrorKind::UnexpectedEof && !whole.contains(&length), "{length}"),
            }
        }
    }

    #[test]
    fn what_a_terminal_or_another_program_would_send_is_refused() {
        for bytes in [b"plain text of a terminal".to_vec(), frame(0, b"stdin"), frame(4, b"x"), [1, 0, 0, 1, 0, 0, 0, 1, 9].to_vec()] {
            assert_eq!(read_all(bytes.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn the_engine_s_own_complaint_is_an_error_in_its_words_and_bounded() {
        let error = read_all([frame(1, b"half"), frame(3, b"driver\x1b gone\n")].concat().as_slice()).unwrap_err();
        assert_eq!(error.to_string(), "the engine said: driver\\u{1b} gone");
        let error = read_all(frame(3, &[b'x'; 100_000]).as_slice()).unwrap_err();
        assert!(error.to_string().len() < COMPLAINT_BYTES_MAX + 100);
    }
}
