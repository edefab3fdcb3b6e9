//! The example plugin `hello` one version later: the text is shouted. What a hot swap replaces hello with.

use plugin_sdk::prelude::*;

#[derive(Deserialize)]
struct Hello {
    text: String,
}

fn reconcile(hello: Object<Hello>, _cx: &Context) -> Result<Plan> {
    let text = hello.spec.text.to_uppercase();
    let config = hello.child("v1/ConfigMap", json!({ "data": { "text": text } }));
    Ok(Plan::new().own(config).status(json!({ "text": text })).condition(Condition::yes(
        "Ready",
        "Shouted",
        "the text is in the ConfigMap of the same name, in capitals",
    )))
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello", owns: ["v1/ConfigMap"]);
