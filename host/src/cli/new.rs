//! `reef new`: begins a plugin, as a crate that builds and passes its tests at once.
//!
//! What it writes stands in `new/`, file by file; what differs from one plugin to the next is in double braces.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::{Args, ValueHint};
use serde_json::json;

use super::{output, yaml};
use crate::{
    contract::Manifest,
    names::{Account, Kind, label},
    rbac::{
        self, Host, Wanted,
        kinds::{Kinds, plural},
    },
};

#[derive(Debug, Args)]
pub struct NewArgs {
    /// The plugin's name, a DNS label as in `my-plugin`.
    #[arg(value_parser = name)]
    name: String,
    /// The kind that it reconciles, which the crate defines. Default: example.dev/v1/ and the name in CamelCase.
    #[arg(long, value_name = "GROUP/VERSION/KIND", value_parser = custom_kind)]
    kind: Option<Kind>,
    /// The directory to make. Default: the name.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    path: Option<PathBuf>,
    /// Where cargo finds the SDK: a directory, or `git`. Default: the checkout that this `reef` was built from while it is
    /// there, and else git.
    #[arg(long, value_name = "DIR|git", value_hint = ValueHint::DirPath)]
    sdk: Option<PathBuf>,
}

const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// Where each file goes, and what is in it. Beside them there is `rbac.yaml`, which is computed.
const FILES: [(&str, &str); 12] = [
    ("Cargo.toml", include_str!("new/Cargo.toml.in")),
    ("build.rs", include_str!("new/build.rs")),
    ("rust-toolchain.toml", include_str!("new/rust-toolchain.toml")),
    ("src/lib.rs", include_str!("new/src/lib.rs")),
    (CRD, include_str!("new/crd.yaml")),
    ("sample.yaml", include_str!("new/sample.yaml")),
    ("plugin.yaml", include_str!("new/plugin.yaml")),
    ("testdata/first.yaml", include_str!("new/testdata/first.yaml")),
    ("testdata/first.golden.yaml", include_str!("new/testdata/first.golden.yaml")),
    ("README.md", include_str!("new/README.md")),
    (".gitignore", include_str!("new/gitignore")),
    (".github/workflows/ci.yml", include_str!("new/ci.yml")),
];
const CRD: &str = "crd.yaml";

pub fn run(args: &NewArgs) -> anyhow::Result<()> {
    let plugin = Plugin {
        kind: args.kind.clone().unwrap_or_else(|| default_kind(&args.name)),
        name: args.name.clone(),
        sdk: Sdk::of(args.sdk.as_deref())?,
    };
    let path = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    place(&path, &plugin.files()?)?;
    let told = output::rows(&[
        ("plugin", format!("{}, for {}", plugin.name, plugin.kind)),
        ("path", path.display().to_string()),
        ("sdk", plugin.sdk.in_words()),
        ("next", format!("cd {} && reef test", path.display())),
    ]);
    output::print(&told)
}

/// What becomes of the name: a crate, a ServiceAccount, a Plugin, a field manager.
fn name(text: &str) -> Result<String, String> {
    let name = label(text).map_err(|error| error.to_string())?;
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!("`{name}` is also the name of a crate: begin it with a letter"));
    }
    if KEYWORDS.contains(&text) {
        return Err(format!(
            "`{name}` is also the name of a crate, and a word of the Rust language: call it `{name}-plugin`, say"
        ));
    }
    if TAKEN.contains(&text) {
        return Err(format!(
            "`{name}` is also the name of a crate, and there is one that it needs: call it `{name}-plugin`, say"
        ));
    }
    Ok(name)
}

const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else", "enum",
    "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut",
    "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];
const TAKEN: [&str; 7] = ["alloc", "core", "plugin-sdk", "proc-macro", "serde", "std", "test"];

/// A kind that a CRD can define.
fn custom_kind(text: &str) -> Result<Kind, String> {
    let kind: Kind = text.parse().map_err(|error: crate::names::Malformed| error.to_string())?;
    let group = &kind.group;
    if !group.contains('.') || !group.split('.').all(|part| label(part).is_ok()) {
        return Err(format!("the group of {kind} is `{group}`: use a domain of yours, as in `example.dev/v1/Banner`"));
    }
    if ["k8s.io", "kubernetes.io", "reef.dev"].iter().any(|taken| **group == **taken || group.ends_with(&format!(".{taken}"))) {
        return Err(format!("the group `{group}` is not yours: use a domain of yours, as in `example.dev/v1/Banner`"));
    }
    Ok(kind)
}

