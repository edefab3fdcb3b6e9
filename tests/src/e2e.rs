//! The way of somebody who has a cluster and an image of Reef: into a registry, `helm install`, a plugin from the registry, a page
//! served by pods, and everything gone again.
//!
//! On a node of our own ([`Node`]), or on any cluster that a kubeconfig leads to. It uses what such a person has: `helm`, `reef`, a
//! client of registries, and an admin's kubeconfig.

mod commands;
mod left;
mod page;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    cluster::{Cluster, condition, hang_bound},
    demo::{Line, Screen},
    node::Node,
    paths,
    tools::Progress,
};

use commands::Commands;
use left::Objects;

const SYSTEM: &str = "reef-system";
const TEAM: &str = "reef-e2e";
const SITE: &str = "welcome";
const WEBSITE: &str = "demo.reef.dev/v1/Website";
const DEPLOYMENT: &str = "apps/v1/Deployment";
const POD: &str = "v1/Pod";
const NAMESPACE: &str = "v1/Namespace";
const CRD: &str = "apiextensions.k8s.io/v1/CustomResourceDefinition";

const FIRST_PAGE: &str = "<!doctype html><title>Reef</title><h1>Hello from the reef</h1>\n";
const SECOND_PAGE: &str = "<!doctype html><title>Reef</title><h1>Hello again</h1>\n";

/// Where it happens, and with what.
pub struct Target {
    /// Of an admin.
    pub kubeconfig: PathBuf,
    /// What images and plugins are pushed to and pulled from, under one name by us and by the cluster: `host:port/path`.
    pub registry: String,
    pub plain_http: bool,
    /// Serves the pages; else the plugin's default does.
    pub web_image: Option<String>,
    /// Addresses of Services lead there from here.
    pub services_are_reached: bool,
    /// The OCI layout of Reef's image.
    pub image: PathBuf,
}

struct Run {
    cluster: Cluster,
    commands: Commands,
    target: Target,
    screen: Screen,
    number: u32,
}

/// All of it on a node that is started for it, and ends with it.
pub async fn on_own_node(image: PathBuf, screen: Screen, progress: Progress<'_>) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("reef-e2e-{}", std::process::id()));
    let node = Node::start(&dir, progress).await?;
    screen
        .line("", &Line { what: "node ready".into(), took: node.took, detail: "etcd, API server, containerd, kubelet".into() })?;
    let target = Target {
        kubeconfig: node.plane.admin_kubeconfig(),
        registry: node.registry.host(),
        plain_http: true,
        web_image: Some(node.web_image()),
        services_are_reached: true,
        image,
    };
    run(target, screen).await
}

pub async fn run(target: Target, screen: Screen) -> Result<()> {
    let cluster = Cluster::connect(&target.kubeconfig).await?;
    let commands = Commands::new(&target)?;
    let mut run = Run { cluster, commands, target, screen, number: 0 };
    let before = Objects::of(&run.cluster).await?;
    let ended = run.all(&before).await;
    if ended.is_err() {
        let apis = ["v1", "apps/v1", "reef.dev/v1alpha1", "demo.reef.dev/v1", "events.k8s.io/v1"];
        for namespace in [SYSTEM, TEAM] {
            eprintln!("{}", run.cluster.dump(namespace, &apis).await);
        }
    }
    ended
}

impl Run {
    async fn all(&mut self, before: &Objects) -> Result<()> {
        let digest = self.push_image()?;
        self.push_plugin()?;
        self.install(&digest).await?;
        self.test()?;
        self.install_plugin().await?;
        self.serve("Website created → served by its pods", FIRST_PAGE).await?;
        self.serve("page edited → pods rolled", SECOND_PAGE).await?;
        self.delete_site().await?;
        self.uninstall().await?;
        self.nothing_left(before).await
    }

    fn say(&mut self, began: Instant, what: &str, detail: &str) -> Result<()> {
        self.number += 1;
        let line = Line { what: what.into(), took: began.elapsed(), detail: detail.into() };
        Ok(self.screen.line(&self.number.to_string(), &line)?)
    }

    /// Its digest.
    fn push_image(&mut self) -> Result<String> {
        let (began, image) = (Instant::now(), format!("{}/reef", self.target.registry));
        let said = self.commands.crane(&["push", text(&self.target.image)?, &format!("{image}:e2e")])?;
        let digest = said.trim().rsplit_once('@').map(|(_, digest)| digest.to_owned());
        let digest = digest.with_context(|| format!("crane does not say the digest: `{said}`"))?;
        self.say(began, "image → registry", &format!("{image}@{digest}"))?;
        Ok(digest)
    }

    fn push_plugin(&mut self) -> Result<()> {
        let (began, image) = (Instant::now(), self.plugin());
        self.commands.reef_at_registry(&["push", text(&paths::component("website")?)?, &image])?;
        self.say(began, "plugin website → registry", &image)
    }

    fn plugin(&self) -> String {
        format!("{}/plugins/website:e2e", self.target.registry)
    }

