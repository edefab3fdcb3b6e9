//! All metrics of the host, in one table, and their text.
//!
//! Names and labels are controller-runtime's where they mean the same, so that dashboards and alerts fit; `controller` and
//! `name` are namespace and name of a plugin. It knows no other room: whoever does something counts it.

use std::collections::HashSet;

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, MetricVec, MetricVecBuilder},
};

/// Seconds, from half a millisecond to a minute.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

macro_rules! table {
    ($($field:ident: $kind:ident, $name:literal, $labels:expr, $help:literal;)*) => {
        /// Clones count into the same metrics.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        /// Every metric that there is.
        pub const TABLE: &[Row] = &[$(Row { name: $name, help: $help, labels: &$labels },)*];

        impl Metrics {
            /// Fails only if two lines of the table contradict each other.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(
                    let $field = $kind::from_row(&Row { name: $name, help: $help, labels: &$labels })?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field,)* })
            }

            /// A plugin is gone: so are its series.
            pub fn forget(&self, plugin: &str) {
                $(forget(&self.$field, plugin);)*
            }
        }
    };
}

table! {
    reconciles: IntCounterVec, "controller_runtime_reconcile_total", ["controller", "result"],
        "Reconciles by plugin and result: success, requeue_after, requeue, error.";
    reconcile_errors: IntCounterVec, "controller_runtime_reconcile_errors_total", ["controller"],
        "Reconciles by plugin that ended in an error.";
    terminal_errors: IntCounterVec, "controller_runtime_terminal_reconcile_errors_total", ["controller"],
        "Reconciles by plugin that ended in an error that waits for a change.";
    panics: IntCounterVec, "controller_runtime_reconcile_panics_total", ["controller"],
        "Reconciles by plugin in which the plugin panicked.";
    reconcile_seconds: HistogramVec, "controller_runtime_reconcile_time_seconds", ["controller"],
        "How long a reconcile took, writes included.";
    active_workers: IntGaugeVec, "controller_runtime_active_workers", ["controller"],
        "Reconciles of a plugin that run now.";
    max_concurrent: IntGaugeVec, "controller_runtime_max_concurrent_reconciles", ["controller"],
        "Reconciles of a plugin that may run at once.";
    queue_depth: IntGaugeVec, "workqueue_depth", ["name"],
        "Keys of a plugin that wait for their turn.";
    queue_adds: IntCounterVec, "workqueue_adds_total", ["name"],
        "Keys of a plugin that were added to the queue.";
    queue_retries: IntCounterVec, "workqueue_retries_total", ["name"],
        "Keys of a plugin that were added again after a failure.";
    queue_seconds: HistogramVec, "workqueue_queue_duration_seconds", ["name"],
        "How long a key waited in the queue.";
    requests: IntCounterVec, "rest_client_requests_total", ["code", "method", "host"],
        "Requests to the API server by code, `<error>` where there was no answer.";
    leading: IntGaugeVec, "leader_election_master_status", ["name"],
        "1 while this process holds the lease, else 0.";
    build: IntGaugeVec, "reef_build_info", ["version"],
        "1; the version that runs is in the label.";
    trust_policy: IntGaugeVec, "reef_trust_policy_current", ["file"],
        "1 while the newest version of the trust policy is in force, 0 while it is not valid and the one before stays.";
    registries_file: IntGaugeVec, "reef_registries_file_current", ["file"],
        "1 while the newest version of the registries file is in force, 0 while it is not valid and the one before stays.";
    verified: IntGaugeVec, "reef_plugin_verified", ["controller"],
        "1 while the component that a plugin asks for may run as the trust policy says, else 0.";
    failing: IntGaugeVec, "reef_plugin_failing_objects", ["controller"],
        "Objects of a plugin whose last reconcile failed.";
    braked: IntGaugeVec, "reef_plugin_braked_objects", ["controller"],
        "Objects of a plugin that run more seldom than they are woken, because they write again and again.";
    slowed: IntGaugeVec, "reef_plugin_slowed", ["controller"],
        "1 while a plugin runs slower because the API server turns its requests away, else 0.";
    pushbacks: IntCounterVec, "reef_pushbacks_total", ["controller"],
        "Requests made for a plugin that the API server turned away or failed: 429, 5xx, no answer.";
    writes: IntCounterVec, "reef_writes_total", ["controller"],
        "Requests made for a plugin to write something, accepted or not.";
    ended: IntCounterVec, "reef_sandbox_ended_total", ["controller", "reason"],
        "Reconciles that the sandbox ended, by reason.";
    sandbox_seconds: HistogramVec, "reef_sandbox_duration_seconds", ["controller"],
        "How long a plugin's code ran, its reads included.";
    sandbox_cpu: GaugeVec, "reef_sandbox_cpu_seconds_total", ["controller"],
        "Processor time of a plugin's code.";
    scope_objects: IntGaugeVec, "reef_cache_objects", ["kind", "namespace"],
        "Objects in the cache.";
    scope_bytes: IntGaugeVec, "reef_cache_bytes", ["kind", "namespace"],
        "Bytes of the objects in the cache.";
    scope_synced: IntGaugeVec, "reef_cache_synced", ["kind", "namespace"],
        "1 while the cache is complete and watched, else 0.";
    quarantined: IntGaugeVec, "reef_cache_quarantined_objects", ["kind", "namespace"],
        "Objects that cannot be decoded and are left out.";
}