/// `example.dev/v1/MyPlugin`
fn default_kind(name: &str) -> Kind {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    Kind::new("example.dev", "v1", &name.split('-').map(capital).collect::<String>())
}

/// Where cargo finds the SDK.
#[derive(Debug, PartialEq)]
enum Sdk {
    /// In the checkout that this program was built from.
    Checkout(PathBuf),
    Path(PathBuf),
    Git,
}

impl Sdk {
    fn of(asked: Option<&Path>) -> anyhow::Result<Self> {
        match asked {
            Some(git) if git == Path::new("git") => Ok(Self::Git),
            Some(path) => {
                let found = path.canonicalize().with_context(|| format!("--sdk: {}", path.display()))?;
                ensure!(is_sdk(&found), "--sdk: {} is not the crate `plugin-sdk`: give its directory, or `git`", path.display());
                Ok(Self::Path(found))
            }
            None => {
                let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_default();
                let sdk = root.join("plugin-sdk");
                // Cargo marks those of its own making, which come and go with its cache.
                let is_ours = is_sdk(&sdk) && !root.join(".cargo-ok").exists();
                Ok(if is_ours { Self::Checkout(sdk) } else { Self::Git })
            }
        }
    }

    /// As Cargo.toml says it.
    fn dependency(&self) -> anyhow::Result<String> {
        match self {
            Self::Checkout(path) | Self::Path(path) => {
                let path = path.to_str().with_context(|| format!("--sdk: {} is not UTF-8", path.display()))?;
                // What JSON escapes in a string, TOML understands.
                Ok(format!("{{ path = {} }}", json!(path)))
            }
            Self::Git => Ok(format!("{{ git = {} }}", json!(REPOSITORY))),
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Checkout(path) => {
                format!("{} (what this `reef` was built from; for a crate that others can build: --sdk git)", path.display())
            }
            Self::Path(path) => path.display().to_string(),
            Self::Git => REPOSITORY.to_owned(),
        }
    }
}

fn is_sdk(path: &Path) -> bool {
    fs::read_to_string(path.join("Cargo.toml")).is_ok_and(|text| text.contains("name = \"plugin-sdk\""))
}

struct Plugin {
    name: String,
    kind: Kind,
    sdk: Sdk,
}

impl Plugin {
    /// Paths and texts.
    fn files(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let Kind { group, version, kind } = &self.kind;
        let (sdk, plural) = (self.sdk.dependency()?, plural(&self.kind));
        let (krate, singular) = (self.name.replace('-', "_"), kind.to_lowercase());
        let words: [(&str, &str); 10] = [
            ("name", &self.name),
            ("crate", &krate),
            ("group", group),
            ("version", version),
            ("kind", kind),
            ("plural", &plural),
            ("singular", &singular),
            ("sdk", &sdk),
            ("reef", env!("CARGO_PKG_VERSION")),
            ("repository", REPOSITORY),
        ];
        let filled = |text: &str| {
            words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(&format!("{{{{{word}}}}}"), value))
        };
        let mut files: Vec<_> = FILES.iter().map(|(path, text)| (*path, filled(text))).collect();
        let crd = files.iter().find(|(path, _)| *path == CRD).map(|(_, text)| text.as_str()).unwrap_or_default();
        let rbac = self.rbac(crd)?;
        files.push(("rbac.yaml", rbac));
        Ok(files)
    }

    /// What `reef inspect --rbac` would print of the component.
    fn rbac(&self, crd: &str) -> anyhow::Result<String> {
        let manifest = json!({
            "name": self.name, "version": "0.1.0",
            "reconciles": [{ "for": self.kind, "owns": ["v1/ConfigMap"] }],
        });
        let manifest = Manifest::parse(manifest.to_string().as_bytes())?;
        let kinds = Kinds::with_crds(&yaml::documents(crd)?);
        let host = Host::Account(Account::new("reef-system", "reef"));
        let wanted =
            Wanted { manifest: &manifest, kinds: &kinds, account: &self.name, namespace: None, host: &host, source: &[] };
        Ok(yaml::commented(&rbac::documents(wanted).map_err(|sentence| anyhow!(sentence))?)?)
    }
}

