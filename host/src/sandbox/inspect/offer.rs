//! What this host offers to a component, and what it calls in one.
//!
//! Compared before a linker is asked, whose own complaints name a function where a version is wrong.

use crate::capability::wasi;

/// The package that host and plugin share, and the version that this host offers.
const PACKAGE: &str = "reef:plugin";
const VERSION: (u64, u64) = (0, 1);
/// Its interfaces, and what each lets a plugin do.
const OFFERED: [(&str, &str); 3] = [
    ("log", "writes lines into the host's log"),
    ("reads", "reads objects of the kinds that the manifest names, as the plugin's ServiceAccount"),
    ("types", "nothing: words that the others share"),
];

/// `package/interface@version` taken apart.
struct Interface<'a> {
    name: &'a str,
    package: &'a str,
    interface: &'a str,
    version: Option<(u64, u64)>,
}

impl<'a> Interface<'a> {
    fn parse(full: &'a str) -> Self {
        let (name, version) = full.split_once('@').unwrap_or((full, ""));
        let (package, interface) = name.split_once('/').unwrap_or((name, ""));
        let mut numbers = version.split('.').map(|part| part.parse().ok());
        let version = numbers.next().flatten().zip(numbers.next().flatten());
        Self { name, package, interface, version }
    }
}

/// What this import lets the component do, or why this host does not offer it.
pub(super) fn offered(import: &str) -> Result<&'static str, String> {
    let wanted = Interface::parse(import);
    let (major, minor) = VERSION;
    let ours = format!("{PACKAGE}@{major}.{minor}.0");
    if wanted.package == PACKAGE {
        return match (meaning(&OFFERED, wanted.interface), wanted.version == Some(VERSION)) {
            (Some(meaning), true) => Ok(meaning),
            (_, false) => {
                Err(format!("it wants {import}, this host offers {ours}: build it with the SDK of this host's version"))
            }
            (None, true) => {
                Err(format!("it wants {import}, which {ours} does not have: build it with the SDK of this host's version"))
            }
        };
    }
    if let Some(meaning) = meaning(&wasi::OFFERED, wanted.name) {
        return match wanted.version {
            Some((0, 2)) => Ok(meaning),
            _ => Err(format!("it wants {import}, this host offers WASI 0.2: build it with --target wasm32-wasip2")),
        };
    }
    Err(refusal(&wanted, import))
}

fn meaning(offered: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    offered.iter().find(|(interface, _)| *interface == name).map(|(_, meaning)| *meaning)
}

/// Why an import is not offered, by what it would allow.
fn refusal(wanted: &Interface<'_>, import: &str) -> String {
    let instead = "take out whatever uses it";
    match wanted.package {
        "wasi:filesystem" => format!(
            "it wants {import}, but a plugin has no files: read with `cx.get`, put data into `spec.settings`, and {instead}"
        ),
        "wasi:sockets" => format!("it wants {import}, but a plugin has no network: read with `cx.get`, and {instead}"),
        "wasi:http" => format!("it wants {import}, but a plugin makes no HTTP requests: read with `cx.get`, and {instead}"),
        _ => format!("it wants {import}, which this host does not offer: {instead}"),
    }
}

/// Whether it has what this host calls.
pub(super) fn exported(exports: &[String]) -> Result<(), String> {
    let (major, minor) = VERSION;
    let ours = format!("{PACKAGE}/reconciler@{major}.{minor}.0");
    let all: Vec<Interface<'_>> = exports.iter().map(|export| Interface::parse(export)).collect();
    let Some(export) = all.iter().find(|export| export.package == PACKAGE && export.interface == "reconciler") else {
        let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        return Err(format!(
            "it exports no reconciler: this host calls {ours}, it exports {found}; add the `plugin!` line of the SDK"
        ));
    };
    match export.version {
        Some(VERSION) => Ok(()),
        Some((x, y)) => {
            Err(format!("it exports reconciler@{x}.{y}, this host calls {ours}: build it with the SDK of this host's version"))
        }
        None => Err(format!("it exports a reconciler without a version, this host calls {ours}")),
    }
}
