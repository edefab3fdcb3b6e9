//! Queue and runner of kube-runtime alone: what they cost when a reconcile costs nothing.

use std::{
    convert::Infallible,
    future::ready,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    api::ObjectMeta,
    runtime::{
        controller::{Action, Config, applier},
        reflector::{self, ObjectRef},
        watcher,
    },
};

/// Keys are there from the beginning, as after a first list.
pub async fn run(keys: usize) -> anyhow::Result<Duration> {
    let (reader, mut writer) = reflector::store::<ConfigMap>();
    writer.apply_watcher_event(&watcher::Event::Init);
    for i in 0..keys {
        writer.apply_watcher_event(&watcher::Event::InitApply(object(i)));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
    let requests: Vec<_> = (0..keys).map(|i| Ok::<_, Infallible>(ObjectRef::from_obj(&object(i)))).collect();
    let began = Instant::now();
    let ran = applier(
        |_, _| ready(Ok::<_, Infallible>(Action::await_change())),
        |_, _, _| Action::await_change(),
        Arc::new(()),
        reader,
        // A queue that ends would end the runner before its work is done.
        stream::iter(requests).chain(stream::pending()),
        Config::default(),
    );
    let count = ran.filter(|result| ready(result.is_ok())).take(keys).count().await;
    ensure!(count == keys, "{count} of {keys} keys ran");
    Ok(began.elapsed())
}

fn object(i: usize) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(format!("object-{i}")), namespace: Some("bench".into()), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}
