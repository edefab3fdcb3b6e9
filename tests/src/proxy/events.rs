//! The stream of one watch on its way back, event by event.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{
    book::{Book, EventFaults},
    rules::EventFault,
    what::What,
};

pub type Body = BoxBody<Bytes, io::Error>;

/// How long an event is held that should come after the next one, if there is none.
const HELD: Duration = Duration::from_secs(1);

/// How long what was told takes to leave.
const FLUSH: Duration = Duration::from_millis(10);

const GONE: &str = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
                    \"message\":\"too old resource version (the fault proxy says)\",\"reason\":\"Expired\",\"code\":410}}\n";

type Line = Result<Bytes, io::Error>;

/// The body that the host gets.
pub fn spoilt(upstream: Incoming, faults: EventFaults, what: What, book: Arc<Book>) -> Body {
    // Small, so that nothing is told long before it is read.
    let (sender, receiver) = channel(16);
    tokio::spawn(async move {
        let gone = sender.clone();
        // The host has left: so does the proxy.
        tokio::select! {
            () = gone.closed() => {}
            () = Stream { upstream, faults, what, book, sender, held: None }.run() => {}
        }
    });
    body(receiver)
}

fn body(mut receiver: Receiver<Line>) -> Body {
    let lines = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    BodyExt::boxed(StreamBody::new(futures::StreamExt::map(lines, |line| line.map(Frame::data))))
}

struct Stream {
    upstream: Incoming,
    faults: EventFaults,
    what: What,
    book: Arc<Book>,
    sender: Sender<Line>,
    held: Option<Bytes>,
}

/// The stream is over.
struct Over;

impl Stream {
    async fn run(mut self) {
        let mut buffer = BytesMut::new();
        loop {
            let frame = match self.held {
                None => self.upstream.frame().await,
                Some(_) => match tokio::time::timeout(HELD, self.upstream.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => {
                        if self.release().await.is_err() {
                            return;
                        }
                        continue;
                    }
                },
            };
            let Some(frame) = frame else { break };
            let Ok(frame) = frame else {
                let _ = self.sender.send(Err(io::Error::other("the API server is gone"))).await;
                return;
            };
            buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1).freeze();
                if self.line(line).await.is_err() {
                    return;
                }
            }
        }
        let _ = self.release().await;
    }

    async fn line(&mut self, line: Bytes) -> Result<(), Over> {
        // `type` comes before `object` on the wire.
        if line.starts_with(b"{\"type\":\"BOOKMARK\"") || line.starts_with(b"{\"type\":\"ERROR\"") {
            self.release().await?;
            return self.send(line).await;
        }
        let Some(fault) = self.faults.next() else {
            self.send(line).await?;
            return self.release().await;
        };
        if fault != EventFault::Reorder || self.held.is_none() {
            self.book.happened(&fault.to_string(), &self.what);
        }
        match fault {
            EventFault::Duplicate => {
                self.send(line.clone()).await?;
                self.send(line).await?;
                self.release().await
            }
            EventFault::Drop => Ok(()),
            EventFault::Reorder if self.held.is_none() => {
                self.held = Some(line);
                Ok(())
            }
            EventFault::Reorder => {
                self.send(line).await?;
                self.release().await
            }
            EventFault::Delay(time) => {
                tokio::time::sleep(time).await;
                self.send(line).await?;
                self.release().await
            }
            EventFault::Gone => {
                self.send(Bytes::from_static(GONE.as_bytes())).await?;
                Err(Over)
            }
            EventFault::Cut => {
                // A reset overtakes what waits to be sent: what was told before is to arrive.
                tokio::time::sleep(FLUSH).await;
                let _ = self.sender.send(Err(io::Error::other("cut"))).await;
                Err(Over)
            }
            // Until the host gives it up.
            EventFault::Hole => std::future::pending().await,
        }
    }

    async fn release(&mut self) -> Result<(), Over> {
        match self.held.take() {
            Some(line) => self.send(line).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, line: Bytes) -> Result<(), Over> {
        self.sender.send(Ok(line)).await.map_err(|_| Over)
    }
}
