//! The host's configuration: flag, else environment, else file, else default.
//!
//! Flags and environment are one clap struct; a file is a flat YAML map with the flags' long names as keys, laid
//! under them. Unknown keys are refused, so that a typo never means "default".

use std::{collections::BTreeMap, ffi::OsString, fs, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, FromArgMatches as _, ValueEnum, parser::ValueSource};

use crate::names::{Memory, Span};

/// A shorter period is a typo (`0`), and would be a storm.
const SHORTEST: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Configuration of `reef host`.
#[derive(Debug, Clone, Args)]
pub struct HostConfig {
    /// A YAML file with these options as keys (`plugin-dir: /plugins`); flags and environment win over it.
    #[arg(long, env = "REEF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Kubeconfig file. Default: $KUBECONFIG, ~/.kube/config, or the pod's ServiceAccount.
    #[arg(long, env = "REEF_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig. Default: its current context.
    #[arg(long, env = "REEF_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,

    /// Serve the Plugin resources of this class.
    #[arg(long, env = "REEF_CLASS_NAME", value_name = "NAME", default_value = "reef")]
    pub class_name: String,

    /// Directory of component files; `spec.source.file` is relative to it.
    #[arg(long, env = "REEF_PLUGIN_DIR", value_name = "DIR", default_value = "/plugins")]
    pub plugin_dir: PathBuf,

    /// Directory for compiled components and for what came from registries. It must be private to this host: what it holds is native code.
    #[arg(long, env = "REEF_CACHE_DIR", value_name = "DIR", default_value = "/var/cache/reef")]
    pub cache_dir: PathBuf,

    /// A YAML file that says which components may run in which namespace, and who must have signed them (docs/trust.md). It is
    /// read again when it changes. Default: none, and everything may run.
    #[arg(long, env = "REEF_TRUST_POLICY", value_name = "FILE")]
    pub trust_policy: Option<PathBuf>,

    /// A YAML file about registries: mirrors, certificate authorities, plain http. It is read again when it changes.
    #[arg(long, env = "REEF_REGISTRIES_FILE", value_name = "FILE")]
    pub registries_file: Option<PathBuf>,

    /// How long a registry may take for a small answer, or pause in a large one; a component may take ten times as long.
    #[arg(long, env = "REEF_REGISTRY_TIMEOUT", value_name = "DURATION", default_value = "30s")]
    pub registry_timeout: Span,

    /// What the content cache, below the cache directory, may hold of what came from registries. What was used longest ago
    /// goes first.
    #[arg(long, env = "REEF_CONTENT_CACHE_BUDGET", value_name = "MEMORY", default_value = "512Mi")]
    pub content_cache_budget: Memory,

    /// Where /livez, /readyz and /metrics are served. Port 0 takes a free one; the log says which.
    #[arg(long, env = "REEF_ADMIN_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub admin_address: SocketAddr,

    /// Namespace of the leader lease.
    #[arg(long, env = "REEF_LEASE_NAMESPACE", value_name = "NAMESPACE", default_value = "reef-system")]
    pub lease_namespace: String,

    /// Name of the leader lease. Default: `reef-` and the class name.
    #[arg(long, env = "REEF_LEASE_NAME", value_name = "NAME")]
    pub lease_name: Option<String>,

    /// How long a lease lasts that is not renewed.
    #[arg(long, env = "REEF_LEASE_DURATION", value_name = "DURATION", default_value = "15s")]
    pub lease_duration: Span,

    /// How long a leader goes on without a successful renewal. Less than the lease's duration.
    #[arg(long, env = "REEF_LEASE_RENEW_DEADLINE", value_name = "DURATION", default_value = "10s")]
    pub lease_renew_deadline: Span,

    /// Between two attempts to take or renew the lease.
    #[arg(long, env = "REEF_LEASE_RETRY_PERIOD", value_name = "DURATION", default_value = "2s")]
    pub lease_retry_period: Span,

    /// How often rights and waiting plugins are checked again.
    #[arg(long, env = "REEF_RECHECK_PERIOD", value_name = "DURATION", default_value = "30s")]
    pub recheck_period: Span,

    /// What the cache may hold, over all plugins. What does not fit is not read, and the plugins that need it say so.
    #[arg(long, env = "REEF_CACHE_BUDGET", value_name = "MEMORY", default_value = "1Gi")]
    pub cache_budget: Memory,

