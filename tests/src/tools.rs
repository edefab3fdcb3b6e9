//! Finds the binaries of the control plane, of a node, and of the registry and its client, one by one: `KUBEBUILDER_ASSETS`, `PATH`, our cache; what is nowhere is built.
//!
//! A binary that is found but too old is passed over, and that is said. Building is `build`'s.

mod build;

use std::{
    collections::HashSet,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::paths;

/// Somebody who wants to know what takes so long.
pub type Progress<'a> = &'a dyn Fn(&str);

/// A server or client of the control plane, and the oldest version that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub name: &'static str,
    /// Directory under `tests/tools` whose module builds it.
    module: &'static str,
    package: &'static str,
    version: &'static [&'static str],
    at_least: (u32, u32),
}

pub const ETCD: Wanted =
    Wanted { name: "etcd", module: "etcd", package: "go.etcd.io/etcd/server/v3", version: &["--version"], at_least: (3, 5) };
pub const KUBE_APISERVER: Wanted = kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", &["--version"]);
pub const KUBE_CONTROLLER_MANAGER: Wanted =
    kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", &["--version"]);
pub const KUBECTL: Wanted = kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", &["version", "--client"]);

/// What signs components, in both of its layouts. The names are our own, so that none on `PATH` is taken for the other.
pub const COSIGN_V2: Wanted = cosign("cosign-v2", "github.com/sigstore/cosign/v2/cmd/cosign", (2, 6));
pub const COSIGN_V3: Wanted = cosign("cosign-v3", "github.com/sigstore/cosign/v3/cmd/cosign", (3, 1));

/// The reference registry.
pub const REGISTRY: Wanted = Wanted {
    name: "registry",
    module: "distribution",
    package: "github.com/distribution/distribution/v3/cmd/registry",
    version: &["--version"],
    at_least: (3, 0),
};
/// A client of registries that has nothing to do with ours.
pub const CRANE: Wanted = Wanted {
    name: "crane",
    module: "crane",
    package: "github.com/google/go-containerregistry/cmd/crane",
    version: &["version"],
    at_least: (0, 20),
};

/// What renders the chart.
pub const HELM: Wanted = Wanted {
    name: "helm",
    module: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    version: &["version", "--short"],
    // From here on the sentences about wrong values are those that the tests know.
    at_least: (3, 18),
};

pub const KUBE_SCHEDULER: Wanted = kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", &["--version"]);
pub const KUBELET: Wanted = kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", &["--version"]);
pub const KUBE_PROXY: Wanted = kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", &["--version"]);
pub const CONTAINERD: Wanted = containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd", &["--version"]);
pub const CONTAINERD_SHIM: Wanted =
    containerd("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", &["-v"]);
pub const CNI_BRIDGE: Wanted = cni("bridge", "github.com/containernetworking/plugins/plugins/main/bridge");
pub const CNI_LOOPBACK: Wanted = cni("loopback", "github.com/containernetworking/plugins/plugins/main/loopback");
pub const CNI_HOST_LOCAL: Wanted = cni("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local");

/// What runs in the pods of our own node, of our own making.
pub const POD: Wanted =
    Wanted { name: "pod", module: "pod", package: "reef.dev/tests/tools/pod", version: &["version"], at_least: (1, 0) };

/// What runs pods, beside the control plane, a registry and its client.
pub const NODE: [Wanted; 9] =
    [KUBE_SCHEDULER, KUBELET, KUBE_PROXY, CONTAINERD, CONTAINERD_SHIM, CNI_BRIDGE, CNI_LOOPBACK, CNI_HOST_LOCAL, POD];

pub const ALL: [Wanted; 9] =
    [ETCD, KUBE_APISERVER, KUBE_CONTROLLER_MANAGER, KUBECTL, REGISTRY, CRANE, COSIGN_V2, COSIGN_V3, HELM];

const fn kubernetes(name: &'static str, package: &'static str, version: &'static [&'static str]) -> Wanted {
    Wanted { name, module: "kubernetes", package, version, at_least: (1, 33) }
}

/// From here on it has the configuration that is written for it.
const fn containerd(name: &'static str, package: &'static str, version: &'static [&'static str]) -> Wanted {
    Wanted { name, module: "containerd", package, version, at_least: (2, 1) }
}

const fn cni(name: &'static str, package: &'static str) -> Wanted {
    Wanted { name, module: "cni", package, version: &[], at_least: (1, 5) }
}

const fn cosign(name: &'static str, package: &'static str, at_least: (u32, u32)) -> Wanted {
    Wanted { name, module: name, package, version: &["version"], at_least }
}

