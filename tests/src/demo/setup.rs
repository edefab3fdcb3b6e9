//! The control plane, the host, and the plugins, installed as an admin installs them.

use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    CONFIG, DATABASES, DEPLOYMENTS, Demo, EXAMPLES, HELLO, HELLOS, INGRESSES, JOBS, Line, OTHER_TEAM, PLUGINS, PROBE, PROBES,
    SERVICES, SETS, Screen, TEAM, WEBSITES, sight::Sight,
};
use crate::{
    cluster::{condition, hang_bound},
    control_plane::HOST_USER,
    host::{Host, Options},
    paths,
    world::{HOST_NAMESPACE, World},
};

/// Short, so that nobody waits long for the lease of a host that was killed.
const LEASE: [(&str, &str); 3] =
    [("--lease-duration", "3s"), ("--lease-renew-deadline", "2s"), ("--lease-retry-period", "500ms")];

/// The probe is one for tests; its limit is short, so that the demo is.
const PROBE_PLUGIN: &str = "
apiVersion: reef.dev/v1alpha1
kind: Plugin
metadata: { name: probe }
spec:
  source: { file: probe.wasm }
  serviceAccountName: probe
  limits: { cpu: 500ms }
";

/// The larger examples.
const WEBSITE: &str = "website";
const HISTORY: &str = "config-history";
const DATABASE: &str = "database";

const CRDS: [&str; 6] = [
    "plugins/hello/crd.yaml",
    "tests/guests/probe-crd.yaml",
    "plugins/website/crd.yaml",
    "plugins/config-history/crd.yaml",
    "plugins/database/crds/database.yaml",
    "plugins/database/crds/backup.yaml",
];

pub async fn run(screen: Screen) -> Result<Demo> {
    let began = Instant::now();
    let world = screen.patience("starting etcd and kube-apiserver", World::start(&|line| progress(screen, line))).await?;
    let tools = &world.tools;
    let detail =
        format!("{}, {}, real RBAC", version("etcd", &tools.etcd.version), version("Kubernetes", &tools.kube_apiserver.version));
    screen.line("", &Line { what: "control plane started".into(), took: began.elapsed(), detail })?;

    let began = Instant::now();
    let options = prepare(&world).await?;
    let host = Host::start(world.plane.supervisor(), &options).await?;
    screen.patience("waiting for the host", host.ready()).await?;
    let detail = format!("as user {HOST_USER}, with the rights in deploy/ and no others");
    screen.line("", &Line { what: "host ready".into(), took: began.elapsed(), detail })?;

    let began = Instant::now();
    let installed = screen.patience("installing the plugins, waiting until they are compiled", install(&world)).await;
    let ready = installed.with_context(|| format!("the end of the host's log:\n{}\n", host.log_tail(30)))?;
    screen.line(
        "",
        &Line { what: "plugins installed, compiled, authorized".into(), took: began.elapsed(), detail: ready.join(", ") },
    )?;
    let (team, examples) = (
        [(HELLOS, TEAM), (CONFIG, TEAM)],
        [CONFIG, WEBSITES, DEPLOYMENTS, SERVICES, INGRESSES, DATABASES, SETS, JOBS].map(|kind| (kind, EXAMPLES)),
    );
    let watched = [&team[..], &[(PROBES, OTHER_TEAM)], &examples].concat();
    let sight = Sight::begin(&world.cluster, &watched).await?;
    screen.say("")?;
    Ok(Demo { host, sight, options, world })
}

/// `make tools` has already said which tools will not do.
fn progress(screen: Screen, line: &str) {
    if !line.starts_with("passing over") {
        screen.note(line);
    }
}

/// What must be there before the host: namespaces, the kinds, the components.
async fn prepare(world: &World) -> Result<Options> {
    let plugin_dir = world.plane.dir().join("plugins");
    fs::create_dir_all(&plugin_dir)?;
    for name in [HELLO, PROBE, WEBSITE, HISTORY, DATABASE] {
        fs::copy(paths::component(name)?, plugin_dir.join(format!("{name}.wasm")))?;
    }
    for namespace in [TEAM, OTHER_TEAM, EXAMPLES] {
        world.cluster.create_namespace(namespace).await?;
    }
    for crd in CRDS {
        world.apply_file("", &paths::checkout().join(crd)).await?;
    }
    Ok(Options {
        kubeconfig: world.plane.host_kubeconfig(),
        plugin_dir,
        cache_dir: world.plane.dir().join("cache"),
        lease_namespace: HOST_NAMESPACE.into(),
        class: "reef".into(),
        flags: LEASE.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect(),
        env: Vec::new(),
    })
}

/// Returns what the plugins say of themselves.
async fn install(world: &World) -> Result<[String; 5]> {
    let checkout = paths::checkout();
    for (namespace, plugin) in [(TEAM, HELLO), (EXAMPLES, WEBSITE), (EXAMPLES, HISTORY), (EXAMPLES, DATABASE)] {
        for file in ["rbac.yaml", "plugin.yaml"] {
            world.apply_file(namespace, &checkout.join("plugins").join(plugin).join(file)).await?;
        }
    }
    world.apply_file(OTHER_TEAM, &checkout.join("tests/guests/probe-rbac.yaml")).await?;
    world.cluster.apply(OTHER_TEAM, PROBE_PLUGIN).await?;
    Ok([
        component(world, TEAM, HELLO).await?,
        component(world, OTHER_TEAM, PROBE).await?,
        component(world, EXAMPLES, WEBSITE).await?,
        component(world, EXAMPLES, HISTORY).await?,
        component(world, EXAMPLES, DATABASE).await?,
    ])
}

async fn component(world: &World, namespace: &str, name: &str) -> Result<String> {
    let ready = |plugin: Option<&Value>| condition(plugin, "Ready").is_some_and(|c| c["status"] == "True");
    let plugin = world.cluster.wait(PLUGINS, namespace, name, "is Ready", ready).await?;
    let component = plugin["status"]["component"].as_str();
    ensure!(component.is_some(), "waited {} s, and Plugin {name} names no component", hang_bound().as_secs());
    Ok(format!("{} in {namespace}", component.unwrap_or_default()))
}

/// The first word with a number in it.
fn version(name: &str, said: &str) -> String {
    let number = said.split_whitespace().find(|word| word.contains('.') && word.contains(|c: char| c.is_ascii_digit()));
    format!("{name} {}", number.unwrap_or(said).trim_start_matches('v'))
}
