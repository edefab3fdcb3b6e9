//! A later version of the example plugin `website`: it keeps the page, and neither Deployment nor Service nor Ingress.

use plugin_sdk::prelude::*;

#[derive(Deserialize)]
struct Website {
    html: String,
}

fn reconcile(site: Object<Website>, _cx: &Context) -> Result<Plan> {
    let page = site.child("v1/ConfigMap", json!({ "data": { "index.html": site.spec.html } }));
    Ok(Plan::new().own(page).condition(Condition::no("Ready", "PageOnly", "the page is kept, and nobody serves it")))
}

plugin!(reconcile, for: "demo.reef.dev/v1/Website", owns: ["v1/ConfigMap"]);
