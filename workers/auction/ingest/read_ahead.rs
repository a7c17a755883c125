//! Read-ahead: one thread decompresses while another parses, on a second core.
//!
//! The number of buffers bounds the memory. When the parser stops early, the channel closes and the reading thread
//! ends.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Size of one buffer.
const BUFFER_BYTES: usize = 256 << 10;
/// Maximum number of buffers in flight.
const MAX_BUFFERS: usize = 4;

/// A reader that returns the bytes read by the read-ahead thread.
pub struct ReadAhead {
    buffers: Receiver<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    read: usize,
}

impl Read for ReadAhead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.buffer.len() {
            match self.buffers.recv() {
                Ok(buffer) => (self.buffer, self.read) = (buffer?, 0),
                Err(_) => return Ok(0), // the reading thread has ended
            }
        }
        let n = out.len().min(self.buffer.len() - self.read);
        out[..n].copy_from_slice(&self.buffer[self.read..self.read + n]);
        self.read += n;
        Ok(n)
    }
}

/// Runs `parse` on the bytes that a second thread reads from `file`. Returns the result, and the file as far as it was
/// read.
pub fn with_read_ahead<T, R: Read + Send>(file: R, parse: impl FnOnce(ReadAhead) -> T) -> io::Result<(T, R)> {
    std::thread::scope(|scope| {
        let (filled, buffers) = sync_channel(MAX_BUFFERS);
        let reader = std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn_scoped(scope, move || fill_buffers(file, &filled))?;
        let parsed = parse(ReadAhead { buffers, buffer: Vec::new(), read: 0 });
        let file = reader.join().map_err(|_| io::Error::other("the reading thread panicked"))?;
        Ok((parsed, file))
    })
}

fn fill_buffers<R: Read>(mut file: R, filled: &SyncSender<io::Result<Vec<u8>>>) -> R {
    loop {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let read = (&mut file).take(BUFFER_BYTES as u64).read_to_end(&mut buffer);
        let over = !matches!(read, Ok(1..));
        let sent = match read {
            Ok(0) => Ok(()),
            read => filled.send(read.map(|_| buffer)),
        };
        if over || sent.is_err() {
            return file;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_in_order() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let (read, left) = with_read_ahead(bytes.as_slice(), |mut ahead| {
            let mut all = Vec::new();
            ahead.read_to_end(&mut all).unwrap();
            all
        })
        .unwrap();
        assert!(read == bytes);
        assert!(left.is_empty());
    }

    #[test]
    fn a_parser_that_stops_early_leaves_no_thread_behind() {
        let (first, _) = with_read_ahead(std::io::repeat(7), |mut ahead| {
            let mut one = [0];
            ahead.read_exact(&mut one).unwrap();
            one[0]
        })
        .unwrap();
        assert_eq!(first, 7);
    }

    #[test]
    fn an_error_of_the_file_reaches_the_parser() {
        struct FailingReader;
        impl Read for FailingReader {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("torn"))
            }
        }
        let (read, _) =
            with_read_ahead(FailingReader, |mut ahead| ahead.read_to_end(&mut Vec::new()).map_err(|e| e.to_string()))
                .unwrap();
        assert_eq!(read.unwrap_err(), "torn");
    }
}
