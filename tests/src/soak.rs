//! Many objects of two plugins, edited and deleted by seed for a while, behind a proxy that spoils requests and events by the
//! same seed and kills the host now and then. In the end everything must be as if there had been no trouble.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, condition},
    host::{Host, Options},
    paths,
    proxy::{Chaos, Proxy},
    random::Random,
    state::{State, orphans},
    world::Scene,
};

const HELLO: &str = "demo.reef.dev/v1/Hello";
const CONFIG: &str = "v1/ConfigMap";
const KINDS: [&str; 2] = [HELLO, CONFIG];
/// The components of the two plugins, each in a namespace of its own.
const PLUGINS: [&str; 2] = ["hello", "hello-v2"];
/// Nobody waits long for the lease of a host that was killed, nor for an answer that does not come.
const FLAGS: [&str; 4] =
    ["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=400ms", "--request-timeout=2s"];
/// Far above what the longest backoff takes.
const END: Duration = Duration::from_secs(400);

#[derive(Debug, Clone, Copy)]
pub struct Soak {
    pub seed: u64,
    /// Over both plugins.
    pub objects: usize,
    pub time: Duration,
    pub kills: u64,
    /// At least so many have to take effect, kills included.
    pub faults: u64,
}

/// What happened, for people.
#[derive(Debug)]
pub struct Report {
    pub edits: u64,
    pub kills: u64,
    pub faults: BTreeMap<String, u64>,
    pub requests: u64,
    /// From the end of all trouble until everything was as wanted.
    pub settled: Duration,
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
    pub async fn run(self, scene: &Scene<'_>) -> Result<Report> {
        let proxy = Proxy::start(&scene.world.plane, scene.dir()).await?;
        let mut run = Run::begin(self, scene, &proxy).await?;
        let ended = run.whole().await;
        ended.with_context(|| format!("{self:?}; replay it with its seed\n{}\n{}", proxy.describe(), run.host.log_tail(100)))
    }
}

struct Run<'a> {
    soak: Soak,
    scene: &'a Scene<'a>,
    proxy: &'a Proxy,
    options: Options,
    host: Arc<Host>,
    /// One for each plugin.
    namespaces: Vec<String>,
    random: Random,
    /// What each object should say; none: it should not be there.
    wanted: Vec<Option<String>>,
    edits: u64,
}

impl<'a> Run<'a> {
    async fn begin(soak: Soak, scene: &'a Scene<'a>, proxy: &'a Proxy) -> Result<Self> {
        let flags = FLAGS.map(str::to_owned).to_vec();
        let options = Options { kubeconfig: proxy.kubeconfig().into(), flags, ..scene.options() };
        let namespaces = install(scene, "", &options.class).await?;
        let host = scene.host_with(&options).await?;
        let wanted = vec![None; soak.objects];
        let run = Self { soak, scene, proxy, options, host, namespaces, random: Random::new(soak.seed), wanted, edits: 0 };
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
        self.proxy.chaos(None);
        self.proxy.script([""; 0])?;
        let calm = Instant::now();
        settled(self.scene, &self.namespaces, &self.wanted).await?;
        let settled = calm.elapsed();
        self.is_as_after_a_clean_run().await?;
        let reconciles = self.writes_nothing_more().await?;
        let report = Report {
            edits: self.edits,
            kills: self.proxy.kills(),
            faults: self.proxy.faults(),
            requests: self.proxy.requests(),
            settled,
            reconciles,
        };
        ensure!(report.kills == self.soak.kills, "the host was killed {} times", report.kills);
        ensure!(report.total() >= self.soak.faults, "only {} faults took effect: {:?}", report.total(), report.faults);
        Ok(report)
    }

