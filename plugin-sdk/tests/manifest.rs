//! The manifest that `plugin!` writes is one by the published schema.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use plugin_sdk::{prelude::*, serde_json};

mod one {
    use plugin_sdk::prelude::*;

    fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
        Ok(Plan::new())
    }

    plugin!(reconcile, for: "demo.reef.dev/v1/Hello", owns: ["v1/ConfigMap"]);
}

mod several {
    use plugin_sdk::prelude::*;

    mod shop {
        use plugin_sdk::prelude::*;

        pub fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
            Ok(Plan::new())
        }
    }

    fn till(_: Object<()>, _: &Context) -> Result<Plan> {
        Ok(Plan::new())
    }

    fn tidy_up(_: Object<Value>, _: &Context) -> Result<Plan> {
        Ok(Plan::done())
    }

    plugin!(
        shop::reconcile, for: "shop.example/v1/Shop",
            owns: ["apps/v1/Deployment", "v1/Service"],
            reads: ["v1/Secret"],
            writes: ["v1/Namespace"],
            cleanup: tidy_up,
            condition: "ShopReconciled",
            crds: ["manifest.rs"],
            settings_schema: "manifest.rs";
        till, for: "shop.example/v1/Till", owns: [];
    );
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_manifest_says_what_the_line_says() {
    let reconciles = json!([{ "for": "demo.reef.dev/v1/Hello", "owns": ["v1/ConfigMap"], "cleanup": false }]);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(parse(one::MANIFEST), json!({ "name": "plugin-sdk", "version": version, "reconciles": reconciles }));

    let shop = json!({
        "for": "shop.example/v1/Shop",
        "owns": ["apps/v1/Deployment", "v1/Service"],
        "reads": ["v1/Secret"],
        "writes": ["v1/Namespace"],
        "cleanup": true,
        "condition": "ShopReconciled",
    });
    let till = json!({ "for": "shop.example/v1/Till", "owns": [], "cleanup": false });
    assert_eq!(parse(several::MANIFEST)["reconciles"], json!([shop, till]));
}

#[test]
fn every_word_of_the_schema_can_be_said_and_no_other() {
    let schema = parse(include_str!("../wit/manifest.schema.json"));
    let words = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let said = parse(several::MANIFEST);
    assert_eq!(words(&said), words(&schema["properties"]));
    assert_eq!(words(&said["reconciles"][0]), words(&schema["$defs"]["reconciles"]["properties"]));
}
