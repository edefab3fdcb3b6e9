//! What a `Website` consists of. All children have its name, so that the objects of one site are easy to find.

use plugin_sdk::{digest, prelude::*};

use crate::{Settings, Status, Website};

type Site = Object<Website, Status>;

/// Says which page the pods serve. A ConfigMap that changes restarts nobody; a pod template that changes does.
const DIGEST: &str = "demo.reef.dev/html-digest";
const LABEL: &str = "demo.reef.dev/website";
const PORT: u16 = 8080;

/// Where the parts of a Deployment are that decide which page is served.
pub const ESSENTIALS: [&str; 3] = [
    "/spec/replicas",
    "/spec/template/metadata/annotations/demo.reef.dev~1html-digest",
    "/spec/template/spec/containers/0/image",
];

pub fn page(site: &Site) -> Value {
    site.child("v1/ConfigMap", json!({ "metadata": { "labels": labels(site) }, "data": { "index.html": site.spec.html } }))
}

pub fn deployment(site: &Site, image: &str) -> Result<Value> {
    let annotations = json!({ DIGEST: digest(&site.spec.html)? });
    Ok(site.child(
        "apps/v1/Deployment",
        json!({
            "metadata": { "labels": labels(site) },
            "spec": {
                "replicas": site.spec.replicas,
                "selector": { "matchLabels": labels(site) },
                // The old pods serve until new ones do.
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "template": {
                    "metadata": { "labels": labels(site), "annotations": annotations },
                    "spec": pod(site.name(), image),
                },
            },
        }),
    ))
}

/// Fit for namespaces with the Pod Security level `restricted`.
fn pod(name: &str, image: &str) -> Value {
    json!({
        "automountServiceAccountToken": false,
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "web",
            "image": image,
            "ports": [{ "name": "http", "containerPort": PORT }],
            "readinessProbe": { "httpGet": { "path": "/", "port": "http" }, "periodSeconds": 2 },
            // Until every node knows that the pod is going, requests still come in.
            "lifecycle": { "preStop": { "sleep": { "seconds": 2 } } },
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": [
                { "name": "page", "mountPath": "/usr/share/nginx/html", "readOnly": true },
                { "name": "tmp", "mountPath": "/tmp" },
            ],
        }],
        "volumes": [{ "name": "page", "configMap": { "name": name } }, { "name": "tmp", "emptyDir": {} }],
    })
}

pub fn service(site: &Site) -> Value {
    site.child(
        "v1/Service",
        json!({
            "metadata": { "labels": labels(site) },
            "spec": { "selector": labels(site), "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
        }),
    )
}

pub fn ingress(site: &Site, host: &str, settings: &Settings) -> Value {
    let backend = json!({ "service": { "name": site.name(), "port": { "name": "http" } } });
    let paths = json!([{ "path": "/", "pathType": "Prefix", "backend": backend }]);
    site.child(
        "networking.k8s.io/v1/Ingress",
        json!({
            "metadata": { "labels": labels(site) },
            "spec": {
                "ingressClassName": settings.ingress_class_name,
                "rules": [{ "host": host, "http": { "paths": paths } }],
            },
        }),
    )
}

fn labels(site: &Site) -> Value {
    json!({ LABEL: site.name() })
}