    /// Edits all the time, and kills in equal intervals.
    async fn trouble(&mut self) -> Result<()> {
        let began = Instant::now();
        let interval = self.soak.time / u32::try_from(self.soak.kills + 1)?;
        let mut kills = 0;
        let mut armed = false;
        while began.elapsed() < self.soak.time || armed {
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
            ensure!(began.elapsed() < self.soak.time + END, "a host that was to be killed makes no write");
            self.edit().await?;
            tokio::time::sleep(Duration::from_millis(15)).await;
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
        let namespace = self.namespaces.get(i % PLUGINS.len()).cloned().unwrap_or_default();
        (namespace, format!("soak-{i}"))
    }

    async fn say(&mut self, i: usize) -> Result<()> {
        self.edits += 1;
        let (namespace, name) = self.place(i);
        let text = format!("edit {}", self.edits);
        self.scene.cluster().apply_object(&namespace, &object(&name, &text)).await?;
        if let Some(wanted) = self.wanted.get_mut(i) {
            *wanted = Some(text);
        }
        Ok(())
    }

    async fn edit(&mut self) -> Result<()> {
        let cluster = self.scene.cluster();
        let i = usize::try_from(self.random.below(self.wanted.len() as u64))?;
        let (namespace, name) = self.place(i);
        let there = self.wanted.get(i).is_some_and(Option::is_some);
        match self.random.below(10) {
            0..=5 => return self.say(i).await,
            _ if !there => return self.say(i).await,
            6 => {
                cluster.delete(HELLO, &namespace, &name).await?;
                if let Some(wanted) = self.wanted.get_mut(i) {
                    *wanted = None;
                }
            }
            7 | 8 => cluster.delete(CONFIG, &namespace, &name).await?,
            _ => {
                let drift = json!({ "data": { "text": "by hand" } });
                // The child may not be there at this moment.
                let _ = cluster.patch(CONFIG, &namespace, &name, "", &drift).await;
            }
        }
        self.edits += 1;
        Ok(())
    }

    /// The same objects, made once by another host without any trouble, in other namespaces.
    async fn is_as_after_a_clean_run(&self) -> Result<()> {
        let (scene, cluster) = (self.scene, self.scene.cluster());
        let class = format!("{}-clean", scene.namespace);
        let clean = install(scene, "-clean", &class).await?;
        let _host = scene.host_with(&Options { class, ..scene.options() }).await?;
        for (i, text) in self.wanted.iter().enumerate() {
            let namespace = clean.get(i % PLUGINS.len()).context("no namespace")?;
            if let Some(text) = text {
                cluster.apply_object(namespace, &object(&format!("soak-{i}"), text)).await?;
            }
        }
        settled(scene, &clean, &self.wanted).await?;
        for (soaked, clean) in self.namespaces.iter().zip(&clean) {
            let soaked_state = State::of(cluster, soaked, &KINDS).await?.without_history();
            let clean_state = State::of(cluster, clean, &KINDS).await?.without_history();
            ensure!(
                soaked_state == clean_state,
                "{soaked} differs from a clean run:\n{}",
                soaked_state.differences(&clean_state)
            );
            let orphans = orphans(cluster, soaked, &[HELLO], &[CONFIG]).await?;
            ensure!(orphans.is_empty(), "orphans in {soaked}: {orphans:?}");
        }
        Ok(())
    }

    async fn writes_nothing_more(&mut self) -> Result<u64> {
        let audit = &self.scene.world.audit;
        for namespace in &self.namespaces {
            calm(self.scene.cluster(), namespace).await?;
        }
        self.host.kill()?;
        let mark = audit.mark(self.scene.cluster()).await?;
        self.start_again().await?;
        let due = self.wanted.iter().flatten().count() as u64;
        let end = Instant::now() + END;
        let mut done = 0;
        while done < due {
            ensure!(Instant::now() < end, "{done} of {due} objects were reconciled in a round");
            tokio::time::sleep(Duration::from_millis(50)).await;
            done = self.host.metrics().await?.sum("controller_runtime_reconcile_total", &[("result", "success")]) as u64;
        }
        audit.mark(self.scene.cluster()).await?;
        for namespace in &self.namespaces {
            let writes = audit.writes(mark, namespace)?;
            let lines: Vec<String> = writes.iter().map(|write| write.line()).collect();
            ensure!(lines.is_empty(), "in a steady state was written:\n{}", lines.join("\n"));
        }
        Ok(done)
    }
}

/// Waits until no Plugin of a namespace says any more that it is slowed down: that it is not is said by a write too.
pub async fn calm(cluster: &Cluster, namespace: &str) -> Result<()> {
    const PLUGIN: &str = "reef.dev/v1alpha1/Plugin";
    let ready =
        |plugin: Option<&Value>| condition(plugin, "Ready").is_some_and(|c| c["status"] == "True" && c["reason"] == "Ready");
    for plugin in cluster.list(PLUGIN, namespace).await? {
        let name = plugin["metadata"]["name"].as_str().unwrap_or_default();
        cluster.wait(PLUGIN, namespace, name, "is ready, and not slowed down", ready).await?;
    }
    Ok(())
}

/// One namespace for each plugin, with what it needs to run.
async fn install(scene: &Scene<'_>, end: &str, class: &str) -> Result<Vec<String>> {
    let (world, cluster) = (scene.world, scene.cluster());
    let dir = paths::checkout().join("plugins/hello");
    world.apply_file("", &dir.join("crd.yaml")).await?;
    let mut namespaces = Vec::new();
    for component in PLUGINS {
        let namespace = format!("{}-{component}{end}", scene.namespace);
        cluster.create_namespace(&namespace).await?;
        world.apply_file(&namespace, &dir.join("rbac.yaml")).await?;
        let file = format!("{component}.wasm");
        scene.place(&file, &fs::read(paths::component(component)?)?)?;
        let plugin = json!({
            "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": component },
            "spec": { "className": class, "source": { "file": file }, "serviceAccountName": "hello" },
        });
        cluster.apply_object(&namespace, &plugin).await?;
        namespaces.push(namespace);
    }
    Ok(namespaces)
}

