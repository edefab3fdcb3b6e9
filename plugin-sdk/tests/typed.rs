//! Typed Kubernetes objects are taken wherever an object is, and read back as types.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStatus},
        core::v1::ConfigMap,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use plugin_sdk::prelude::*;

fn metadata(app: &Object) -> ObjectMeta {
    ObjectMeta { name: Some(app.name().into()), namespace: Some(app.namespace().into()), ..ObjectMeta::default() }
}

fn reconcile(app: Object, cx: &Context) -> Result<Plan> {
    let data = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let config = ConfigMap { metadata: metadata(&app), data, ..ConfigMap::default() };
    let spec = DeploymentSpec { replicas: Some(2), ..DeploymentSpec::default() };
    let mut web = Deployment { metadata: metadata(&app), spec, ..Deployment::default() };
    web.metadata.annotations = Some(BTreeMap::from([("digest".to_owned(), digest(&config)?)]));
    let live: Option<Object<DeploymentSpec, DeploymentStatus>> = cx.read(&web)?.map(|live| live.cast()).transpose()?;
    let wanted = live.as_ref().and_then(|live| live.spec.replicas);
    let ready = live.as_ref().and_then(Object::status).and_then(|status| status.ready_replicas);
    let status = DeploymentStatus { replicas: wanted, ready_replicas: ready, ..DeploymentStatus::default() };
    Ok(Plan::new().own(&config).own_all([web]).status(status))
}

#[test]
fn typed_objects_are_planned_read_and_reported() {
    let live = Deployment {
        metadata: ObjectMeta { name: Some("web".into()), namespace: Some("shop".into()), ..ObjectMeta::default() },
        spec: DeploymentSpec { replicas: Some(3), ..DeploymentSpec::default() },
        status: Some(DeploymentStatus { ready_replicas: Some(1), ..DeploymentStatus::default() }),
    };
    let cluster = Context::fake().with_object(live);
    let plan = cluster.run(reconcile, "{ metadata: { name: web, namespace: shop } }").unwrap();
    assert_eq!(plan.children(), ["v1/ConfigMap web", "apps/v1/Deployment web"]);
    assert_eq!(plan.owned("v1/ConfigMap", "web")["data"], json!({ "a": "b" }));
    assert_eq!(plan.status, Some(json!({ "replicas": 3, "readyReplicas": 1 })));
    assert_eq!(cluster.reads(), ["apps/v1/Deployment shop/web"]);
}

#[test]
fn a_cluster_is_read_from_a_file() {
    let cluster = Context::fake().with_file("../plugins/hello/sample.yaml");
    let read = |_: Object, cx: &Context| {
        let hello = cx.get("demo.reef.dev/v1/Hello", "", "greeting")?;
        Ok(Plan::new().status(json!({ "text": hello.map(|hello| hello.at("/spec/text").clone()) })))
    };
    let plan = cluster.run(read, "{ metadata: { name: a } }").unwrap();
    assert_eq!(plan.status, Some(json!({ "text": "Hello from the reef" })));
    let error = Context::fake().with_file("no/such.yaml").run(read, "{ metadata: { name: a } }").unwrap_err();
    assert!(error.to_string().starts_with("cannot read no/such.yaml: "), "{error}");
}
