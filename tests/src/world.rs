//! One shared control plane for all tests of a binary, and for each test a `Scene`: a namespace, a class of plugins, hosts of its
//! own. When a test fails, the scene shows what its hosts logged, which objects there are, and who wrote what.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    audit::{AuditLog, Mark},
    cluster::Cluster,
    control_plane::{ControlPlane, HOST_USER, Setup},
    host::{Host, Options},
    paths,
    tools::{self, Tools},
};

/// Where the host's leases are.
pub const HOST_NAMESPACE: &str = "reef-system";

/// A control plane on which Reef is installed as its manifests say.
pub struct World {
    pub plane: ControlPlane,
    pub cluster: Arc<Cluster>,
    pub audit: AuditLog,
    pub tools: Tools,
    scenes: AtomicU32,
}

impl World {
    /// Starts a control plane in a new temporary directory, and installs Reef's CRDs and the rights of the host's user.
    pub async fn start(progress: tools::Progress<'_>) -> Result<Self> {
        Self::start_with(progress, Setup::default()).await
    }

    /// The same, on a control plane with some things otherwise.
    pub async fn start_with(progress: tools::Progress<'_>, setup: Setup) -> Result<Self> {
        let tools = tools::locate(progress)?;
        let dir = std::env::temp_dir().join(format!("reef-{}-{:08x}", std::process::id(), random()?));
        let plane = ControlPlane::start_with(&tools, &dir, setup).await?;
        let cluster = Arc::new(Cluster::connect(&plane.admin_kubeconfig()).await?);
        let audit = AuditLog::new(&plane.audit_log());
        let world = Self { plane, cluster, audit, tools, scenes: AtomicU32::new(0) };
        world.install().await?;
        Ok(world)
    }

    /// What an admin does: `kubectl apply` of `crds/` and of the manifests, which bind the host's rights to its user.
    async fn install(&self) -> Result<()> {
        self.cluster.create_namespace(HOST_NAMESPACE).await?;
        for path in yaml_files(&paths::checkout().join("crds"))? {
            self.apply_file("", &path).await?;
        }
        self.apply_file(HOST_NAMESPACE, &paths::checkout().join("deploy/host-rbac.yaml")).await?;
        self.cluster.apply(HOST_NAMESPACE, &bindings()).await.map(drop)
    }

    pub async fn apply_file(&self, namespace: &str, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.cluster.apply(namespace, &text).await.with_context(|| format!("in {}", path.display())).map(drop)
    }

    /// A namespace that no other test uses, named after this one.
    pub async fn scene(&self, name: &str) -> Result<Scene<'_>> {
        let short: String = name.replace('_', "-").chars().take(40).collect();
        let number = self.scenes.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{}-{number}", short.trim_matches('-'));
        self.cluster.create_namespace(&namespace).await?;
        let dir = self.plane.dir().join("scenes").join(&namespace);
        fs::create_dir_all(dir.join("plugins"))?;
        let begin = self.audit.mark(&self.cluster).await?;
        Ok(Scene { world: self, namespace, dir, begin, hosts: Mutex::default() })
    }
}

/// The manifests bind the host's rights to its ServiceAccount; here it runs outside of the cluster, as a user. They also give the
/// right to one lease, that of the class `reef`; here every scene has a class of its own.
fn bindings() -> String {
    let subject = format!("{{ kind: User, name: {HOST_USER}, apiGroup: rbac.authorization.k8s.io }}");
    let binding = |kind: &str, name: &str, role: &str| {
        let role_kind = kind.trim_end_matches("Binding");
        format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata: {{ name: {name} }}\n\
             roleRef: {{ kind: {role_kind}, name: {role}, apiGroup: rbac.authorization.k8s.io }}\nsubjects: [{subject}]\n"
        )
    };
    let leases = "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: { name: reef-host-leases }\n\
                  rules: [{ apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, update, watch] }]\n";
    [
        binding("ClusterRoleBinding", "reef-host-user", "reef-host"),
        binding("RoleBinding", "reef-host-user", "reef-host"),
        leases.to_owned(),
        binding("RoleBinding", "reef-host-leases", "reef-host-leases"),
    ]
    .concat()
}

/// What one test has for itself.
pub struct Scene<'a> {
    pub world: &'a World,
    /// Also the class of its plugins.
    pub namespace: String,
    dir: PathBuf,
    begin: Mark,
    hosts: Mutex<Vec<Arc<Host>>>,
}

