//! Where an operator is measured: a namespace with an account, its rights and its Hellos, and what the API server says of it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    audit::Request,
    cluster::condition,
    paths,
    world::{Scene, World},
};

pub const HELLO: &str = "demo.reef.dev/v1/Hello";

/// Nobody who is measured is ever silent for so long before the work is done.
const HANG: Duration = Duration::from_secs(120);
/// Who asks for nothing for so long has nothing more to do.
const QUIET: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// What hello's own Role does not give and a peer needs: an update where Reef applies. Every contender has it.
const MORE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: bench }
rules:
  - { apiGroups: [demo.reef.dev], resources: [hellos/status], verbs: [update] }
  - { apiGroups: [''], resources: [configmaps], verbs: [update] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: bench }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: bench }
subjects:
  - { kind: ServiceAccount, name: hello }
";

pub struct Stage<'a> {
    pub scene: Scene<'a>,
    pub namespace: String,
    /// Of the account `hello` of the namespace.
    pub kubeconfig: PathBuf,
    user: String,
}

impl<'a> Stage<'a> {
    pub async fn new(world: &'a World, name: &str) -> Result<Self> {
        let scene = world.scene(name).await?;
        let namespace = scene.namespace.clone();
        let hello = paths::checkout().join("plugins/hello");
        world.apply_file("", &hello.join("crd.yaml")).await?;
        world.apply_file(&namespace, &hello.join("rbac.yaml")).await?;
        scene.apply(MORE).await?;
        let kubeconfig = scene.dir().join("hello.kubeconfig");
        std::fs::write(&kubeconfig, serde_norway::to_string(&account(world, &namespace).await?)?)?;
        let user = format!("system:serviceaccount:{namespace}:hello");
        Ok(Self { scene, namespace, kubeconfig, user })
    }

    pub async fn create_hellos(&self, count: usize) -> Result<()> {
        let creating = stream::iter(0..count).map(|i| self.create_hello(i)).buffer_unordered(8);
        creating.try_collect::<()>().await
    }

    pub async fn create_hello(&self, i: usize) -> Result<()> {
        self.scene.cluster().create(&self.namespace, &hello(i)).await.map(drop)
    }

    pub async fn hellos(&self) -> Result<Vec<Value>> {
        self.scene.cluster().list(HELLO, &self.namespace).await
    }

    /// All that was asked for is there: each Hello Ready, with a child that it owns and that says its text.
    pub async fn check(&self, count: usize) -> Result<()> {
        let hellos = self.hellos().await?;
        ensure!(hellos.len() == count, "there are {} Hellos, not {count}", hellos.len());
        let configs = self.scene.cluster().list("v1/ConfigMap", &self.namespace).await?;
        let configs: HashMap<&str, &Value> =
            configs.iter().filter_map(|config| Some((config["metadata"]["name"].as_str()?, config))).collect();
        for hello in &hellos {
            let name = hello["metadata"]["name"].as_str().unwrap_or_default();
            let ready = condition(Some(hello), "Ready").is_some_and(|ready| ready["status"] == "True");
            let config = configs.get(name).with_context(|| format!("Hello {name} has no child"))?;
            let owned = config["metadata"]["ownerReferences"][0]["uid"] == hello["metadata"]["uid"];
            ensure!(ready && owned && config["data"]["text"] == hello["spec"]["text"], "Hello {name} is not as it should be");
        }
        Ok(())
    }

    /// Watches what the account does from now on.
    pub fn observe(&self) -> Result<Observer> {
        Observer::new(&self.scene.world.plane.audit_log(), &self.namespace, &self.user)
    }
}

pub fn hello(i: usize) -> Value {
    json!({
        "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": name(i) },
        "spec": { "text": format!("Hello number {i} from the reef") },
    })
}

fn name(i: usize) -> String {
    format!("greeting-{i:05}")
}

/// A kubeconfig with a token of the account and no client certificate.
async fn account(world: &World, namespace: &str) -> Result<Value> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/hello/token");
    let asked =
        json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 7200 } });
    let request = http::Request::post(path).header("content-type", "application/json").body(serde_json::to_vec(&asked)?)?;
    let token: Value = world.cluster.client().request(request).await.context("no token for the account")?;
    let authority = world.plane.dir().join("ca.crt");
    Ok(json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{ "name": "bench", "cluster": { "server": world.plane.url(), "certificate-authority": authority } }],
        "users": [{ "name": "hello", "user": { "token": token["status"]["token"] } }],
        "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "hello", "namespace": namespace } }],
    }))
}

