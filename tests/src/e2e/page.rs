//! Asks for a page as a visitor does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{SITE, TEAM, Target};
use crate::cluster::{Cluster, hang_bound};

/// In which ways this page was served. A Service is behind its Endpoints for a moment.
pub async fn served(cluster: &Cluster, target: &Target, page: &str) -> Result<String> {
    until("the API server's way to the Service", page, || by_api_server(cluster)).await?;
    if !target.services_are_reached {
        return Ok("the page, through the API server's proxy to the Service".into());
    }
    let service = cluster.get("v1/Service", TEAM, SITE).await?.context("the site has no Service")?;
    let address = service["spec"]["clusterIP"].as_str().context("the Service has no address")?.to_owned();
    until("the Service", page, || directly(&address)).await?;
    Ok(format!("the page from http://{address}/, the Service, and through the API server"))
}

async fn until(what: &str, page: &str, ask: impl AsyncFn() -> Result<String>) -> Result<()> {
    let end = Instant::now() + hang_bound();
    loop {
        let answer = ask().await;
        if answer.as_ref().is_ok_and(|answer| answer == page) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "by {what} comes no such page, but {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn by_api_server(cluster: &Cluster) -> Result<String> {
    let path = format!("/api/v1/namespaces/{TEAM}/services/http:{SITE}:http/proxy/");
    Ok(cluster.client().request_text(http::Request::get(path).body(Vec::new())?).await?)
}

async fn directly(address: &str) -> Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect((address, 80)).await?;
        stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), talk).await.context("no answer in 5 s")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    ensure!(head.lines().next().is_some_and(|line| line.contains(" 200 ")), "{head}");
    Ok(body.to_owned())
}
