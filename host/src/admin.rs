//! The pages for probes and Prometheus: `/livez`, `/readyz`, `/metrics`, over plain HTTP.
//!
//! It knows what to show only through the functions that it is given. Nothing here changes anything.

use std::{convert::Infallible, fmt::Write as _, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How many connections are served at once; a probe and a scraper need two.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request, and an open connection to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(5);

/// The name of a check, and what is wrong.
pub type Check = (String, Result<(), String>);
pub type Checks = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub struct Admin {
    /// What must hold for the process to be worth keeping; nothing that a restart would not heal.
    pub live: Checks,
    /// What must hold before it counts as ready.
    pub ready: Checks,
    pub metrics: Metrics,
    /// Called before the metrics are printed, for those that are looked up and not counted.
    pub refresh: Arc<dyn Fn(&Metrics) + Send + Sync>,
}

/// Serves until `stop`; then lets open requests end, for a while.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        match stream {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, admin.clone(), stop.clone()))),
            Err(error) => {
                tracing::warn!(%error, "the admin server cannot accept a connection");
                // Too many open files, for example: it does not get better by asking at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // What is still open then is cut off with the set.
    let _ = tokio::time::timeout(PATIENCE, ended).await;
    Ok(())
}

async fn connection(stream: TcpStream, admin: Admin, stop: CancellationToken) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&admin, request.method(), request.uri().path(), request.uri().query());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // A client that goes away in the middle is its own business.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stop.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

fn answer(admin: &Admin, method: &Method, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n".into());
    }
    let verbose = query.is_some_and(|q| q.split('&').any(|p| p.split('=').next() == Some("verbose")));
    match path {
        "/livez" => checked("livez", &(admin.live)(), verbose),
        "/readyz" => checked("readyz", &(admin.ready)(), verbose),
        "/metrics" => {
            (admin.refresh)(&admin.metrics);
            match admin.metrics.text() {
                Ok(text) => plain(StatusCode::OK, text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics do not print: {error}\n")),
            }
        }
        _ => plain(StatusCode::NOT_FOUND, "there is /livez, /readyz and /metrics\n".into()),
    }
}

/// As the API server's own pages look.
fn checked(page: &str, checks: &[Check], verbose: bool) -> Response<Full<Bytes>> {
    let failed = checks.iter().any(|(_, result)| result.is_err());
    if !failed && !verbose {
        return plain(StatusCode::OK, "ok".into());
    }
    let mut text = String::new();
    for (name, result) in checks {
        let _ = match result {
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(reason) => writeln!(text, "[-]{name} failed: {reason}"),
        };
    }
    let (status, verdict) = if failed { (StatusCode::SERVICE_UNAVAILABLE, "failed") } else { (StatusCode::OK, "passed") };
    let _ = writeln!(text, "{page} check {verdict}");
    plain(status, text)
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn admin(ready: Vec<Check>) -> Admin {
        let ready: Checks = Arc::new(move || ready.clone());
        let refresh = Arc::new(|metrics: &Metrics| metrics.leading.with_label_values(&["reef"]).set(1));
        Admin { live: Arc::new(Vec::new), ready, metrics: Metrics::new().unwrap(), refresh }
    }

    async fn get(admin: &Admin, path: &str, query: Option<&str>) -> (u16, String) {
        let response = answer(admin, &Method::GET, path, query);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_failed_check_is_named_with_its_reason() {
        let ready = admin(vec![("lease".into(), Ok(())), ("cache".into(), Err("v1/ConfigMap is not synced".into()))]);
        let text = "[+]lease ok\n[-]cache failed: v1/ConfigMap is not synced\nreadyz check failed\n";
        assert_eq!(get(&ready, "/readyz", None).await, (503, text.into()));
        assert_eq!(get(&ready, "/livez", None).await, (200, "ok".into()));
    }

    #[tokio::test]
    async fn what_is_fine_is_listed_only_when_asked() {
        let ready = admin(vec![("lease".into(), Ok(()))]);
        assert_eq!(get(&ready, "/readyz", None).await, (200, "ok".into()));
        assert_eq!(get(&ready, "/readyz", Some("verbose")).await, (200, "[+]lease ok\nreadyz check passed\n".into()));
        assert_eq!(get(&ready, "/readyz", Some("verbose=true")).await.1, "[+]lease ok\nreadyz check passed\n");
        assert!(get(&ready, "/metrics", None).await.1.contains("leader_election_master_status{name=\"reef\"} 1"));
        assert_eq!(get(&ready, "/secrets", None).await.0, 404);
        assert_eq!(answer(&ready, &Method::POST, "/readyz", None).status(), 405);
    }

    #[tokio::test]
    async fn it_serves_over_tcp_and_stops_with_a_connection_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, admin(Vec::new()), stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        stop.cancel();
        server.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