    async fn install(&mut self, digest: &str) -> Result<()> {
        let began = Instant::now();
        self.create_restricted(SYSTEM).await?;
        let chart = paths::checkout().join("deploy/chart");
        let registry = self.target.registry.split('/').next().unwrap_or_default();
        let file = json!({ "registries": [{ "host": registry, "plainHttp": true }] });
        let (repository, digest) = (format!("image.repository={}/reef", self.target.registry), format!("image.digest={digest}"));
        let registries = format!("registries.file={file}");
        let mut args = vec!["install", "reef", text(&chart)?, "--set", &repository, "--set", &digest];
        if self.target.plain_http {
            args.extend(["--set-json", &registries]);
        }
        args.extend(["--wait", "--timeout", "3m"]);
        self.commands.helm(SYSTEM, &args)?;
        let deployment = self.cluster.get(DEPLOYMENT, SYSTEM, "reef").await?.unwrap_or_default();
        let ready = &deployment["status"]["readyReplicas"];
        self.say(began, "helm install", &format!("{ready} hosts ready, under Pod Security restricted"))
    }

    fn test(&mut self) -> Result<()> {
        let began = Instant::now();
        self.commands.helm(SYSTEM, &["test", "reef", "--timeout", "2m"])?;
        self.say(began, "helm test", "a pod of the image lists Plugins")
    }

    async fn install_plugin(&mut self) -> Result<()> {
        let began = Instant::now();
        self.create_restricted(TEAM).await?;
        let settings = tempfile::NamedTempFile::new()?;
        let image = self.target.web_image.as_ref().map_or(json!({}), |image| json!({ "image": image }));
        std::fs::write(settings.path(), image.to_string())?;
        let (plugin, settings) = (self.plugin(), text(settings.path())?);
        let args = ["install", &plugin, "-n", TEAM, "--settings", settings, "--timeout", "3m"];
        self.commands.reef_at_registry(&args)?;
        self.say(began, "reef install", "pulled by the host, compiled, authorized, Ready")
    }

    /// Until the site says that it serves this page, and it does.
    async fn serve(&mut self, what: &str, page: &str) -> Result<()> {
        let began = Instant::now();
        let site = json!({
            "apiVersion": "demo.reef.dev/v1",
            "kind": "Website",
            "metadata": { "name": SITE },
            "spec": { "html": page, "replicas": 2, "exposed": true },
        });
        let applied = self.cluster.apply_object(TEAM, &site).await?;
        let generation = applied["metadata"]["generation"].clone();
        let ready = |site: Option<&serde_json::Value>| {
            condition(site, "Ready").is_some_and(|c| c["status"] == "True" && c["observedGeneration"] == generation)
        };
        let site = self.cluster.wait(WEBSITE, TEAM, SITE, "serves this page", ready).await?;
        ensure!(site["status"]["readyReplicas"] == 2, "the site is ready with {}", site["status"]);
        let took = began.elapsed();
        let ways = page::served(&self.cluster, &self.target, page).await?;
        self.number += 1;
        let detail = format!("Ready with 2 of 2 pods; {ways}");
        Ok(self.screen.line(&self.number.to_string(), &Line { what: what.into(), took, detail })?)
    }

    async fn delete_site(&mut self) -> Result<()> {
        let began = Instant::now();
        self.cluster.delete(WEBSITE, TEAM, SITE).await?;
        self.until_empty(POD, TEAM).await?;
        self.say(began, "Website deleted → pods gone", "by Kubernetes' own garbage collector")
    }

    async fn uninstall(&mut self) -> Result<()> {
        let began = Instant::now();
        self.commands.reef(&["uninstall", "website", "-n", TEAM, "--crds", "--yes"])?;
        self.commands.helm(SYSTEM, &["uninstall", "reef", "--wait", "--timeout", "2m"])?;
        // Kept on purpose, as it takes every Plugin with it.
        self.cluster.delete(CRD, "", "plugins.reef.dev").await?;
        for namespace in [TEAM, SYSTEM] {
            self.cluster.delete(NAMESPACE, "", namespace).await?;
        }
        for (kind, name) in [(CRD, "plugins.reef.dev"), (NAMESPACE, TEAM), (NAMESPACE, SYSTEM)] {
            self.cluster.wait(kind, "", name, "is gone", |object| object.is_none()).await?;
        }
        self.say(began, "reef uninstall, helm uninstall", "then the CRD and both namespaces")
    }

    /// What is there is what was there.
    async fn nothing_left(&mut self, before: &Objects) -> Result<()> {
        let (began, end) = (Instant::now(), Instant::now() + hang_bound());
        loop {
            let left = Objects::of(&self.cluster).await?.more_than(before);
            if left.is_empty() {
                break;
            }
            ensure!(Instant::now() < end, "this is left in the cluster:\n{}", left.join("\n"));
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        self.say(began, "nothing is left", "every listable kind, compared with the cluster before")
    }

    async fn create_restricted(&self, name: &str) -> Result<()> {
        self.cluster.create_namespace(name).await?;
        let labels = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
        self.cluster.patch(NAMESPACE, "", name, "", &labels).await.map(drop)
    }

    async fn until_empty(&self, kind: &str, namespace: &str) -> Result<()> {
        let end = Instant::now() + hang_bound();
        while !self.cluster.list(kind, namespace).await?.is_empty() {
            ensure!(Instant::now() < end, "waited {} s in vain until there is no {kind} in {namespace}", hang_bound().as_secs());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}