fn object(name: &str, text: &str) -> Value {
    json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": name }, "spec": { "text": text } })
}

/// Waits until every object says what it should, and is reconciled, and nothing else is there.
async fn settled(scene: &Scene<'_>, namespaces: &[String], wanted: &[Option<String>]) -> Result<()> {
    let end = Instant::now() + END;
    loop {
        let mut open = Vec::new();
        for (n, namespace) in namespaces.iter().enumerate() {
            let by_name = async |kind: &str| -> Result<BTreeMap<String, Value>> {
                let objects = scene.cluster().list(kind, namespace).await?;
                let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                Ok(objects.into_iter().map(|object| (name(&object), object)).collect())
            };
            let (hellos, configs) = (by_name(HELLO).await?, by_name(CONFIG).await?);
            for (i, text) in wanted.iter().enumerate().filter(|(i, _)| i % namespaces.len() == n) {
                let name = format!("soak-{i}");
                if !is_as_wanted(hellos.get(&name), configs.get(&name), text.as_deref()) {
                    open.push(format!("{namespace}/{name} should say {text:?}"));
                }
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "after {} s {} objects are not as they should be: {:?}",
                END.as_secs(),
                open.len(),
                open.get(..open.len().min(5))
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_as_wanted(hello: Option<&Value>, config: Option<&Value>, text: Option<&str>) -> bool {
    let Some(text) = text else { return hello.is_none() && config.is_none() };
    let (Some(hello), Some(config)) = (hello, config) else { return false };
    let reconciled = condition(Some(hello), "Reconciled")
        .is_some_and(|c| c["status"] == "True" && c["observedGeneration"] == hello["metadata"]["generation"]);
    // The second plugin shouts.
    let said = config["data"]["text"].as_str().is_some_and(|said| said.eq_ignore_ascii_case(text));
    let owned = config["metadata"]["ownerReferences"][0]["uid"] == hello["metadata"]["uid"];
    reconciled && said && owned && config["metadata"]["deletionTimestamp"].is_null()
}