    /// How often everything in the cache is read anew at least, lest an event that was never sent stays missed; up to twice
    /// as long, by chance, so that not all is read at once.
    #[arg(long, env = "REEF_RELIST_PERIOD", value_name = "DURATION", default_value = "1h")]
    pub relist_period: Span,

    /// A watch that says nothing for so long is taken for dead. More than a minute, which is how often a quiet one gives a
    /// sign of life.
    #[arg(long, env = "REEF_WATCH_IDLE_TIMEOUT", value_name = "DURATION", default_value = "90s")]
    pub watch_idle_timeout: Span,

    /// Reconciles in flight at most, over all plugins.
    #[arg(long, env = "REEF_MAX_IN_FLIGHT", value_name = "N", default_value = "128",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_in_flight: u32,

    /// Deadline of one request to the API server.
    #[arg(long, env = "REEF_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    pub request_timeout: Span,

    /// How long a stopping host waits for reconciles in flight.
    #[arg(long, env = "REEF_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "20s")]
    pub drain_timeout: Span,

    /// How the log is written.
    #[arg(long, env = "REEF_LOG_FORMAT", value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: a level, or `reef=debug,warn` and the like.
    #[arg(long, env = "REEF_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("config file {file}: {message}")]
    Unreadable { file: String, message: String },
    #[error("config file {file}: unknown key `{key}`: it is not an option of `reef host`; see `reef host --help`")]
    UnknownKey { file: String, key: String },
    #[error("config file {file}: `{key}` is not a text, number or boolean")]
    NotScalar { file: String, key: String },
    #[error("{0}")]
    Invalid(String),
    /// Wrong flags: clap's own message, which names flag, value and fix.
    #[error(transparent)]
    Usage(#[from] clap::Error),
}

#[derive(clap::Parser)]
struct Alone {
    #[command(flatten)]
    config: HostConfig,
}

impl HostConfig {
    /// Lays the file under flags and environment: whatever those leave at its default is taken from the file, by
    /// parsing again with the file's values as flags in front. So a value has one syntax wherever it stands.
    pub fn with_file(self, matches: &clap::ArgMatches) -> Result<Self, ConfigError> {
        let config = match &self.config {
            Some(path) => {
                let file = path.display().to_string();
                let text = fs::read_to_string(path)
                    .map_err(|e| ConfigError::Unreadable { file: file.clone(), message: e.to_string() })?;
                self.under(&file, &text, matches)?
            }
            None => self,
        };
        config.validate()
    }

    fn under(&self, file: &str, text: &str, matches: &clap::ArgMatches) -> Result<Self, ConfigError> {
        let unreadable = |e: serde_norway::Error| ConfigError::Unreadable { file: file.into(), message: e.to_string() };
        let values: BTreeMap<String, serde_json::Value> = match text.trim() {
            "" => BTreeMap::new(),
            text => serde_norway::from_str(text).map_err(unreadable)?,
        };
        let command = Alone::command();
        let mut words: Vec<OsString> = vec!["reef host".into()];
        for argument in command.get_arguments() {
            let (Some(long), id) = (argument.get_long(), argument.get_id().as_str()) else { continue };
            let set = matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
            let raw = matches.try_get_raw(id).ok().flatten().and_then(|mut values| values.next());
            if let (true, Some(value)) = (set, raw) {
                words.push(format!("--{long}").into());
                words.push(value.to_owned());
            } else if let Some(value) = values.get(long) {
                words.push(format!("--{long}={}", scalar(file, long, value)?).into());
            }
        }
        let known = |key: &str| key != "config" && command.get_arguments().any(|a| a.get_long() == Some(key));
        if let Some(key) = values.keys().find(|key| !known(key)) {
            return Err(ConfigError::UnknownKey { file: file.into(), key: key.clone() });
        }
        let mut matches = command.try_get_matches_from(words).map_err(|error| wrong_value(file, &error))?;
        Ok(Alone::from_arg_matches_mut(&mut matches)?.config)
    }

