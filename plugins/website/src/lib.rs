//! Serves the page of each `Website`: a ConfigMap with the page, a Deployment that rolls when the page changes, a Service while
//! it is exposed, an Ingress while it has a host name. What the Deployment reports is what the Website reports.

mod children;
mod standing;

use plugin_sdk::prelude::*;
use standing::{Phase, Standing};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Website {
    html: String,
    #[serde(default = "one")]
    replicas: u32,
    #[serde(default)]
    exposed: bool,
    host_name: Option<String>,
}

fn one() -> u32 {
    1
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    ready_replicas: u32,
    phase: Phase,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    image: String,
    ingress_class_name: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { image: "docker.io/nginxinc/nginx-unprivileged:1.29-alpine".into(), ingress_class_name: None }
    }
}

/// What fits into a ConfigMap beside its metadata; the schema counts characters, and the API server bytes.
const MOST_BYTES: usize = 1024 * 1024 - 16 * 1024;

fn reconcile(site: Object<Website, Status>, cx: &Context) -> Result<Plan> {
    let settings: Settings = cx.settings()?;
    check(&site.spec)?;
    let page = children::page(&site);
    let deployment = children::deployment(&site, &settings.image)?;
    let standing = Standing::of(cx.read(&deployment)?.as_ref(), &deployment, site.spec.replicas);
    let service = site.spec.exposed.then(|| children::service(&site));
    let ingress = site.spec.host_name.as_ref().map(|host| children::ingress(&site, host, &settings));
    let plan = Plan::new().own(page).own(deployment).own_all(service).own_all(ingress);
    Ok(standing.report(plan))
}

fn check(website: &Website) -> Result<()> {
    let bytes = website.html.len();
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    let message = format!("spec.html has {bytes} bytes: a page has at most {MOST_BYTES}, which is what fits into a ConfigMap");
    Err(Error::terminal(&message).reason("PageTooLarge").condition(Condition::no("Ready", "PageTooLarge", message)))
}

plugin!(
    reconcile, for: "demo.reef.dev/v1/Website",
        owns: ["v1/ConfigMap", "apps/v1/Deployment", "v1/Service", "networking.k8s.io/v1/Ingress"],
        crds: ["../crd.yaml"],
        settings_schema: "../settings.schema.json"
);

#[cfg(test)]
mod tests;
