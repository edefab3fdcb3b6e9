//! With which flags each server runs.

use std::path::Path;

use super::Network;

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
    /// It is reached here instead of on loopback, and pods are run: with all controllers.
    pub network: Option<Network>,
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

pub fn apiserver(dir: &Path, etcd: u16, port: u16, setup: Setup) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", file("run")),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-issuer={ISSUER}"),
        format!("--api-audiences={ISSUER}"),
        format!("--service-account-key-file={}", file("tokens.pub")),
        format!("--service-account-signing-key-file={}", file("tokens.key")),
        format!("--audit-policy-file={}", file("audit-policy.yaml")),
        format!("--audit-log-path={}", file("audit.log")),
        // Rotating would hide what a test is about to count.
        "--audit-log-maxsize=100000".into(),
        "--profiling=false".into(),
    ];
    flags.extend(match setup.network {
        Some(network) => among_nodes(dir, network),
        None => ON_LOOPBACK.map(str::to_owned).to_vec(),
    });
    flags.extend(setup.apiserver.iter().map(|flag| (*flag).to_owned()));
    flags
}

const ON_LOOPBACK: [&str; 5] = [
    "--bind-address=127.0.0.1",
    "--advertise-address=127.0.0.1",
    "--endpoint-reconciler-type=none",
    "--service-cluster-ip-range=10.96.0.0/16",
    "--authorization-mode=RBAC",
];

/// Kubelets and pods reach it, and it reaches kubelets, as the admin.
fn among_nodes(dir: &Path, network: Network) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        "--bind-address=0.0.0.0".into(),
        format!("--advertise-address={}", network.node()),
        format!("--service-cluster-ip-range={}", network.services()),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!("--kubelet-client-certificate={}", file("admin.crt")),
        format!("--kubelet-client-key={}", file("admin.key")),
    ]
}

pub fn controller_manager(dir: &Path, setup: Setup) -> Vec<String> {
    let controllers = match setup {
        Setup { network: Some(_), .. } => vec!["*"],
        Setup { no_rollouts: true, .. } => CONTROLLERS.to_vec(),
        Setup { .. } => [CONTROLLERS.as_slice(), &ROLLOUTS].concat(),
    };
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", file("controller-manager.kubeconfig")),
        format!("--controllers={}", controllers.join(",")),
        "--use-service-account-credentials".into(),
        format!("--service-account-private-key-file={}", file("tokens.key")),
        format!("--root-ca-file={}", file("ca.crt")),
        "--leader-elect=false".into(),
        // No server of its own: nothing asks it anything.
        "--secure-port=0".into(),
    ]
}
