//! `make demo`: what Reef does, on a real control plane, measured.
//!
//! Every time that is printed runs from a request of the admin to the change that the admin's own watch saw (`sight`); every
//! number of writes was counted in the API server's audit log. A step that does not happen ends the demo. `setup` installs
//! everything, `steps` are a plugin's everyday life, `examples` three larger plugins, `faults` what goes wrong and must not hurt,
//! `screen` prints, `keep` leaves everything running.

mod examples;
mod faults;
pub mod keep;
mod screen;
mod setup;
mod sight;
mod steps;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use self::screen::{Line, Screen};
use self::sight::Sight;
use crate::{
    audit::{Mark, Request},
    cluster::hang_bound,
    control_plane::HOST_USER,
    host::{Host, Options},
    world::World,
};

/// Where hello works, where the misbehaving plugin does, and where the larger examples do.
const TEAM: &str = "team-a";
const OTHER_TEAM: &str = "team-b";
const EXAMPLES: &str = "team-c";
const HELLO: &str = "hello";
const PROBE: &str = "probe";

const HELLOS: &str = "demo.reef.dev/v1/Hello";
const PROBES: &str = "test.reef.dev/v1/Probe";
const CONFIG: &str = "v1/ConfigMap";
const WEBSITES: &str = "demo.reef.dev/v1/Website";
const DEPLOYMENTS: &str = "apps/v1/Deployment";
const SERVICES: &str = "v1/Service";
const INGRESSES: &str = "networking.k8s.io/v1/Ingress";
const DATABASES: &str = "demo.reef.dev/v1/Database";
const BACKUPS: &str = "demo.reef.dev/v1/Backup";
const SETS: &str = "apps/v1/StatefulSet";
const JOBS: &str = "batch/v1/Job";
const PLUGINS: &str = "reef.dev/v1alpha1/Plugin";

/// What all steps work with.
pub struct Demo {
    // Before the world, which ends everything.
    host: Host,
    sight: Sight,
    options: Options,
    world: World,
}

/// The whole demo; with `stay`, it never returns unless it fails.
pub fn show(screen: Screen, stay: bool) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let demo = runtime.block_on(run(screen))?;
    if stay {
        keep::stay(&demo, screen)
    } else {
        Ok(screen.say("\nAll of it happened as promised. `make demo KEEP=1` leaves it running.")?)
    }
}

async fn run(screen: Screen) -> Result<Demo> {
    let began = Instant::now();
    screen.title("Reef demo. Times run from the request to the change seen in a watch; writes are from the audit log.")?;
    let mut demo = setup::run(screen).await?;
    for number in 1..=13 {
        if let Err(error) = one(&mut demo, screen, number).await {
            let ended = demo.host.exit().map(|exit| format!(" (the host has ended: {exit:?})")).unwrap_or_default();
            screen.say(&format!("\n{}", demo.host.log_tail(30)))?;
            return Err(error.context(format!("step {number} failed{ended}")));
        }
    }
    screen.say(&format!(
        "\n   {} requests in the audit log, {}",
        demo.world.audit.all()?.len(),
        screen::duration(began.elapsed())
    ))?;
    Ok(demo)
}

async fn one(demo: &mut Demo, screen: Screen, number: usize) -> Result<()> {
    let line = match number {
        1 => screen.patience("creating a Hello, waiting for its ConfigMap", steps::created(demo)).await,
        2 => screen.patience("editing the text, waiting for the ConfigMap to follow", steps::edited(demo)).await,
        3 => screen.patience("deleting the ConfigMap, waiting for it to come back", steps::deleted_by_hand(demo)).await,
        4 => screen.patience("editing the ConfigMap, waiting for its repair", steps::edited_by_hand(demo)).await,
        5 => screen.patience("replacing the component while 20 Hellos are edited", faults::swapped(demo)).await,
        6 => screen.patience("killing the host, waiting for the next one to take the lease", faults::killed(demo)).await,
        7 => screen.patience("running a plugin in an endless loop beside hello", faults::looped(demo)).await,
        8 => screen.patience("asking for a write into another namespace", faults::refused(demo)).await,
        9 => screen.patience("creating a Website, playing its pods", examples::served(demo)).await,
        10 => screen.patience("editing a ConfigMap, waiting for its history", examples::kept(demo)).await,
        11 => screen.patience("changing the version of a Database, playing its replicas", examples::walked(demo)).await,
        12 => screen.patience("creating a Backup, waiting for its Job", examples::backed_up(demo)).await,
        _ => {
            let learns = "waiting for Kubernetes' garbage collector, which looks for new kinds every 30 s";
            screen.patience(learns, steps::collector_knows(demo)).await?;
            screen.patience("deleting the Hello, waiting for the garbage collector", steps::collected(demo)).await
        }
    }?;
    Ok(screen.line(&number.to_string(), &line)?)
}

impl Demo {
    /// What Reef wrote in a namespace since the mark, as soon as that is all that was expected or more.
    async fn writes(&self, mark: Mark, expected: usize) -> Result<Vec<Request>> {
        let end = Instant::now() + hang_bound();
        loop {
            // The mark makes sure that everything is in the log that had been answered.
            self.world.audit.mark(&self.world.cluster).await?;
            let writes = self.world.audit.writes(mark, TEAM)?;
            if writes.len() >= expected {
                return Ok(writes);
            }
            if Instant::now() > end {
                let lines: Vec<_> = writes.iter().map(Request::line).collect();
                bail!("expected {expected} writes in {TEAM}, the audit log has {}:\n{}", writes.len(), lines.join("\n"));
            }
        }
    }

    /// Edits a Hello, and says how long it took until its ConfigMap said `becomes`.
    async fn edit(&mut self, name: &str, text: &str, becomes: &str) -> Result<Duration> {
        let (mark, began) = (self.sight.mark(), Instant::now());
        let patch = serde_json::json!({ "spec": { "text": text } });
        self.world.cluster.patch(HELLOS, TEAM, name, "", &patch).await?;
        let wanted = format!("ConfigMap {name} to say {becomes:?}");
        let config = self.sight.first(mark, &wanted, |seen| seen.is(CONFIG, name) && seen.says(becomes)).await?;
        Ok(config.at - began)
    }
}

/// `1 write`, `2 writes`
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// All writes are hello's, but for what the host itself says on the `Plugin` and, in events, about it.
fn only_hello(writes: &[Request]) -> Result<()> {
    let account = format!("system:serviceaccount:{TEAM}:{HELLO}");
    let about_plugin = |write: &Request| {
        let word = &*write.object_ref.resource;
        word == "plugins" || (word == "events" && write.user.username == HOST_USER)
    };
    let foreign = |write: &&Request| write.user.username != account && !about_plugin(write);
    let other = writes.iter().find(foreign);
    other.map_or(Ok(()), |write| bail!("expected writes by {account} only, the audit log has: {}", write.line()))
}

/// Fails with what was expected and what was seen.
fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(anyhow::Error::msg(what())).context("a step went otherwise than promised") }
}