/// All of it or nothing: written beside, then renamed.
fn place(path: &Path, files: &[(&str, String)]) -> anyhow::Result<()> {
    let shown = path.display();
    if path.symlink_metadata().is_ok() {
        bail!("{shown} is there already: choose another name, or another directory with --path");
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(parent.is_dir(), "there is no directory {} to make {shown} in: make it first", parent.display());
    let cannot = || format!("cannot make {shown}");
    let beside = tempfile::Builder::new()
        .prefix(".reef-new-")
        .permissions(fs::Permissions::from_mode(0o777))
        .tempdir_in(parent)
        .with_context(cannot)?;
    for (file, text) in files {
        let file = beside.path().join(file);
        fs::create_dir_all(file.parent().unwrap_or(beside.path())).with_context(cannot)?;
        fs::write(&file, text).with_context(cannot)?;
    }
    fs::rename(beside.path(), path).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(name: &str, kind: Option<&str>) -> Plugin {
        let kind = kind.map_or_else(|| default_kind(name), |kind| custom_kind(kind).unwrap());
        Plugin { name: name.into(), kind, sdk: Sdk::Git }
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for plugin in [plugin("banner", None), plugin("my-plugin-2", Some("shop.example/v2beta1/Policy"))] {
            for (path, text) in plugin.files().unwrap() {
                assert!(!text.contains("{{") && !text.contains("}}"), "{path}:\n{text}");
                assert!(!text.is_empty(), "{path}");
                assert!(path.ends_with(".yaml").then(|| yaml::documents(&text).unwrap()).is_none_or(|d| !d.is_empty()), "{path}");
            }
        }
    }

    #[test]
    fn the_crd_is_of_the_kind() {
        let files = plugin("my-plugin", Some("shop.example/v2beta1/Policy")).files().unwrap();
        let text = |path: &str| files.iter().find(|(file, _)| *file == path).map(|(_, text)| text.clone()).unwrap();
        let crd = yaml::documents(&text(CRD)).unwrap().remove(0);
        assert_eq!(crd["metadata"]["name"], "policies.shop.example");
        assert_eq!(crd["spec"]["names"]["singular"], "policy");
        assert_eq!(crd["spec"]["versions"][0]["name"], "v2beta1");
        assert!(text("src/lib.rs").contains(r#"for: "shop.example/v2beta1/Policy""#));
        assert!(text("README.md").contains("release/my_plugin.wasm"));
        assert!(text("rbac.yaml").contains("- policies/status\n"));
        assert!(text("rust-toolchain.toml").contains(include_str!("../../../rust-toolchain.toml")));
    }

    #[test]
    fn names_and_kinds_that_make_no_plugin_are_refused_with_the_fix() {
        for (text, part) in [
            ("Banner", "use 1 to 63"),
            ("a_b", "use 1 to 63"),
            ("", "use 1 to 63"),
            ("1a", "begin it with a letter"),
            ("fn", "`fn-plugin`"),
            ("serde", "`serde-plugin`"),
        ] {
            let said = name(text).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
        for (text, part) in [
            ("Banner", "write group/version/Kind"),
            ("v1/Banner", "use a domain of yours"),
            ("apps/v1/Banner", "use a domain of yours"),
            ("a..b/v1/Banner", "use a domain of yours"),
            ("x.k8s.io/v1/Banner", "is not yours"),
        ] {
            let said = custom_kind(text).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(default_kind("my-plugin-2").to_string(), "example.dev/v1/MyPlugin2");
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let files = [("src/x", "1".to_owned())];
        place(&path, &files).unwrap();
        assert_eq!(fs::read_to_string(path.join("src/x")).unwrap(), "1");
        assert!(place(&path, &files).unwrap_err().to_string().contains("is there already"));
        assert!(place(&dir.path().join("b/c"), &files).unwrap_err().to_string().contains("make it first"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing half-done");
    }

    #[test]
    fn the_sdk_is_a_directory_or_git() {
        assert_eq!(Sdk::of(Some(Path::new("git"))).unwrap().dependency().unwrap(), format!("{{ git = \"{REPOSITORY}\" }}"));
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-sdk");
        assert!(matches!(Sdk::of(Some(&sdk)).unwrap(), Sdk::Path(path) if path.is_absolute()));
        assert!(Sdk::of(Some(Path::new(env!("CARGO_MANIFEST_DIR")))).unwrap_err().to_string().contains("is not the crate"));
        assert!(format!("{:#}", Sdk::of(Some(Path::new("/no/such"))).unwrap_err()).contains("--sdk: /no/such"));
    }
}
