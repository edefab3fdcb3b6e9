//! A proxy between host and API server that does to requests what networks, load balancers and API servers do.
//!
//! It speaks HTTP/2 over TLS with a certificate of its own authority; the kubeconfig that it writes points to it and trusts that
//! authority. Rules (see [`rules`]) say what happens to which request, [`Chaos`] does it by seed; both can change while it
//! runs. It numbers writes, counts every fault that took effect, and kills the host when a rule says so.

mod book;
mod chaos;
mod events;
mod exchange;
pub mod rules;
mod what;
mod wire;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use http::Uri;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::AbortHandle,
};

pub use book::Line;
pub use chaos::Chaos;
use rules::Rule;

use crate::{
    certificates::{Authority, Identity},
    cluster::hang_bound,
    control_plane::{ControlPlane, kubeconfig},
};

/// How long a host that is to be killed after an answer gets to read it, if it has no further question.
const GRACE: Duration = Duration::from_millis(50);

/// Kills the host; gone when it returns.
type Killer = Arc<dyn Fn() + Send + Sync>;

pub struct Proxy {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
    server: AbortHandle,
}

struct Shared {
    wire: wire::Wire,
    base: Uri,
    book: Arc<book::Book>,
    open: Mutex<Vec<Weak<wire::Connection>>>,
    killer: Mutex<Option<Killer>>,
    killed: watch::Sender<u64>,
    /// A request came while the host is to be killed.
    waiting: Notify,
}

impl Proxy {
    /// Writes `proxy.kubeconfig` for the host's own user into a directory. No rules yet: everything goes through.
    pub async fn start(plane: &ControlPlane, dir: &Path) -> Result<Self> {
        let read = |name: &str| fs::read_to_string(plane.dir().join(name)).with_context(|| format!("cannot read {name}"));
        let user = Identity { certificate: read("host.crt")?, key: read("host.key")? };
        let authority = Authority::new()?;
        let credentials = wire::Credentials { authority: read("ca.crt")?, server: authority.server()?, user: user.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let kubeconfig_path = dir.join("proxy.kubeconfig");
        let url = format!("https://{}", listener.local_addr()?);
        fs::write(&kubeconfig_path, kubeconfig(&authority.pem, &url, "host", &user)?)?;
        let shared = Arc::new(Shared {
            wire: wire::Wire::new(&credentials)?,
            base: plane.url().parse()?,
            book: Arc::new(book::Book::new()),
            open: Mutex::default(),
            killer: Mutex::default(),
            killed: watch::Sender::new(0),
            waiting: Notify::new(),
        });
        let server = tokio::spawn(wire::serve(listener, shared.clone())).abort_handle();
        Ok(Self { shared, kubeconfig: kubeconfig_path, server })
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// These rules take the place of all others, in the words of [`rules`]; writes are numbered from here, and whoever waits
    /// for a host to be killed gets through again.
    pub fn script<R: AsRef<str>>(&self, rules: impl IntoIterator<Item = R>) -> Result<()> {
        let rules: Result<Vec<Rule>> = rules.into_iter().map(|rule| rule.as_ref().parse()).collect();
        self.shared.book.script(rules?);
        Ok(())
    }

    /// What happens to requests and events for which there is no rule.
    pub fn chaos(&self, chaos: Option<Chaos>) {
        self.shared.book.chaos(chaos);
    }

    /// Whom `kill` kills.
    pub fn victim(&self, kill: impl Fn() + Send + Sync + 'static) {
        *self.shared.killer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(kill));
    }

    /// How many times a host was killed so far.
    pub fn kills(&self) -> u64 {
        *self.shared.killed.borrow()
    }

    /// Waits until so many hosts were killed.
    pub async fn killed(&self, times: u64) -> Result<()> {
        let mut killed = self.shared.killed.subscribe();
        let reached = tokio::time::timeout(hang_bound(), killed.wait_for(|so_far| *so_far >= times)).await;
        match reached {
            Ok(_) => Ok(()),
            Err(_) => Err(anyhow!("waited {} s in vain until the host was killed\n{}", hang_bound().as_secs(), self.describe())),
        }
    }

    /// Writes since the last script.
    pub fn writes(&self) -> u64 {
        self.shared.book.writes()
    }

    /// Requests since it began, of any kind.
    pub fn requests(&self) -> u64 {
        self.shared.book.requests()
    }

    /// How often each fault took effect, by its name in the rules.
    pub fn faults(&self) -> BTreeMap<String, u64> {
        self.shared.book.faults()
    }

    /// How often one of them did.
    pub fn count(&self, fault: &str) -> u64 {
        self.faults().get(fault).copied().unwrap_or(0)
    }

    /// The last writes, faults and refusals.
    pub fn lines(&self) -> Vec<Line> {
        self.shared.book.lines()
    }

    /// Closes every connection of the host.
    pub fn cut(&self) {
        self.connections().iter().for_each(|connection| connection.cut());
    }

    /// From now on nothing comes back on any connection that the host has, nor goes there.
    pub fn swallow(&self) {
        self.connections().iter().for_each(|connection| connection.swallow());
    }

    fn connections(&self) -> Vec<Arc<wire::Connection>> {
        let open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(Weak::upgrade).collect()
    }

    /// Rules, seed, counts and the last requests: what replays a failure.
    pub fn describe(&self) -> String {
        self.shared.book.describe()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn opened(&self, connection: &Arc<wire::Connection>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| connection.strong_count() > 0);
        open.push(Arc::downgrade(connection));
    }

    async fn kill(self: &Arc<Self>) {
        let killer = self.killer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(killer) = killer {
            // On a task of its own: the request that it began with ends with the host.
            let shared = self.clone();
            let killing = tokio::task::spawn_blocking(move || {
                killer();
                shared.killed.send_modify(|killed| *killed += 1);
            });
            let _ = killing.await;
        }
    }

    /// When the answer has been read, as far as that can be known.
    fn kill_soon(self: &Arc<Self>) {
        let shared = self.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(GRACE, shared.waiting.notified()).await;
            shared.kill().await;
        });
    }
}
