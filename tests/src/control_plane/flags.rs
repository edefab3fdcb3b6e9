//! With which flags each server runs.

use std::path::Path;

/// Who did what to which object, once per request (long ones also when they begin), no bodies.
pub const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{ level: Metadata }]
";

const ISSUER: &str = "https://kubernetes.default.svc";

/// Only what tests need; each further controller costs memory and writes.
const CONTROLLERS: [&str; 4] = [
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
];
const ROLLOUTS: [&str; 2] = ["deployment-controller", "replicaset-controller"];

/// How a control plane differs from the usual one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// Further flags for kube-apiserver, as on the command line.
    pub apiserver: &'static [&'static str],
    /// Nobody looks after Deployments: how they stand is said by the test.
    pub no_rollouts: bool,
}

pub fn etcd(dir: &Path, client: u16, peer: u16) -> Vec<String> {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        "--name=reef".into(),
        format!("--listen-client-urls={}", url(client)),
        format!("--advertise-client-urls={}", url(client)),
        format!("--listen-peer-urls={}", url(peer)),
        format!("--initial-advertise-peer-urls={}", url(peer)),
        format!("--initial-cluster=reef={}", url(peer)),
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

pub fn apiserver(dir: &Path, etcd: u16, port: u16, extra: &[&str]) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        "--endpoint-reconciler-type=none".into(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", file("run")),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-issuer={ISSUER}"),
        format!("--api-audiences={ISSUER}"),
        format!("--service-account-key-file={}", file("tokens.pub")),
        format!("--service-account-signing-key-file={}", file("tokens.key")),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--authorization-mode=RBAC".into(),
        format!("--audit-policy-file={}", file("audit-policy.yaml")),
        format!("--audit-log-path={}", file("audit.log")),
        // Rotating would hide what a test is about to count.
        "--audit-log-maxsize=100000".into(),
        "--profiling=false".into(),
    ];
    flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
    flags
}

pub fn controller_manager(dir: &Path, setup: Setup) -> Vec<String> {
    let rollouts: &[&str] = if setup.no_rollouts { &[] } else { &ROLLOUTS };
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", file("controller-manager.kubeconfig")),
        format!("--controllers={}", [&CONTROLLERS, rollouts].concat().join(",")),
        "--use-service-account-credentials".into(),
        format!("--service-account-private-key-file={}", file("tokens.key")),
        format!("--root-ca-file={}", file("ca.crt")),
        "--leader-elect=false".into(),
        // No server of its own: nothing asks it anything.
        "--secure-port=0".into(),
    ]
}
