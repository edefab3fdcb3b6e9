//! Many objects of a plugin, created, edited and deleted by seed for a while, behind a proxy that spoils requests and events by
//! the same seed and kills the host now and then. In the end everything must be as if there had been no trouble.

mod admin;
mod end;
mod hellos;
mod rollouts;
mod websites;

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    host::{Host, Options},
    proxy::{Chaos, Proxy},
    random::Random,
    world::Scene,
};

pub use end::calm;
pub use hellos::Hellos;
pub use websites::Websites;

/// Nobody waits long for the lease of a host that was killed, nor for an answer that does not come.
const FLAGS: [&str; 4] =
    ["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=400ms", "--request-timeout=2s"];
/// Far above what the longest backoff takes.
const END: Duration = Duration::from_secs(400);
/// Once in so many edits the admin looks at the Plugins.
const LOOK: u64 = 20;

/// What is soaked: objects of one kind, whose children have their names.
pub trait Subject {
    const KIND: &'static str;
    /// Which of `plugins/` it is; its account has this name too.
    const EXAMPLE: &'static str;
    /// Of its components, those that are installed, each in a namespace of its own.
    const COMPONENTS: &'static [&'static str];
    /// The kinds of children.
    const CHILDREN: &'static [&'static str];
    /// Between two edits.
    const PAUSE: Duration;

    /// What the so manieth edit makes of an object; `before` if it is there.
    fn spec(random: &mut Random, name: &str, edit: u64, before: Option<&Value>) -> Value;

    /// What somebody does by hand to a child of a kind, as a merge patch.
    fn drift(child: &str) -> Value;

    /// Which of [`Self::CHILDREN`] an object with this spec has.
    fn children(spec: &Value) -> Vec<&'static str>;

    /// Whether an object that is reconciled, and its children by kind, say what the spec asks for.
    fn is_done(object: &Value, children: &BTreeMap<&str, Value>, spec: &Value) -> bool;

    /// Who else is at work in these namespaces, until it is dropped.
    fn others(_scene: &Scene<'_>, _namespaces: &[String]) -> Option<Others> {
        None
    }
}

/// A task that ends when this is dropped.
pub struct Others(tokio::task::AbortHandle);

impl Drop for Others {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Soak {
    pub seed: u64,
    /// Over all components of the subject.
    pub objects: usize,
    pub time: Duration,
    pub kills: u64,
    /// At least so many have to take effect, kills included.
    pub faults: u64,
}

/// What happened, for people.
#[derive(Debug)]
pub struct Report {
    /// By what they were.
    pub edits: BTreeMap<&'static str, u64>,
    pub kills: u64,
    pub faults: BTreeMap<String, u64>,
    pub requests: u64,
    /// From the last edit until everything was as wanted, while requests and events were still spoilt.
    pub settled: Duration,
    /// How many objects there were in the end, children included.
    pub objects: usize,
    /// In the round that wrote nothing.
    pub reconciles: u64,
}

impl Report {
    pub fn total(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl Soak {
    /// Errors say what replays them.
    pub async fn run<S: Subject>(self, scene: &Scene<'_>) -> Result<Report> {
        let proxy = Proxy::start(&scene.world.plane, scene.dir()).await?;
        let mut run = Run::<S>::begin(self, scene, &proxy).await?;
        let ended = run.whole().await;
        ended.with_context(|| {
            format!("{self:?} of {}; replay it with its seed\n{}\n{}", S::KIND, proxy.describe(), run.host.log_tail(100))
        })
    }
}

struct Run<'a, S> {
    soak: Soak,
    scene: &'a Scene<'a>,
    proxy: &'a Proxy,
    options: Options,
    host: Arc<Host>,
    /// One for each component.
    namespaces: Vec<String>,
    random: Random,
    /// The spec of each object; none: it should not be there.
    wanted: Vec<Option<Value>>,
    /// So many so far.
    edit: u64,
    edits: BTreeMap<&'static str, u64>,
    _others: Option<Others>,
    subject: std::marker::PhantomData<S>,
}

impl<'a, S: Subject> Run<'a, S> {
    async fn begin(soak: Soak, scene: &'a Scene<'a>, proxy: &'a Proxy) -> Result<Self> {
        let flags = FLAGS.map(str::to_owned).to_vec();
        let options = Options { kubeconfig: proxy.kubeconfig().into(), flags, ..scene.options() };
        let namespaces = admin::install::<S>(scene, "", &options.class).await?;
        let host = scene.host_with(&options).await?;
        let run = Self {
            _others: S::others(scene, &namespaces),
            soak,
            scene,
            proxy,
            options,
            host,
            namespaces,
            random: Random::new(soak.seed),
            wanted: vec![None; soak.objects],
            edit: 0,
            edits: BTreeMap::new(),
            subject: std::marker::PhantomData,
        };
        run.is_the_victim();
        Ok(run)
    }

    fn is_the_victim(&self) {
        let host = self.host.clone();
        self.proxy.victim(move || drop(host.kill()));
    }