impl Wanted {
    /// Others have programs of these names, too: `bridge` is one of iproute2's.
    fn is_only_ours(self) -> bool {
        matches!(self.module, "cni" | "pod")
    }
}

/// A binary that will do.
#[derive(Debug, Clone)]
pub struct Tool {
    pub name: &'static str,
    pub path: PathBuf,
    pub version: String,
    /// Why this one, for people.
    pub origin: &'static str,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Tools {
    pub etcd: Tool,
    pub kube_apiserver: Tool,
    pub kube_controller_manager: Tool,
    pub kubectl: Tool,
}

/// Finds or builds every binary. The first build takes minutes; `progress` hears about it.
pub fn locate(progress: Progress) -> Result<Tools> {
    Ok(Tools {
        etcd: locate_one(ETCD, progress)?,
        kube_apiserver: locate_one(KUBE_APISERVER, progress)?,
        kube_controller_manager: locate_one(KUBE_CONTROLLER_MANAGER, progress)?,
        kubectl: locate_one(KUBECTL, progress)?,
    })
}

/// Finds or builds one of them.
pub fn locate_one(wanted: Wanted, progress: Progress) -> Result<Tool> {
    for (path, origin) in candidates(wanted)? {
        match version(wanted, &path) {
            Ok(version) => return Ok(Tool { name: wanted.name, path, version, origin }),
            Err(reason) => progress(&format!("passing over {}: {reason}", path.display())),
        }
    }
    let path = build::build(wanted, progress)?;
    let version = version(wanted, &path)?;
    Ok(Tool { name: wanted.name, path, version, origin: "built from its Go module" })
}

fn candidates(wanted: Wanted) -> Result<Vec<(PathBuf, &'static str)>> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<(PathBuf, &'static str)> = Vec::new();
    found.extend(assets.map(|dir| (dir.join(wanted.name), "from KUBEBUILDER_ASSETS")));
    found.extend(env::split_paths(&path).map(|dir| (dir.join(wanted.name), "from PATH")));
    if wanted.is_only_ours() {
        found.clear();
    }
    found.push((build::place(wanted)?, "from the cache"));
    found.retain(|(path, _)| path.is_file());
    // `/bin` is often `/usr/bin` again.
    let mut seen = HashSet::new();
    found.retain(|(path, _)| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    Ok(found)
}

/// The version that a binary reports, or why it will not do.
fn version(wanted: Wanted, path: &Path) -> Result<String> {
    let output = Command::new(path).args(wanted.version).output().with_context(|| format!("cannot run {}", path.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let (number, version) = parse_version(&text).with_context(|| format!("it does not tell its version: `{}`", text.trim()))?;
    if number < wanted.at_least {
        let (major, minor) = wanted.at_least;
        bail!("it is {version}, and Reef's tests need {major}.{minor} or newer");
    }
    Ok(version)
}

/// The first word that looks like `v1.36.3` or `3.6.8`, and its first two numbers.
fn parse_version(text: &str) -> Option<((u32, u32), String)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.trim_end_matches('+').parse().ok()?;
        parts.next().map(|_| ((major, minor), word.to_owned()))
    })
}

/// Where the cache is, for those who clean up.
pub fn cache() -> Result<PathBuf> {
    Ok(paths::cache()?.join("tools"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_each_tool_prints_them() {
        for (text, number, version) in [
            ("Kubernetes v1.36.3\n", (1, 36), "v1.36.3"),
            ("containerd github.com/containerd/containerd/v2 v2.4.2 \n", (2, 4), "v2.4.2"),
            ("CNI bridge plugin v1.9.1\nCNI protocol versions supported: 0.1.0, 0.2.0\n", (1, 9), "v1.9.1"),
            ("etcd Version: 3.6.8\nGit SHA: Not provided\nGo Version: go1.26.8\n", (3, 6), "3.6.8"),
            ("v4.3.1+g0123456\n", (4, 3), "v4.3.1+g0123456"),
            ("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0\n", (1, 32), "v1.32.4-dispatcher"),
        ] {
            assert_eq!(parse_version(text), Some((number, version.to_owned())));
        }
        assert_eq!(parse_version("flag provided but not defined"), None);
    }

    #[test]
    fn a_binary_that_is_too_old_is_refused_with_both_versions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubectl");
        std::fs::write(&path, "#!/bin/sh\necho Client Version: v1.20.1\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let refusal = version(KUBECTL, &path).unwrap_err().to_string();
        assert!(refusal.contains("v1.20.1") && refusal.contains("1.33"), "{refusal}");
    }
}
