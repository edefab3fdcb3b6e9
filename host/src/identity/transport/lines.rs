//! A long answer, line by line, as it comes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use hyper::body::Body as _;

use super::{ApiError, Body, pool::Ticket, unreachable};

/// The lines of an answer, without their ends; empty ones are left out. Dropping it ends the request.
pub struct Lines {
    body: Body,
    split: Split,
    ended: bool,
    _ticket: Ticket,
}

impl Lines {
    pub(super) fn new(body: Body, ticket: Ticket) -> Self {
        Self { body, split: Split::default(), ended: false, _ticket: ticket }
    }
}

impl Stream for Lines {
    type Item = Result<Bytes, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(line) = self.split.next() {
                return Poll::Ready(Some(Ok(line)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.split.push(&data);
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(unreachable(&*error))));
                }
                None => {
                    self.ended = true;
                    if self.split.is_within_a_line() {
                        return Poll::Ready(Some(Err(ApiError::Unreachable("the answer ended within a line".into()))));
                    }
                }
            }
        }
    }
}

/// Bytes in, lines out.
#[derive(Default)]
struct Split {
    buffer: BytesMut,
    /// How much of the buffer is known to have no end of line.
    searched: usize,
}

impl Split {
    fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(at) = memchr::memchr(b'\n', rest) else {
                self.searched = self.buffer.len();
                return None;
            };
            let mut line = self.buffer.split_to(self.searched + at + 1);
            self.searched = 0;
            line.truncate(line.trim_ascii_end().len());
            if !line.is_empty() {
                return Some(line.freeze());
            }
        }
    }

    fn is_within_a_line(&self) -> bool {
        !self.buffer.trim_ascii().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        let text = b"one\n\r\ntwo\r\n  \n{\"three\": 3}\nfo";
        for size in 1..text.len() {
            let (mut split, mut lines) = (Split::default(), Vec::new());
            for piece in text.chunks(size) {
                split.push(piece);
                lines.extend(std::iter::from_fn(|| split.next()));
            }
            assert_eq!(lines, ["one", "two", "{\"three\": 3}"]);
            assert!(split.is_within_a_line());
            split.push(b"ur\n");
            assert_eq!(split.next().unwrap(), "four");
            assert!(!split.is_within_a_line());
        }
    }
}
