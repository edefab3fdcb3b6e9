//! Plans what a `Probe` says, word for word. It owns ConfigMaps, and writes Deployments that are somebody else's.

use plugin_sdk::prelude::*;

mod told;

fn reconcile(probe: Object<told::Told>, cx: &Context) -> Result<Plan> {
    told::plan(&probe.spec, probe.namespace(), cx)
}

plugin!(reconcile, for: "test.reef.dev/v1/Probe", owns: ["v1/ConfigMap"], reads: ["apps/v1/Deployment"], writes: ["apps/v1/Deployment"]);
