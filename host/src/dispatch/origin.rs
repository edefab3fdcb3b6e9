//! What a steward knows of its plugin's source: what was fetched last, when it looks again, and what is pinned.
//!
//! A registry is asked rarely: once for what a tag means, which is then pinned in the status, and after a failure not before
//! the registry's own `Retry-After` or a growing wait are over, whatever else wakes the steward.

use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::{
    catalog::{
        Desired, Source,
        crd::{Pinned, Plugin},
    },
    names::{Account, Digest},
    source::{
        Candidate, Image, SourceError,
        config_map::{self, ConfigMapSource},
        file::{FileSource, Signature},
        oci::{OciSource, PullPolicy},
        reference::Reference,
    },
    status::CameFrom,
};

/// How often the component's file is looked at: one `stat`.
const FILE_POLL: Duration = Duration::from_millis(500);
/// How often a ConfigMap's metadata is asked for: one GET, some 1 ms of an API server.
const CONFIG_MAP_POLL: Duration = Duration::from_secs(5);
/// The first wait after a registry has failed; it doubles up to the recheck period.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What the source has.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub(super) enum Brought {
    /// What runs already.
    Same,
    /// Something to be looked into.
    New(Candidate),
}

#[derive(Default)]
pub(super) struct Origin {
    seen: Option<Seen>,
    pulled: Option<Pulled>,
}

/// What the last fetch was of.
enum Seen {
    File { source: FileSource, signature: Option<Signature> },
    ConfigMap { source: ConfigMapSource, state: Option<config_map::State>, digest: Option<Digest> },
}

/// What is known of an image.
struct Pulled {
    source: OciSource,
    generation: i64,
    /// What the image stood for, and the component in it.
    pin: Option<(Image, Digest)>,
    /// When it was last resolved.
    resolved: Instant,
    failed: Option<Failed>,
}

struct Failed {
    /// `None`: it came well, but cannot be loaded.
    error: Option<SourceError>,
    look: Look,
    until: Instant,
    wait: Duration,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// What the image stands for now.
    Image,
    /// What is pinned.
    Pin,
}

impl Origin {
    /// The component that is wanted. `running`: the one that runs.
    pub(super) async fn fetch(
        &mut self,
        shared: &Shared,
        plugin: &Plugin,
        desired: &Desired,
        running: Option<Digest>,
    ) -> Result<Brought, SourceError> {
        if !matches!(desired.source, Source::Oci(_)) {
            self.pulled = None;
        }
        let seen = self.seen.take();
        match &desired.source {
            Source::File(file) => self.file(shared, file).await,
            Source::ConfigMap(source) => self.config_map(shared, source, running, seen).await,
            Source::Oci(source) => {
                let pulled = self.pulled.take().map(|known| known.carried(source, desired.generation));
                let pulled = self.pulled.insert(pulled.unwrap_or_else(|| Pulled::new(source, plugin, desired.generation)));
                pulled.fetch(shared, &desired.account, running).await
            }
        }
    }

    async fn file(&mut self, shared: &Shared, file: &str) -> Result<Brought, SourceError> {
        let source = FileSource::new(&shared.options.plugin_dir, file)?;
        let signature = source.signature().await;
        let fetched = source.fetch().await;
        let signature = fetched.as_ref().map_or(signature, |fetched| Some(fetched.signature));
        self.seen = Some(Seen::File { source, signature });
        let fetched = fetched?;
        Ok(Brought::New(Candidate { digest: fetched.digest, bytes: fetched.bytes, image: None }))
    }

    async fn config_map(
        &mut self,
        shared: &Shared,
        source: &ConfigMapSource,
        running: Option<Digest>,
        seen: Option<Seen>,
    ) -> Result<Brought, SourceError> {
        // It is up to a mebibyte: its metadata says whether it is as it was.
        if let Some(Seen::ConfigMap { source: known, state: Some(state), digest }) = &seen
            && known == source
            && running.is_some()
            && *digest == running
            && source.state(&shared.api).await.as_ref() == Some(state)
        {
            self.seen = seen;
            return Ok(Brought::Same);
        }
        let fetched = source.fetch(&shared.api).await;
        let state = match &fetched {
            Ok(fetched) => Some(fetched.state.clone()),
            Err(_) => source.state(&shared.api).await,
        };
        let digest = fetched.as_ref().ok().map(|fetched| fetched.digest);
        self.seen = Some(Seen::ConfigMap { source: source.clone(), state, digest });
        let fetched = fetched?;
        if running == Some(fetched.digest) {
            return Ok(Brought::Same);
        }
        Ok(Brought::New(Candidate { digest: fetched.digest, bytes: fetched.bytes, image: None }))
    }

