//! Reading ahead: a thread decompresses and hashes while another parses.
//!
//! The two take about as long, so a second core halves the time of a steady window's scan. A few buffers in flight bound
//! the memory. When the parser stops early, the reader finds its channel closed and ends.

use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of one buffer.
const BUFFER: usize = 256 << 10;
/// Buffers in flight, at most.
const IN_FLIGHT: usize = 4;

/// What the parser reads.
pub struct Ahead {
    buffers: Receiver<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    read: usize,
}

impl Read for Ahead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.buffer.len() {
            match self.buffers.recv() {
                Ok(buffer) => (self.buffer, self.read) = (buffer?, 0),
                Err(_) => return Ok(0), // the reader is through
            }
        }
        let n = out.len().min(self.buffer.len() - self.read);
        out[..n].copy_from_slice(&self.buffer[self.read..self.read + n]);
        self.read += n;
        Ok(n)
    }
}

/// Runs `parse` on what a thread reads from `file`; gives its result, and the sha256 in hex of all that was read.
pub fn hashed<T>(file: impl Read + Send, parse: impl FnOnce(Ahead) -> T) -> io::Result<(T, String)> {
    std::thread::scope(|scope| {
        let (filled, buffers) = sync_channel(IN_FLIGHT);
        let reader = std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn_scoped(scope, move || fill(file, &filled))?;
        let parsed = parse(Ahead { buffers, buffer: Vec::new(), read: 0 });
        let sha256 = reader.join().map_err(|_| io::Error::other("the reading thread panicked"))?;
        Ok((parsed, sha256))
    })
}

fn fill(mut file: impl Read, filled: &SyncSender<io::Result<Vec<u8>>>) -> String {
    let mut hash = Sha256::new();
    loop {
        let mut buffer = Vec::with_capacity(BUFFER);
        let read = (&mut file).take(BUFFER as u64).read_to_end(&mut buffer);
        hash.update(&buffer);
        let over = !matches!(read, Ok(1..));
        let sent = match read {
            Ok(0) => Ok(()),
            read => filled.send(read.map(|_| buffer)),
        };
        if over || sent.is_err() {
            return hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_in_order_and_are_hashed() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let (read, sha256) = hashed(bytes.as_slice(), |mut ahead| {
            let mut all = Vec::new();
            ahead.read_to_end(&mut all).unwrap();
            all
        })
        .unwrap();
        assert!(read == bytes);
        let expected: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sha256, expected);
    }

    #[test]
    fn a_parser_that_stops_early_leaves_no_thread_behind() {
        let (first, _) = hashed(std::io::repeat(7), |mut ahead| {
            let mut one = [0];
            ahead.read_exact(&mut one).unwrap();
            one[0]
        })
        .unwrap();
        assert_eq!(first, 7);
    }

    #[test]
    fn an_error_of_the_file_reaches_the_parser() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("torn"))
            }
        }
        let (read, _) =
            hashed(Broken, |mut ahead| ahead.read_to_end(&mut Vec::new()).map_err(|e| e.to_string()))
                .unwrap();
        assert_eq!(read.unwrap_err(), "torn");
    }
}
