//! Trust: what an admin's policy lets in and what not, with real signatures in a real registry.

mod policy;
mod signatures;

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::condition,
    cosign::Cosign,
    host::{Host, Options},
    paths,
    registry::{Door, Registry},
    world::Scene,
};
use serde_json::{Value, json};

use crate::{hello, probe::PLUGIN};

/// A registry, key pairs `release` and `other`, and a host with a policy.
pub struct Stage<'a> {
    pub scene: &'a Scene<'a>,
    pub registry: Registry,
    pub cosign: Cosign,
    pub release: String,
    pub options: Options,
}

/// An image that was pushed.
pub struct Pushed {
    /// By digest.
    pub pinned: String,
    pub manifest: String,
    pub component: String,
}

impl<'a> Stage<'a> {
    /// `hello` is prepared, but for its Plugin.
    pub async fn set(scene: &'a Scene<'a>) -> Result<Self> {
        let registry = Registry::start(scene.world.plane.supervisor(), &scene.dir().join("registry"), Door::Plain).await?;
        let cosign = Cosign::new(&scene.dir().join("keys"))?;
        let release = cosign.key("release")?;
        cosign.key("other")?;
        let registries = scene.dir().join("registries.yaml");
        fs::write(&registries, json!({ "registries": [registry.entry()] }).to_string())?;
        let mut options = scene.options();
        options.flags = vec![
            "--recheck-period=1s".into(),
            format!("--registries-file={}", registries.display()),
            format!("--trust-policy={}", scene.dir().join("policy.yaml").display()),
        ];
        hello::install_account(scene, |_| true).await?;
        Ok(Self { scene, registry, cosign, release, options })
    }

    pub fn policy_file(&self) -> PathBuf {
        self.scene.dir().join("policy.yaml")
    }

    /// One rule for the scene's namespace, laid over one that lets in what `release` has signed in `team/**`.
    pub fn policy(&self, rule: &Value) -> Value {
        let mut whole = json!({
            "namespaces": [self.scene.namespace],
            "repositories": [format!("{}/team/**", self.registry.host())],
            "keys": ["release"],
        });
        for (key, value) in rule.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        json!({
            "apiVersion": "reef.dev/v1alpha1",
            "kind": "TrustPolicy",
            "keys": [{ "name": "release", "pem": self.release }],
            "rules": [whole],
        })
    }

    /// As a deployment would: written beside, then renamed.
    pub fn write_policy(&self, text: &str) -> Result<()> {
        let beside = self.scene.dir().join("policy.new");
        fs::write(&beside, text)?;
        Ok(fs::rename(&beside, self.policy_file())?)
    }

    pub async fn host(&self) -> Result<Arc<Host>> {
        self.scene.host_with(&self.options).await
    }

    /// Pushes a built component to `NAME:TAG`.
    pub fn push(&self, component: &str, name: &str) -> Result<Pushed> {
        let said = self.registry.push(&paths::component(component)?, name, &[])?;
        let text =
            |key: &str| said[key].as_str().map(str::to_owned).with_context(|| format!("`reef push` says no {key}: {said}"));
        let (manifest, component) = (text("manifest")?, text("component")?);
        let repository = self.registry.image(name.rsplit_once(':').map_or(name, |(repository, _)| repository));
        Ok(Pushed { pinned: format!("{repository}@{manifest}"), manifest, component })
    }

    /// The Plugin `hello`, from this image of the registry.
    pub async fn install(&self, image: &str) -> Result<()> {
        self.install_with(image, json!({})).await
    }

    pub async fn install_with(&self, image: &str, more: Value) -> Result<()> {
        let mut spec = json!({ "source": { "oci": { "image": image } }, "serviceAccountName": "hello" });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        hello::plugin(self.scene, "hello", spec).await
    }

    /// `Verified` is false for this reason; what it says. The component was not compiled.
    pub async fn refused(&self, reason: &str) -> Result<String> {
        let message = hello::plugin_says(self.scene, "hello", ("Verified", "False", reason)).await?;
        let plugin = self.scene.cluster().get(PLUGIN, &self.scene.namespace, "hello").await?;
        let compiled = condition(plugin.as_ref(), "Compiled").context("it has no condition Compiled")?;
        ensure!(compiled["status"] == "Unknown" && compiled["reason"] == "NotReached", "it was compiled: {compiled}");
        Ok(message)
    }

    /// It runs, as somebody trusted has signed it.
    pub async fn verified(&self, pushed: &Pushed) -> Result<String> {
        let message = hello::plugin_says(self.scene, "hello", ("Verified", "True", "Verified")).await?;
        hello::plugin_says(self.scene, "hello", ("Ready", "True", "Ready")).await?;
        hello::has(&message, &["`release` (sha256:", &pushed.manifest])?;
        let plugin = self.scene.cluster().get(PLUGIN, &self.scene.namespace, "hello").await?.context("the Plugin is gone")?;
        ensure!(plugin["status"]["digest"] == pushed.component.as_str(), "another one runs: {}", plugin["status"]);
        Ok(message)
    }
}