    async fn whole(&mut self) -> Result<Report> {
        for i in 0..self.wanted.len() {
            self.say(i).await?;
        }
        self.proxy.chaos(Some(Chaos { seed: self.soak.seed, requests: 80, events: 40 }));
        self.trouble().await?;
        // What goes wrong now no later edit makes good.
        let last = Instant::now();
        end::settled::<S>(self.scene, &self.namespaces, &self.wanted).await?;
        let settled = last.elapsed();
        self.proxy.chaos(None);
        let objects = self.is_as_after_a_clean_run().await?;
        let reconciles = self.writes_nothing_more().await?;
        let report = Report {
            edits: self.edits.clone(),
            kills: self.proxy.kills(),
            faults: self.proxy.faults(),
            requests: self.proxy.requests(),
            settled,
            objects,
            reconciles,
        };
        ensure!(report.kills == self.soak.kills, "the host was killed {} times", report.kills);
        ensure!(report.total() >= self.soak.faults, "only {} faults took effect: {:?}", report.total(), report.faults);
        Ok(report)
    }

    /// Edits all the time, and kills in equal intervals; longer than that where a slow machine has not come to all its faults.
    async fn trouble(&mut self) -> Result<()> {
        let began = Instant::now();
        let interval = self.soak.time / u32::try_from(self.soak.kills + 1)?;
        let mut kills = 0;
        let mut armed = false;
        let total = || self.proxy.faults().values().sum::<u64>();
        while began.elapsed() < self.soak.time || armed || kills < self.soak.kills || total() < self.soak.faults {
            if self.proxy.kills() > kills {
                kills += 1;
                armed = false;
                self.start_again().await?;
            } else if !armed && kills < self.soak.kills && began.elapsed() > interval * u32::try_from(kills + 1)? {
                let nth = 1 + self.random.below(6);
                let position = self.random.pick(&["before", "during", "after"]).copied().unwrap_or("before");
                self.proxy.script([format!("write * #{nth}: kill {position}")])?;
                armed = true;
            }
            ensure!(began.elapsed() < self.soak.time + END, "a host that was to be killed makes no write, or nothing goes wrong");
            self.edit().await?;
            if self.edit.is_multiple_of(LOOK) {
                admin::confirm_losses(self.scene.cluster(), &self.namespaces).await?;
            }
            tokio::time::sleep(S::PAUSE).await;
        }
        Ok(())
    }

    /// It comes up in the midst of trouble; whoever starts it does not wait until it is ready.
    async fn start_again(&mut self) -> Result<()> {
        self.proxy.script([""; 0])?;
        self.host = Arc::new(Host::start(self.scene.world.plane.supervisor(), &self.options).await?);
        self.is_the_victim();
        Ok(())
    }

    fn place(&self, i: usize) -> (String, String) {
        let namespace = self.namespaces.get(i % self.namespaces.len()).cloned().unwrap_or_default();
        (namespace, name(i))
    }

    fn count(&mut self, what: &'static str) {
        self.edit += 1;
        *self.edits.entry(what).or_default() += 1;
    }

    async fn say(&mut self, i: usize) -> Result<()> {
        let before = self.wanted.get(i).cloned().flatten();
        let (namespace, name) = self.place(i);
        let spec = S::spec(&mut self.random, &name, self.edit, before.as_ref());
        let had = before.map(|before| S::children(&before).len());
        self.count(match had.map(|had| S::children(&spec).len().cmp(&had)) {
            None => "created",
            Some(Ordering::Equal) => "edited",
            Some(Ordering::Greater) => "edited, with more children",
            Some(Ordering::Less) => "edited, with fewer children",
        });
        self.scene.cluster().apply_object(&namespace, &admin::object::<S>(&name, &spec)).await?;
        if let Some(wanted) = self.wanted.get_mut(i) {
            *wanted = Some(spec);
        }
        Ok(())
    }

    async fn edit(&mut self) -> Result<()> {
        let cluster = self.scene.cluster();
        let i = usize::try_from(self.random.below(self.wanted.len() as u64))?;
        let (namespace, name) = self.place(i);
        let there = self.wanted.get(i).is_some_and(Option::is_some);
        let child = self.random.pick(S::CHILDREN).copied().unwrap_or_default();
        match self.random.below(10) {
            0..=5 => return self.say(i).await,
            _ if !there => return self.say(i).await,
            6 => {
                cluster.delete(S::KIND, &namespace, &name).await?;
                if let Some(wanted) = self.wanted.get_mut(i) {
                    *wanted = None;
                }
                self.count("deleted");
            }
            7 | 8 => {
                cluster.delete(child, &namespace, &name).await?;
                self.count("child deleted by hand");
            }
            _ => {
                // The child may not be there at this moment.
                let _ = cluster.patch(child, &namespace, &name, "", &S::drift(child)).await;
                self.count("child changed by hand");
            }
        }
        Ok(())
    }
}

fn name(i: usize) -> String {
    format!("soak-{i}")
}