    fn validate(self) -> Result<Self, ConfigError> {
        name("class-name", &self.class_name, 63, "")?;
        name("lease-namespace", &self.lease_namespace, 63, "")?;
        name("lease-name", &self.lease_name(), 253, ".")?;
        for (key, span) in [
            ("recheck-period", self.recheck_period),
            ("request-timeout", self.request_timeout),
            ("registry-timeout", self.registry_timeout),
            ("drain-timeout", self.drain_timeout),
        ] {
            if span.0 < SHORTEST {
                return Err(ConfigError::Invalid(format!("{key} ({span}) is too short: use at least {}", Span(SHORTEST))));
            }
        }
        let (lease, renew, retry) = (self.lease_duration, self.lease_renew_deadline, self.lease_retry_period);
        if lease <= renew || renew.0 <= retry.0.mul_f64(1.2) || retry.0 < Duration::from_millis(10) {
            return Err(ConfigError::Invalid(format!(
                "lease-duration ({lease}) must be longer than lease-renew-deadline ({renew}), and that longer than 1.2 × \
                 lease-retry-period ({retry})"
            )));
        }
        for (flag, value) in [("relist-period", self.relist_period), ("watch-idle-timeout", self.watch_idle_timeout)] {
            if value.0 < Duration::from_secs(1) {
                return Err(ConfigError::Invalid(format!("{flag} ({value}) must be at least 1s")));
            }
        }
        Ok(self)
    }

    pub fn lease_name(&self) -> String {
        self.lease_name.clone().unwrap_or_else(|| format!("reef-{}", self.class_name))
    }
}

/// As Kubernetes names things: a label, or a subdomain if dots are allowed.
fn name(key: &str, value: &str, longest: usize, dots: &str) -> Result<(), ConfigError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = value.len() <= longest
        && value.starts_with(inner)
        && value.ends_with(inner)
        && value.chars().all(|c| inner(c) || c == '-' || dots.contains(c));
    if fits {
        return Ok(());
    }
    Err(ConfigError::Invalid(format!(
        "{key}: `{value}` is not a name: use at most {longest} of a-z, 0-9{} and `-`, with a letter or digit at both ends",
        if dots.is_empty() { "" } else { ", `.`" }
    )))
}

/// Flags were parsed before, so what is wrong stands in the file: clap's sentence without its advice about flags.
fn wrong_value(file: &str, error: &clap::Error) -> ConfigError {
    let text = error.to_string();
    let sentence = text.lines().next().unwrap_or_default();
    let message = sentence.strip_prefix("error: ").unwrap_or(sentence).to_owned();
    ConfigError::Unreadable { file: file.into(), message }
}

fn scalar(file: &str, key: &str, value: &serde_json::Value) -> Result<String, ConfigError> {
    match value {
        serde_json::Value::String(text) => Ok(text.clone()),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Ok(value.to_string()),
        _ => Err(ConfigError::NotScalar { file: file.into(), key: key.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, words: &[&str]) -> Result<HostConfig, ConfigError> {
        let path = tempfile::NamedTempFile::new().unwrap();
        fs::write(path.path(), file).unwrap();
        let words = ["reef host", "--config", path.path().to_str().unwrap()].into_iter().chain(words.iter().copied());
        let matches = Alone::command().try_get_matches_from(words).unwrap();
        Alone::from_arg_matches(&matches).unwrap().config.with_file(&matches)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let config =
            load("class-name: from-file\nlease-namespace: from-file\nmax-in-flight: 7\n", &["--class-name", "from-flag"])
                .unwrap();
        assert_eq!(config.class_name, "from-flag");
        assert_eq!(config.lease_namespace, "from-file");
        assert_eq!(config.max_in_flight, 7);
        assert_eq!(config.lease_duration.to_string(), "15s");
    }

    #[test]
    fn an_unknown_key_and_a_wrong_value_are_named() {
        assert!(load("clas-name: x\n", &[]).unwrap_err().to_string().contains("unknown key `clas-name`"));
        let error = load("lease-duration: soon\n", &[]).unwrap_err().to_string();
        assert!(error.contains("--lease-duration") && error.contains("`soon`"), "{error}");
        assert!(load("recheck-period: 0s\n", &[]).unwrap_err().to_string().contains("is too short: use at least 100ms"));
        assert!(load("class-name: Reef_1\n", &[]).unwrap_err().to_string().contains("class-name: `Reef_1` is not a name"));
        assert!(load("lease-name: a/b\n", &[]).unwrap_err().to_string().contains("lease-name: `a/b` is not a name"));
        assert!(load("lease-duration: 5s\n", &[]).unwrap_err().to_string().contains("lease-renew-deadline (10s)"));
    }
}
