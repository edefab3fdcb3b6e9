//! How many keys a second go through the queue, and how many bytes a key takes that waits. `make bench` prints it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

use std::{
    fs,
    time::{Duration, Instant},
};

use reef::{
    names::{Cluster, Key, Kind, ObjectId, PluginId},
    queue::{Backoff, Priority, Queue, Verdict},
};

const KEYS: usize = 1_000_000;

fn keys() -> Vec<Key> {
    let (kind, cluster) = (Kind::new("demo.reef.dev", "v1", "Hello"), Cluster::local());
    let plugins: Vec<PluginId> = (0..10).map(|n| PluginId::new("team", &format!("plugin-{n}"))).collect();
    let object = |n: usize| ObjectId::new(kind.clone(), "team", &format!("object-{n:07}"));
    let key = |n: usize| Key { plugin: plugins[n % plugins.len()].clone(), cluster: cluster.clone(), object: object(n) };
    (0..KEYS).map(key).collect()
}

/// Memory of this process that is in RAM, in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn main() {
    let keys = keys();
    let now = Instant::now();
    let mut queue = Queue::new(Backoff::default(), 1);
    for key in keys.iter().take(10) {
        queue.open(key.plugin.clone(), 64);
    }
    let before = resident();
    keys.iter().for_each(|key| queue.add(key.clone(), Priority::Background, now));
    println!("waiting for its turn: {} bytes per key", resident().saturating_sub(before) / KEYS);
    run(&mut queue, Verdict::After(Duration::from_secs(3600)), now);
    println!("waiting for a time:   {} bytes per key", resident().saturating_sub(before) / KEYS);
    let began = Instant::now();
    keys.iter().for_each(|key| queue.add(key.clone(), Priority::Edit, now));
    run(&mut queue, Verdict::Done, now);
    println!("added, handed out and done: {:.0} keys/s", KEYS as f64 / began.elapsed().as_secs_f64());
}

fn run(queue: &mut Queue, verdict: Verdict, now: Instant) {
    while let Some(jobs) = queue.pop(now, usize::MAX) {
        for job in jobs {
            queue.done(&job.key, verdict.into(), now);
        }
    }
}
