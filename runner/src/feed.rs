//! Standard input for a program, at the program's pace.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use crate::link::retry;

/// The writing end of a program's standard input and what is still to be written.
#[derive(Debug)]
pub(crate) struct Feed {
    pipe: Option<File>,
    bytes: Vec<u8>,
    written: usize,
}

impl Feed {
    /// Feeds `bytes` to a nonblocking pipe, then closes it.
    pub(crate) fn new(pipe: Option<File>, bytes: Vec<u8>) -> Self {
        let pipe = pipe.filter(|_| !bytes.is_empty());
        Self {
            pipe,
            bytes,
            written: 0,
        }
    }

    /// Writable when there is room for more; `None` when all is written.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Writes what fits. A program that closed its input is not an error: it did not want the rest.
    pub(crate) fn push(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let rest = self.bytes.get(self.written..).unwrap_or_default();
        match retry(|| pipe.write(rest)) {
            Ok(Some(count)) if count < rest.len() => self.written += count,
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => self.stop(),
        }
    }

    /// Closes the pipe and forgets the rest.
    pub(crate) fn stop(&mut self) {
        self.pipe = None;
        self.bytes = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;
    use std::io::Read;

    #[test]
    fn everything_arrives_and_then_the_end() {
        let (read, write) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut read = File::from(read);
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut feed = Feed::new(Some(write.into()), bytes.clone());
        let mut got = Vec::new();
        let mut piece = [0; 50_000];
        loop {
            feed.push();
            match retry(|| read.read(&mut piece)).unwrap() {
                Some(0) => break,
                Some(count) => got.extend_from_slice(&piece[..count]),
                None => {}
            }
        }
        assert!(got == bytes);
        assert!(feed.writable().is_none());
    }

    #[test]
    fn no_input_is_the_end_at_once_and_a_closed_one_is_no_error() {
        let (read, write) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let feed = Feed::new(Some(write.into()), Vec::new());
        assert!(feed.writable().is_none());
        assert_eq!(File::from(read).read(&mut [0; 1]).unwrap(), 0);

        let (read, write) = pipe2(OFlag::O_NONBLOCK).unwrap();
        drop(read);
        let mut feed = Feed::new(Some(write.into()), vec![1; 100]);
        feed.push();
        assert!(feed.writable().is_none());
    }
}