    /// Returns when the source may have something else.
    pub(super) async fn changed(&self, shared: &Shared) {
        match (&self.seen, &self.pulled) {
            (Some(Seen::File { source, signature }), _) => {
                while source.signature().await == *signature {
                    tokio::time::sleep(FILE_POLL).await;
                }
            }
            (Some(Seen::ConfigMap { source, state, .. }), _) => loop {
                tokio::time::sleep(CONFIG_MAP_POLL).await;
                if source.state(&shared.api).await != *state {
                    return;
                }
            },
            (None, Some(pulled)) => match pulled.due() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            },
            (None, None) => std::future::pending().await,
        }
    }

    /// What came cannot be loaded: a tag that was moved away from it is seen.
    pub(super) fn unfit(&mut self, recheck: Duration) {
        if let Some(pulled) = &mut self.pulled {
            pulled.fail(None, Look::Image, recheck);
        }
    }

    /// What came was loaded.
    pub(super) fn fit(&mut self) {
        if let Some(pulled) = &mut self.pulled {
            pulled.failed = None;
        }
    }

    /// Where this component, which runs, came from.
    pub(super) fn of(&self, running: Digest) -> CameFrom {
        let Some(pulled) = &self.pulled else {
            return if self.seen.is_some() { CameFrom::Elsewhere } else { CameFrom::Unknown };
        };
        match &pulled.pin {
            Some((image, component)) if *component == running => {
                let from = pulled.source.image.to_string();
                CameFrom::Image(image.pinned.to_string(), Pinned { from, generation: pulled.generation })
            }
            _ => CameFrom::Unknown,
        }
    }

    /// The digest that is pinned, for people.
    pub(super) fn manifest(&self) -> Option<String> {
        let (image, _) = self.pulled.as_ref()?.pin.as_ref()?;
        Some(image.manifest.to_string())
    }

    /// What the image stood for when it was last resolved.
    pub(super) fn image(&self) -> Option<Image> {
        self.pulled.as_ref()?.pin.as_ref().map(|(image, _)| image.clone())
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// What ran last, as the status says, from the content cache: for a host that has started without its registry.
pub(super) async fn last_good(shared: &Shared, plugin: &Plugin) -> Option<Candidate> {
    let status = plugin.status.as_ref()?;
    let image: Reference = status.image.as_ref()?.parse().ok()?;
    let digest: Digest = status.digest.as_ref()?.parse().ok()?;
    let found = shared.oci.cached(&image, image.digest()?).await?;
    (found.digest == digest).then_some(found)
}

impl Pulled {
    /// Begins with what the status says, if that was resolved from the same image.
    fn new(source: &OciSource, plugin: &Plugin, generation: i64) -> Self {
        let pin = plugin.status.as_ref().and_then(|status| {
            let pinned = status.pinned.as_ref()?;
            let stays = source.policy != PullPolicy::Always || pinned.generation == generation;
            let image: Reference = status.image.as_ref()?.parse().ok()?;
            let is_of_it = pinned.from == source.image.to_string() && image.place() == source.image.place();
            let component: Digest = status.digest.as_ref()?.parse().ok()?;
            let manifest = image.digest().filter(|_| stays && is_of_it)?;
            Some((Image { pinned: image, manifest }, component))
        });
        Self { source: source.clone(), generation, pin, resolved: Instant::now(), failed: None }
    }

    /// The same, after the resource has changed.
    fn carried(self, source: &OciSource, generation: i64) -> Self {
        if self.generation == generation && self.source == *source {
            return self;
        }
        let stays = source.policy != PullPolicy::Always && self.source.image == source.image;
        // Somebody has done something about it: it is tried at once.
        Self { source: source.clone(), generation, pin: self.pin.filter(|_| stays), resolved: self.resolved, failed: None }
    }

    /// When it is to be looked at next, if nobody asks before.
    fn due(&self) -> Option<Instant> {
        match (&self.failed, self.source.poll) {
            (Some(failed), _) => Some(failed.until),
            (None, Some(poll)) => Some(self.resolved + poll),
            (None, None) => None,
        }
    }

    fn fail(&mut self, error: Option<SourceError>, look: Look, recheck: Duration) {
        // What cannot be loaded is tried whenever the steward wakes; the next look does not recede because of that.
        if error.is_none() && self.failed.as_ref().is_some_and(|failed| Instant::now() < failed.until) {
            return;
        }
        let wait = self.failed.as_ref().map_or(FIRST_WAIT, |failed| failed.wait * 2).min(recheck.max(FIRST_WAIT));
        let asked = error.as_ref().and_then(SourceError::retry_after).unwrap_or_default();
        self.failed = Some(Failed { error, look, until: Instant::now() + wait.max(asked), wait });
    }

    async fn fetch(&mut self, shared: &Shared, account: &Account, running: Option<Digest>) -> Result<Brought, SourceError> {
        let now = Instant::now();
        let waits = self.failed.as_ref().filter(|failed| now < failed.until);
        if let Some(Failed { error: Some(error), .. }) = waits {
            return Err(error.clone());
        }
        let polled = self.source.poll.is_some_and(|poll| now >= self.resolved + poll);
        let failed = self.failed.as_ref().is_some_and(|failed| failed.look == Look::Image);
        let pin = self.pin.clone().filter(|_| waits.is_some() || !(failed || polled));
        let (look, found) = match pin {
            Some((image, component)) if running == Some(component) => {
                for digest in [component, image.manifest] {
                    shared.oci.store.keep(&image.pinned.place(), digest).await;
                }
                return Ok(Brought::Same);
            }
            Some((image, _)) => (Look::Pin, shared.oci.pinned(&shared.api, account, &self.source, image.manifest).await),
            None => (Look::Image, shared.oci.resolve(&shared.api, account, &self.source).await),
        };
        self.judge(look, found, running, shared.options.recheck)
    }

    fn judge(
        &mut self,
        look: Look,
        found: Result<Candidate, SourceError>,
        running: Option<Digest>,
        recheck: Duration,
    ) -> Result<Brought, SourceError> {
        let candidate = found.inspect_err(|error| self.fail(Some(error.clone()), look, recheck))?;
        if look == Look::Image {
            self.resolved = Instant::now();
        }
        self.pin = candidate.image.clone().map(|image| (image, candidate.digest));
        let runs = running == Some(candidate.digest);
        // A component that came before and cannot be loaded keeps its wait.
        if runs || self.failed.as_ref().is_some_and(|failed| failed.error.is_some()) {
            self.failed = None;
        }
        if runs { Ok(Brought::Same) } else { Ok(Brought::New(candidate)) }
    }
}
