//! Writes the text of each `Hello` into a ConfigMap of the same name.

use plugin_sdk::prelude::*;

#[derive(Deserialize)]
struct Hello {
    text: String,
}

fn reconcile(hello: Object<Hello>, _cx: &Context) -> Result<Plan> {
    let config = hello.child("v1/ConfigMap", json!({ "data": { "text": hello.spec.text } }));
    Ok(Plan::new().own(config).status(json!({ "text": hello.spec.text })).condition(Condition::yes(
        "Ready",
        "Written",
        "the text is in the ConfigMap of the same name",
    )))
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello", owns: ["v1/ConfigMap"], crds: ["../crd.yaml"]);

#[cfg(test)]
mod tests {
    use super::*;

    crd_test!("../crd.yaml", "../sample.yaml", spec: Hello);

    #[test]
    fn the_text_ends_up_in_a_config_map_of_the_same_name() {
        let cluster = Context::fake();
        let plan = cluster.run(reconcile, include_str!("../sample.yaml")).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "greeting" },
            "data": { "text": "Hello from the reef" },
        });
        assert_eq!(plan.owned("v1/ConfigMap", "greeting"), &config);
        assert_eq!(plan.condition("Ready"), Some("True"));
        assert!(cluster.reads().is_empty(), "hello needs no reads");
    }

    #[test]
    fn a_hello_without_a_text_is_useless_to_try_again() {
        let error = Context::fake().run(reconcile, "{ kind: Hello, metadata: { name: a }, spec: {} }").unwrap_err();
        assert!(error.is_terminal(), "{error}");
        assert_eq!(error.to_string(), "spec of Hello a does not decode: missing field `text`");
    }
}