impl Scene<'_> {
    pub fn cluster(&self) -> &Cluster {
        &self.world.cluster
    }

    /// Where `spec.source.file` of this scene's plugins is looked for.
    pub fn plugin_dir(&self) -> PathBuf {
        self.dir.join("plugins")
    }

    /// A directory of its own for anything else.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A kubeconfig for a ServiceAccount, with a token of its own.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
        let request = http::Request::post(path).header("content-type", "application/json").body(body.to_string().into_bytes())?;
        let token: Value = self.cluster().client().request(request).await?;
        let mut config: Value = serde_norway::from_str(&fs::read_to_string(self.world.plane.admin_kubeconfig())?)?;
        for user in config["users"].as_array_mut().into_iter().flatten() {
            user["user"] = json!({ "token": token["status"]["token"] });
        }
        let file = self.dir.join(format!("{namespace}-{account}.kubeconfig"));
        fs::write(&file, serde_norway::to_string(&config)?)?;
        Ok(file)
    }

    /// How a host of this scene is started.
    pub fn options(&self) -> Options {
        Options {
            kubeconfig: self.world.plane.host_kubeconfig(),
            plugin_dir: self.plugin_dir(),
            // Shared, so that each component is compiled once for all tests.
            cache_dir: self.world.plane.dir().join("cache"),
            lease_namespace: HOST_NAMESPACE.into(),
            class: self.namespace.clone(),
            flags: Vec::new(),
            env: Vec::new(),
        }
    }

    /// A host that is ready.
    pub async fn host(&self) -> Result<Arc<Host>> {
        self.host_with(&self.options()).await
    }

    pub async fn host_with(&self, options: &Options) -> Result<Arc<Host>> {
        let host = Arc::new(Host::start(self.world.plane.supervisor(), options).await?);
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).push(host.clone());
        host.ready().await?;
        Ok(host)
    }

    /// Kills a host, and gives its lease back for it: that a lease expires is shown elsewhere.
    pub async fn kill(&self, host: &Host) -> Result<()> {
        host.kill()?;
        let free = json!({ "spec": { "holderIdentity": "" } });
        let (kind, lease) = ("coordination.k8s.io/v1/Lease", format!("reef-{}", self.namespace));
        self.cluster().patch(kind, HOST_NAMESPACE, &lease, "", &free).await.map(drop)
    }

    /// Puts a built component into the plugin directory as a deployment would: written beside, then renamed.
    pub fn place(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.plugin_dir().join(file);
        let beside = self.dir.join(format!("{file}.new"));
        fs::write(&beside, bytes)?;
        fs::rename(&beside, &path).with_context(|| format!("cannot place {}", path.display()))
    }

    /// `kubectl apply -n NAMESPACE`, with `$NAMESPACE` and `$CLASS` filled in.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        let yaml = yaml.replace("$NAMESPACE", &self.namespace).replace("$CLASS", &self.namespace);
        self.cluster().apply(&self.namespace, &yaml).await.map(drop)
    }

    /// What people need to see when a test has failed.
    async fn report(&self) -> String {
        let mut text = format!("\n===== scene {} =====\n", self.namespace);
        for host in self.hosts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            text += &format!("{}\n", host.log_tail(80));
        }
        let versions = ["v1", "rbac.authorization.k8s.io/v1", "events.k8s.io/v1", "reef.dev/v1alpha1", "demo.reef.dev/v1"];
        text += &self.cluster().dump(&self.namespace, &versions).await;
        text += "--- audit log: requests of Reef in this namespace, and its refused ones elsewhere\n";
        let requests = self.world.audit.since(self.begin).unwrap_or_default();
        let ours = requests.iter().filter(|request| request.is_by_reef());
        for request in
            ours.filter(|request| request.object_ref.namespace == self.namespace || request.response_status.code >= 400)
        {
            text += &format!("{}\n", request.line());
        }
        text
    }
}

/// Runs one test on the shared world. An error is a failure too, and either shows the scene.
pub fn scene(name: &str, test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) {
    let (runtime, world) = shared();
    play(runtime, world, name, test);
}

/// The same on a control plane of its own: for tests that nobody else would survive, or that need something otherwise.
pub fn scene_apart(name: &str, setup: Setup, test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) {
    let runtime = Runtime::new().unwrap_or_else(|error| fail(&error.into()));
    let world = runtime.block_on(World::start_with(&|line| eprintln!("{line}"), setup)).unwrap_or_else(|error| fail(&error));
    play(&runtime, &world, name, test);
}

fn play(runtime: &Runtime, world: &World, name: &str, test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) {
    let scene = runtime.block_on(world.scene(name)).unwrap_or_else(|error| fail(&error));
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(test(&scene))));
    if !matches!(ended, Ok(Ok(()))) {
        eprintln!("{}", runtime.block_on(scene.report()));
    }
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => fail(&error),
        Err(panic) => resume_unwind(panic),
    }
}

/// Runs one test on a world of its own, for what would disturb all others.
pub fn with_world(test: impl AsyncFnOnce(&World) -> Result<()>) {
    let run = || -> Result<()> {
        Runtime::new()?.block_on(async {
            let world = World::start(&|line| eprintln!("{line}")).await?;
            test(&world).await
        })
    };
    run().unwrap_or_else(|error| fail(&error));
}

/// The one control plane of this process. It lives until the process ends; then its supervisor ends it.
fn shared() -> (&'static Runtime, &'static World) {
    static SHARED: OnceLock<Result<(Runtime, World), String>> = OnceLock::new();
    let start = || -> Result<(Runtime, World)> {
        let runtime = Runtime::new()?;
        let world = runtime.block_on(World::start(&|line| eprintln!("{line}")))?;
        Ok((runtime, world))
    };
    match SHARED.get_or_init(|| start().map_err(|error| format!("{error:#}"))) {
        Ok((runtime, world)) => (runtime, world),
        Err(message) => fail(&anyhow!("there is no control plane to test on: {message}")),
    }
}

#[expect(clippy::panic, reason = "this is how a test fails")]
fn fail(error: &anyhow::Error) -> ! {
    panic!("{error:#}")
}

fn yaml_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    Ok(files)
}

fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))?;
    Ok(u32::from_le_bytes(bytes))
}
