//! A registry as `reef push` and `reef pull` come to it: address, trust, credentials.
//!
//! Credentials come from the command line, or from the entries of docker's config file; the helpers that it may name are
//! not run.

use std::{
    env, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, ValueHint};

use crate::{
    names::Span,
    source::{
        SourceError,
        keyring::Keyring,
        reference::Reference,
        registry::{self, Credential, Downloads, Registry, RegistryError, Wire},
    },
};

/// Nobody's password is longer.
const LONGEST_PASSWORD: u64 = 64 << 10;

#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// Log in as this user; the password comes with --password-stdin. Default: what docker's config file has for the registry.
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from standard input.
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// The registry speaks http without TLS.
    #[arg(long)]
    plain_http: bool,
    /// PEM file of authorities to trust, beside the system's.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "plain_http")]
    ca_file: Option<PathBuf>,
    /// How long the registry may take for a small answer; a component may take ten times as long.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    registry_timeout: Span,
}

impl RemoteArgs {
    /// A registry for each credential that may be meant, in the order in which they are to be tried.
    pub fn open(&self, reference: &Reference) -> anyhow::Result<Vec<Registry>> {
        let bundle = match &self.ca_file {
            Some(path) => vec![fs::read(path).with_context(|| format!("--ca-file: cannot read {}", path.display()))?],
            None => Vec::new(),
        };
        let wire = Wire::new(&bundle, self.registry_timeout.0).map_err(|why| anyhow!("--ca-file: {why}"))?;
        let scheme = if self.plain_http { "http" } else { "https" };
        let downloads = Downloads::default();
        let open = |credential| {
            let endpoint = registry::endpoint(wire.clone(), scheme, reference, credential)?;
            Ok(Registry::new(vec![endpoint], &downloads))
        };
        self.credentials(reference)?.into_iter().map(open).collect::<Result<_, RegistryError>>().map_err(Into::into)
    }

    fn credentials(&self, reference: &Reference) -> anyhow::Result<Vec<Credential>> {
        if let Some(user) = &self.username {
            return Ok(vec![Credential::Basic { user: user.clone(), password: password()? }]);
        }
        let mut found = match docker_config() {
            Some(path) if path.is_file() => {
                let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                Keyring::of_config(&text).map_err(|why| anyhow!("{}: {why}", path.display()))?.matching(reference)
            }
            _ => Vec::new(),
        };
        if found.is_empty() {
            found.push(Credential::Anonymous);
        }
        Ok(found)
    }
}

fn password() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(LONGEST_PASSWORD).read_to_string(&mut text).context("--password-stdin: cannot read it")?;
    let password = text.trim_end_matches(['\r', '\n']).to_owned();
    ensure!(
        !password.is_empty(),
        "--password-stdin: standard input is empty: pipe the password, as in `printf %s \"$PASSWORD\" | reef push …`"
    );
    Ok(password)
}

fn docker_config() -> Option<PathBuf> {
    let dir = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".docker")))?;
    Some(dir.join("config.json"))
}

/// Without the field of a `Plugin` that a host would name.
pub fn plain(error: SourceError) -> anyhow::Error {
    match error {
        SourceError::Registry { image, error } => anyhow!("{image}: {error}"),
        SourceError::Layout { image, error } => anyhow!("{image}: {error}"),
        other => other.into(),
    }
}

/// The commands wait for one answer at a time.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
