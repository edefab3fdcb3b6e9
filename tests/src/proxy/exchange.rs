//! One request on its way there and back, and what happens to it.

use std::{future::pending, io, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    Shared,
    book::Decision,
    events::{self, Body},
    rules::{Fault, ListFault, Moment, When},
    what::What,
    wire::Connection,
};

type Answer = Result<Response<Body>, io::Error>;

pub async fn handle(shared: Arc<Shared>, connection: Arc<Connection>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let what = What::of(&parts.method, &parts.uri, &body);
    let Decision { frozen, fault, events } = shared.book.decide(&what);
    if frozen {
        shared.waiting.notify_one();
        return pending().await;
    }
    let exchange = Exchange { shared: &shared, connection: &connection, what: &what };
    if let Some(answer) = exchange.before(fault.as_ref()).await? {
        return Ok(answer);
    }
    let answer = exchange.forward(Request::from_parts(parts, Full::new(body))).await?;
    shared.book.answered(&what, answer.status().as_u16());
    if what.verb == "watch" && answer.status().is_success() {
        let (head, body) = answer.into_parts();
        return Ok(Response::from_parts(head, events::spoilt(body, events, what, shared.book.clone())));
    }
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    exchange.after(fault.as_ref(), Response::from_parts(head, body)).await
}

struct Exchange<'a> {
    shared: &'a Arc<Shared>,
    connection: &'a Arc<Connection>,
    what: &'a What,
}

impl Exchange<'_> {
    /// An answer in place of the API server's, or none: then it is asked.
    async fn before(&self, fault: Option<&Fault>) -> Result<Option<Response<Body>>, io::Error> {
        let Some(fault) = fault else { return Ok(None) };
        match fault {
            Fault::Reset(When::Before) => self.reset(fault),
            Fault::Cut(When::Before) => self.cut(fault).await,
            Fault::Stall(When::Before) => self.stall(fault).await,
            Fault::Hole => {
                self.connection.swallow();
                self.stall(fault).await
            }
            Fault::Delay(time) => {
                self.happened(fault);
                tokio::time::sleep(*time).await;
                Ok(None)
            }
            Fault::Answer { code, when: When::Before, retry_after } => {
                self.happened(fault);
                Ok(Some(refusal(*code, *retry_after)))
            }
            Fault::Kill(Moment::Before) => {
                self.happened(fault);
                self.shared.kill().await;
                pending().await
            }
            _ => Ok(None),
        }
    }

    async fn forward(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, io::Error> {
        let path = request.uri().path_and_query().cloned();
        let mut uri = self.connection.base.clone().into_parts();
        uri.path_and_query = path;
        *request.uri_mut() = http::Uri::from_parts(uri).map_err(io::Error::other)?;
        self.connection.upstream.request(request).await.map_err(io::Error::other)
    }

    /// The request was carried out; what becomes of its answer.
    async fn after(&self, fault: Option<&Fault>, answer: Response<Bytes>) -> Answer {
        match fault {
            Some(fault @ Fault::Reset(When::After)) => self.reset(fault),
            Some(fault @ Fault::Cut(When::After)) => self.cut(fault).await,
            Some(fault @ Fault::Stall(When::After)) => self.stall(fault).await,
            Some(fault @ Fault::Answer { code, when: When::After, retry_after }) => {
                self.happened(fault);
                Ok(refusal(*code, *retry_after))
            }
            Some(fault @ Fault::Kill(Moment::During)) => {
                self.happened(fault);
                self.shared.kill().await;
                pending().await
            }
            Some(fault @ Fault::Kill(Moment::After)) => {
                self.happened(fault);
                self.shared.kill_soon();
                Ok(whole(answer))
            }
            Some(Fault::List(fault)) if answer.status().is_success() => {
                self.happened(&Fault::List(*fault));
                let (mut head, body) = answer.into_parts();
                head.headers.remove(CONTENT_LENGTH);
                Ok(whole(Response::from_parts(head, list(*fault, &body))))
            }
            _ => Ok(whole(answer)),
        }
    }

    fn happened(&self, fault: &Fault) {
        self.shared.book.happened(&fault.to_string(), self.what);
    }

    /// An error of the service resets the stream.
    fn reset<T>(&self, fault: &Fault) -> Result<T, io::Error> {
        self.happened(fault);
        Err(io::Error::other("reset"))
    }

    async fn cut<T>(&self, fault: &Fault) -> T {
        self.happened(fault);
        self.connection.cut();
        pending().await
    }

    async fn stall<T>(&self, fault: &Fault) -> T {
        self.happened(fault);
        pending().await
    }
}

fn whole(answer: Response<Bytes>) -> Response<Body> {
    answer.map(|body| BodyExt::boxed(Full::new(body).map_err(|never| match never {})))
}

/// As an API server, or what stands before it, says no.
fn refusal(code: u16, retry_after: Option<u64>) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{code}: the fault proxy says so"), "reason": reason, "code": code,
    });
    let mut answer = Response::new(Bytes::from(status.to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    whole(answer)
}

fn list(fault: ListFault, body: &Bytes) -> Bytes {
    if fault == ListFault::Torn {
        return body.slice(..body.len() / 2);
    }
    let Ok(mut list) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    if let Some(items) = list["items"].as_array_mut() {
        let keep = if fault == ListFault::Halved { items.len() / 2 } else { 0 };
        items.truncate(keep);
    }
    Bytes::from(list.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_emptied_halved_or_torn() {
        let body = Bytes::from(r#"{"metadata":{"resourceVersion":"7"},"items":[1,2,3,4]}"#);
        let parsed = |fault| serde_json::from_slice::<Value>(&list(fault, &body));
        assert_eq!(parsed(ListFault::Empty).unwrap(), json!({ "metadata": { "resourceVersion": "7" }, "items": [] }));
        assert_eq!(parsed(ListFault::Halved).unwrap()["items"], json!([1, 2]));
        assert!(parsed(ListFault::Torn).is_err());
    }
}
