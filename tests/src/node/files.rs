//! The configuration of each server of a node, and with which flags it runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{PAUSE_IMAGE, Programs};
use crate::{
    control_plane::{ControlPlane, Network},
    registry::Registry,
};

/// Of the node, in Kubernetes.
pub const NAME: &str = "reef-node";

/// Plugins of devices register here, whatever the kubelet is told.
pub const KUBELET_PLACE: &str = "/var/lib/kubelet";

pub fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

pub fn write(plane: &ControlPlane, network: Network, programs: &Programs, registry: &Registry) -> Result<()> {
    let dir = plane.dir();
    plane.write_kubeconfig("kubelet", &format!("system:node:{NAME}"), Some("system:nodes"))?;
    for user in ["kube-scheduler", "kube-proxy"] {
        plane.write_kubeconfig(user, &format!("system:{user}"), None)?;
    }
    let names = [NAME.to_owned(), network.node().to_string()];
    plane.authority().server_also(&names)?.write(dir, "kubelet")?;
    let trusted = dir.join("certs.d").join(registry.host());
    fs::create_dir_all(&trusted)?;
    fs::write(trusted.join("hosts.toml"), plain_http(&registry.host()))?;
    fs::create_dir_all(dir.join("cni"))?;
    fs::write(dir.join("cni/10-reef.conflist"), cni(network).to_string())?;
    fs::write(dir.join("containerd.toml"), containerd(dir, programs, registry))?;
    fs::write(dir.join("kubelet.yaml"), kubelet(dir, network).to_string())?;
    fs::write(dir.join("kube-proxy.yaml"), proxy(dir, network).to_string())?;
    Ok(())
}

fn plain_http(host: &str) -> String {
    format!("server = \"http://{host}\"\n[host.\"http://{host}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
}

/// A bridge inside of the node; nothing is masked, as pods have no way out.
fn cni(network: Network) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "reef", "plugins": [{
        "type": "bridge",
        "bridge": "pods",
        "isGateway": true,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni",
            "ranges": [[{ "subnet": network.pods() }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    }] })
}

fn containerd(dir: &Path, programs: &Programs, registry: &Registry) -> String {
    let quoted = |text: &dyn std::fmt::Display| Value::from(text.to_string()).to_string();
    let cri = |part: &str| format!("[plugins.\"io.containerd.cri.v1.{part}]");
    [
        "version = 3".into(),
        format!("root = {}", quoted(&at(dir, "containerd"))),
        "state = \"/run/containerd\"".into(),
        "disabled_plugins = [\"io.containerd.nri.v1.nri\"]".into(),
        "[grpc]".into(),
        format!("address = {}", quoted(&socket(dir).display())),
        cri("images\".pinned_images"),
        format!("sandbox = {}", quoted(&registry.image(PAUSE_IMAGE))),
        cri("images\".registry"),
        format!("config_path = {}", quoted(&at(dir, "certs.d"))),
        cri("runtime\""),
        // Root without CAP_SYS_RESOURCE may not promise processes a longer life.
        "restrict_oom_score_adj = true".into(),
        "disable_apparmor = true".into(),
        cri("runtime\".containerd.runtimes.runc"),
        "runtime_type = \"io.containerd.runc.v2\"".into(),
        format!("runtime_path = {}", quoted(&programs.shim.path.display())),
        cri("runtime\".containerd.runtimes.runc.options"),
        format!("BinaryName = {}", quoted(&programs.runc.display())),
        "SystemdCgroup = false".into(),
        cri("runtime\".cni"),
        format!("bin_dirs = [{}]", quoted(&programs.cni.display())),
        format!("conf_dir = {}\n", quoted(&at(dir, "cni"))),
    ]
    .join("\n")
}

fn kubelet(dir: &Path, network: Network) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", socket(dir).display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", network.cgroup()),
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "podLogsDir": "/var/log/pods",
        "authentication": {
            "anonymous": { "enabled": false },
            "x509": { "clientCAFile": at(dir, "ca.crt") },
            "webhook": { "enabled": true },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": at(dir, "kubelet.crt"),
        "tlsPrivateKeyFile": at(dir, "kubelet.key"),
        "evictionHard": { "memory.available": "100Mi" },
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "resolvConf": at(dir, "resolv.conf"),
        // Nobody answers there; without an address, each pod gets a warning.
        "clusterDNS": [network.node()],
        "clusterDomain": "cluster.local",
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "4s",
        "registryPullQPS": 0,
        "serializeImagePulls": false,
    })
}

fn proxy(dir: &Path, network: Network) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": network.pods(),
        "hostnameOverride": NAME,
        "clientConnection": { "kubeconfig": at(dir, "kube-proxy.kubeconfig") },
        "oomScoreAdj": 0,
        // The table of connections belongs to the machine.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

pub fn containerd_flags(dir: &Path) -> Vec<String> {
    vec![format!("--config={}", at(dir, "containerd.toml"))]
}

pub fn scheduler_flags(dir: &Path) -> Vec<String> {
    let kubeconfig = at(dir, "kube-scheduler.kubeconfig");
    let flags = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"];
    flags.iter().map(|flag| format!("--{flag}={kubeconfig}")).chain(["--leader-elect=false".into()]).collect()
}

pub fn kubelet_flags(dir: &Path, network: Network) -> Vec<String> {
    vec![
        format!("--config={}", at(dir, "kubelet.yaml")),
        format!("--kubeconfig={}", at(dir, "kubelet.kubeconfig")),
        format!("--root-dir={}", at(dir, "kubelet")),
        format!("--cert-dir={}", at(dir, "run")),
        format!("--node-ip={}", network.node()),
        format!("--hostname-override={NAME}"),
    ]
}

pub fn proxy_flags(dir: &Path) -> Vec<String> {
    vec![format!("--config={}", at(dir, "kube-proxy.yaml"))]
}