/// Counts what one account asks for in its namespace, and notes when; all times are the API server's.
pub struct Observer {
    file: File,
    half: Vec<u8>,
    namespace: String,
    user: String,
    last: Instant,
    pub seen: Seen,
}

/// What was seen since the observer began.
#[derive(Debug, Default)]
pub struct Seen {
    pub writes: u64,
    /// Gets and lists, not watches.
    pub reads: u64,
    pub watches: u64,
    /// When the first write reached the API server, in seconds since the epoch.
    pub first_write: Option<f64>,
    /// By name, when the Hello was answered to whoever created it.
    pub created: HashMap<String, f64>,
    /// By name, when the first status of the Hello that was accepted was answered.
    pub ready: HashMap<String, f64>,
    refused: HashSet<String>,
}

impl Observer {
    fn new(log: &Path, namespace: &str, user: &str) -> Result<Self> {
        let mut file = File::open(log).with_context(|| format!("cannot read {}", log.display()))?;
        file.seek(SeekFrom::End(0))?;
        let (namespace, user) = (namespace.to_owned(), user.to_owned());
        Ok(Self { file, half: Vec::new(), namespace, user, last: Instant::now(), seen: Seen::default() })
    }

    /// Takes note of what is new in the log.
    pub fn look(&mut self) -> Result<()> {
        self.file.read_to_end(&mut self.half)?;
        let Some(end) = self.half.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let rest = self.half.split_off(end + 1);
        let whole = std::mem::replace(&mut self.half, rest);
        let namespace = self.namespace.clone();
        for line in String::from_utf8_lossy(&whole).lines().filter(|line| line.contains(&namespace)) {
            let request: Request = serde_json::from_str(line).context("the audit log has a line that is not an event")?;
            if (request.verb == "watch") == (request.stage == "ResponseStarted") {
                self.note(&request)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, request: &Request) -> Result<()> {
        let object = &request.object_ref;
        if object.namespace != self.namespace {
            return Ok(());
        }
        let is_ok = (200..300).contains(&request.response_status.code);
        if request.user.username != self.user {
            if request.verb == "create" && object.resource == "hellos" && is_ok {
                self.seen.created.insert(object.name.clone(), seconds(&request.stage_timestamp)?);
            }
            return Ok(());
        }
        if request.verb == "watch" {
            self.seen.watches += 1;
            return Ok(());
        }
        if request.is_write() {
            self.seen.writes += 1;
            self.seen.first_write.get_or_insert(seconds(&request.request_received_timestamp)?);
        } else if matches!(&*request.verb, "get" | "list") {
            self.seen.reads += 1;
        } else {
            return Ok(());
        }
        self.last = Instant::now();
        if object.resource == "hellos" && object.subresource == "status" && is_ok {
            let at = seconds(&request.stage_timestamp)?;
            self.seen.ready.entry(object.name.clone()).or_insert(at);
        }
        if !is_ok && request.response_status.code != 404 {
            self.seen.refused.insert(format!("{} {}: {}", request.verb, object.resource, request.response_status.code));
        }
        Ok(())
    }

    /// Looks until it is so. `what` completes "waited in vain until …".
    pub async fn until(&mut self, what: &str, done: impl AsyncFn(&Seen) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        self.last = began;
        loop {
            self.look()?;
            if done(&self.seen).await? {
                return Ok(());
            }
            if self.last.elapsed() > HANG {
                let Seen { writes, reads, ready, refused, .. } = &self.seen;
                bail!(
                    "waited in vain until {what}: after {} s {writes} writes, {reads} reads, {} Ready; refused: {refused:?}",
                    began.elapsed().as_secs(),
                    ready.len()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until nothing more comes.
    pub async fn quiet(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.last.elapsed() < QUIET {
            ensure!(began.elapsed() < HANG, "it does not come to rest: {} writes after {} s", self.seen.writes, HANG.as_secs());
            tokio::time::sleep(POLL).await;
            self.look()?;
        }
        Ok(())
    }
}

impl Seen {
    /// When the last Hello became Ready.
    pub fn last_ready(&self) -> Option<f64> {
        self.ready.values().copied().reduce(f64::max)
    }
}

/// From RFC 3339 to seconds since the epoch.
fn seconds(timestamp: &str) -> Result<f64> {
    let at: Timestamp = timestamp.parse().with_context(|| format!("`{timestamp}` is no time"))?;
    Ok(at.as_microsecond() as f64 / 1e6)
}
