//! Writes the message of each `{{kind}}` into a ConfigMap of the same name.

use plugin_sdk::prelude::*;

#[derive(Deserialize)]
struct Spec {
    message: String,
}

fn reconcile(object: Object<Spec>, _cx: &Context) -> Result<Plan> {
    let message = &object.spec.message;
    let config = object.child("v1/ConfigMap", json!({ "data": { "message": message } }));
    let ready = Condition::yes("Ready", "Written", "the ConfigMap says so");
    Ok(Plan::new().own(config).condition(ready))
}

plugin!(
    reconcile, for: "{{group}}/{{version}}/{{kind}}",
        owns: ["v1/ConfigMap"],
        crds: ["../crd.yaml"]
);

#[cfg(test)]
mod tests {
    use super::*;

    crd_test!("../crd.yaml", "../sample.yaml", spec: Spec);

    #[test]
    fn the_message_ends_up_in_a_config_map_of_the_same_name() {
        let sample = include_str!("../sample.yaml");
        let plan = Context::fake().run(reconcile, sample).unwrap();
        let config = plan.owned("v1/ConfigMap", "first");
        assert_eq!(config["data"]["message"], "Moin");
        assert_eq!(plan.condition("Ready"), Some("True"));
    }
}