/// Labels that hold the name of a plugin.
const PLUGIN_LABELS: [&str; 2] = ["controller", "name"];

impl Metrics {
    /// The text that Prometheus scrapes.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }

    /// Counts the requests to one API server, as the transport reports them.
    pub fn request_observer(&self, host: &str) -> impl Fn(&http::Method, Option<u16>) + Send + Sync + 'static {
        let (requests, host) = (self.requests.clone(), host.to_string());
        move |method, code| {
            let code = code.map_or_else(|| "<error>".to_string(), |code| code.to_string());
            requests.with_label_values(&[code.as_str(), method.as_str(), &host]).inc();
        }
    }
}

trait FromRow: Sized {
    fn from_row(row: &Row) -> Result<Self, prometheus::Error>;
}

impl FromRow for IntCounterVec {
    fn from_row(row: &Row) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(row.name, row.help), row.labels)
    }
}

impl FromRow for IntGaugeVec {
    fn from_row(row: &Row) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(row.name, row.help), row.labels)
    }
}

impl FromRow for GaugeVec {
    fn from_row(row: &Row) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(row.name, row.help), row.labels)
    }
}

impl FromRow for HistogramVec {
    fn from_row(row: &Row) -> Result<Self, prometheus::Error> {
        Self::new(HistogramOpts::new(row.name, row.help).buckets(SECONDS.to_vec()), row.labels)
    }
}

/// Drops the series that have the plugin's name in a label that holds one.
fn forget<T: MetricVecBuilder>(metric: &MetricVec<T>, plugin: &str)
where
    MetricVec<T>: Collector,
{
    let Some(desc) = metric.desc().into_iter().next().cloned() else { return };
    if !desc.variable_labels.iter().any(|l| PLUGIN_LABELS.contains(&l.as_str())) {
        return;
    }
    let mut series = HashSet::new();
    for family in metric.collect() {
        for one in family.get_metric() {
            let value = |label: &String| one.get_label().iter().find(|l| l.name() == label).map(|l| l.value().to_string());
            let values: Vec<String> = desc.variable_labels.iter().filter_map(value).collect();
            let named = |(label, value): (&String, &String)| PLUGIN_LABELS.contains(&label.as_str()) && value == plugin;
            if desc.variable_labels.iter().zip(&values).any(named) {
                series.insert(values);
            }
        }
    }
    for values in series {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        // It is gone already if somebody else was faster.
        let _ = metric.remove_label_values(&values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent_and_everything_in_it_explains_itself() {
        Metrics::new().unwrap();
        let names: HashSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for row in TABLE {
            assert!(row.help.ends_with('.') && !row.labels.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn the_text_is_prometheus() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciles.with_label_values(&["a/hello", "success"]).inc();
        metrics.request_observer("api:6443")(&http::Method::GET, None);
        let text = metrics.text().unwrap();
        assert!(text.contains("# TYPE controller_runtime_reconcile_total counter"), "{text}");
        assert!(text.contains(r#"controller_runtime_reconcile_total{controller="a/hello",result="success"} 1"#), "{text}");
        assert!(text.contains(r#"rest_client_requests_total{code="<error>",host="api:6443",method="GET"} 1"#), "{text}");
    }

    #[test]
    fn a_plugin_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new().unwrap();
        for plugin in ["a/hello", "b/other"] {
            metrics.writes.with_label_values(&[plugin]).inc();
            metrics.ended.with_label_values(&[plugin, "Panicked"]).inc();
            metrics.queue_seconds.with_label_values(&[plugin]).observe(0.1);
        }
        metrics.leading.with_label_values(&["reef"]).set(1);
        metrics.forget("a/hello");
        let text = metrics.text().unwrap();
        assert!(!text.contains("a/hello") && text.contains("b/other") && text.contains("master_status"), "{text}");
    }
}
