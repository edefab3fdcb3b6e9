//! The function by itself: no cluster, no Wasm.

use plugin_sdk::{Fake, Planned};

use super::*;

const SITE: &str = "
    apiVersion: demo.reef.dev/v1
    kind: Website
    metadata: { name: web, namespace: team-a }
    spec: { html: <p>one, replicas: 2 }
";
const DEPLOYMENT: &str = "apps/v1/Deployment";

crd_test!("../crd.yaml", "../sample.yaml", spec: Website, status: Status);

/// A cluster in which the Deployment of the site above reports this.
fn reported(status: Value) -> Fake {
    let planned = Context::fake().run(reconcile, SITE).unwrap();
    let mut deployment = planned.owned(DEPLOYMENT, "web").clone();
    deployment["metadata"]["generation"] = 3.into();
    deployment["status"] = status;
    Context::fake().with_object(deployment)
}

fn run(cluster: &Fake) -> Planned {
    cluster.run(reconcile, SITE).unwrap()
}

#[test]
fn the_sample_has_all_four_children() {
    let cluster = Context::fake();
    let plan = cluster.run(reconcile, include_str!("../sample.yaml")).unwrap();
    let children = ["v1/ConfigMap", DEPLOYMENT, "v1/Service", "networking.k8s.io/v1/Ingress"];
    assert_eq!(plan.children(), children.map(|kind| format!("{kind} welcome")));
    let page = &plan.owned("v1/ConfigMap", "welcome")["data"]["index.html"];
    assert!(page.as_str().unwrap().contains("Hello from the reef"));
    assert_eq!(plan.owned("networking.k8s.io/v1/Ingress", "welcome")["spec"]["rules"][0]["host"], "welcome.example.com");
    assert_eq!(cluster.reads(), ["apps/v1/Deployment /welcome"]);
}

#[test]
fn what_is_not_asked_for_is_not_there() {
    assert_eq!(run(&Context::fake()).children(), ["v1/ConfigMap web", "apps/v1/Deployment web"]);
    let exposed = Context::fake().run(reconcile, &SITE.replace("replicas: 2", "exposed: true")).unwrap();
    assert_eq!(exposed.children(), ["v1/ConfigMap web", "apps/v1/Deployment web", "v1/Service web"]);
    assert_eq!(exposed.owned(DEPLOYMENT, "web")["spec"]["replicas"], 1, "the default");
}

#[test]
fn the_pods_roll_when_the_page_changes_and_only_then() {
    let template = |site: &str| {
        let plan = Context::fake().run(reconcile, site).unwrap();
        plan.owned(DEPLOYMENT, "web")["spec"]["template"].clone()
    };
    assert_ne!(template(SITE), template(&SITE.replace("one", "two")));
    assert_eq!(template(SITE), template(&SITE.replace("replicas: 2", "replicas: 5, exposed: true, hostName: a.example")));
}

#[test]
fn the_image_is_a_setting() {
    let plan = run(&Context::fake().with_settings(json!({ "image": "web:1" })));
    assert_eq!(plan.owned(DEPLOYMENT, "web").pointer("/spec/template/spec/containers/0/image").unwrap(), "web:1");
}

#[test]
fn a_site_is_ready_when_all_its_pods_serve_this_page() {
    let plan = run(&Context::fake());
    assert_eq!(plan.status, Some(json!({ "readyReplicas": 0, "phase": "Pending" })));
    assert_eq!((plan.condition("Ready"), plan.condition("Progressing")), (Some("False"), Some("True")));

    let half = json!({ "observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 1 });
    let plan = run(&reported(half));
    assert_eq!(plan.status, Some(json!({ "readyReplicas": 1, "phase": "Progressing" })));
    assert_eq!(plan.message("Ready"), "1 of 2 replicas are ready");

    let all = json!({ "observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2 });
    let plan = run(&reported(all.clone()));
    assert_eq!(plan.status, Some(json!({ "readyReplicas": 2, "phase": "Ready" })));
    assert_eq!((plan.condition("Ready"), plan.condition("Progressing")), (Some("True"), Some("False")));

    let mut unseen = all.clone();
    unseen["observedGeneration"] = 2.into();
    assert_eq!(run(&reported(unseen)).condition("Ready"), Some("False"), "the Deployment speaks of an older spec");
    let edited = reported(all).run(reconcile, &SITE.replace("one", "two")).unwrap();
    assert_eq!(edited.condition("Ready"), Some("False"), "the Deployment speaks of the page before");
    assert_eq!(edited.status, Some(json!({ "readyReplicas": 2, "phase": "Progressing" })));
}

#[test]
fn pods_that_a_quota_refuses_are_waited_for_with_a_partial_plan() {
    let failure = |pod: &str| {
        json!({
            "observedGeneration": 3, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1,
            "conditions": [{
                "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                "message": format!("pods \"{pod}\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1"),
            }],
        })
    };
    let plan = run(&reported(failure("web-1-x")));
    let says = "the Deployment cannot make its pods: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1";
    assert_eq!(plan.pending.as_deref(), Some(says));
    assert_eq!(plan.status, Some(json!({ "readyReplicas": 1, "phase": "Waiting" })));
    assert_eq!(plan, run(&reported(failure("web-1-y"))), "which pod it was makes no difference");
}

#[test]
fn a_rollout_that_has_stalled_says_so() {
    let stalled = json!({
        "observedGeneration": 3, "replicas": 2, "updatedReplicas": 2,
        "conditions": [{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out" }],
    });
    let plan = run(&reported(stalled));
    assert_eq!(plan.message("Progressing"), "the Deployment has given up waiting for its pods: timed out");
}

#[test]
fn a_page_that_no_config_map_holds_is_terminal_and_said_in_status() {
    let huge = SITE.replace("<p>one", &"€".repeat(400_000));
    let error = Context::fake().run(reconcile, &huge).unwrap_err();
    assert!(error.is_terminal());
    assert_eq!(error.to_string(), "spec.html has 1200000 bytes: a page has at most 1032192, which is what fits into a ConfigMap");
    assert_eq!(error.conditions()[0].name, "Ready");
}
