//! Who the host is towards an API server, and how it gets there.
//!
//! Every request is made as an [`Actor`]: the host itself, or a ServiceAccount that a namespace lent to it. The rooms
//! below own the connections (`transport`), the accounts' tokens (`token`), what an account may do (`review`) and which
//! kinds exist (`discovery`). It knows Kubernetes' client and nothing of plugins; tokens never leave it.

mod answers;
mod discovery;
mod error;
mod review;
mod token;
mod transport;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use serde::Deserialize;

pub use discovery::{Resource, Subresource};
pub use error::{ApiError, Status};
pub use review::Access;
pub use transport::{Body, Connection, Lane, Lines, Open};

use crate::names::{Account, Cluster, Kind, PluginId};

/// Who a request is made as.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// With the credentials of the host's own kubeconfig.
    Host,
    /// With a token of this ServiceAccount, on a connection without a client certificate; for no plugin in particular.
    Account(Account),
    /// The same, for this plugin, which the User-Agent names.
    Plugin { plugin: PluginId, account: Account },
}

/// Told of every answer: the method, and the code unless there was no answer.
pub type Observe = Arc<dyn Fn(&Method, Option<u16>) + Send + Sync>;

/// Told of every request for a plugin that failed.
pub type ObserveFailure = Arc<dyn Fn(&PluginId, &ApiError) + Send + Sync>;

/// How requests of ServiceAccounts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accounts {
    /// With tokens of their own.
    #[default]
    Lent,
    /// With the host's own credentials, and no token is asked for: for a person who runs a plugin as himself. Never for a host.
    Own,
}

#[derive(Clone)]
pub struct ApiOptions {
    /// How long one request may take; for a watch, how long its first byte may take.
    pub deadline: Duration,
    /// What is asked for; the API server grants at least ten minutes.
    pub token_lifetime: Duration,
    /// How long an answer about rights is believed.
    pub recheck: Duration,
    /// How often an open connection is tried; one that does not answer twice as long is given up.
    pub ping: Duration,
    /// First part of the User-Agent.
    pub user_agent: String,
    pub observe: Option<Observe>,
    pub observe_failure: Option<ObserveFailure>,
    pub accounts: Accounts,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            token_lifetime: Duration::from_secs(3600),
            recheck: Duration::from_secs(30),
            ping: Duration::from_secs(5),
            user_agent: concat!("reef/", env!("CARGO_PKG_VERSION")).into(),
            observe: None,
            observe_failure: None,
            accounts: Accounts::default(),
        }
    }
}

/// One cluster's API server. Clones share connections, tokens and what was learnt.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    options: ApiOptions,
    transport: transport::Transport,
    user: Option<String>,
    tokens: token::Tokens,
    rights: review::Rights,
    kinds: discovery::Kinds,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("cluster", &self.0.cluster).field("user", &self.0.user).finish_non_exhaustive()
    }
}

impl Api {
    /// Prepares the connections and asks once who the host is. Fails when the configuration cannot be used
    /// (`Misconfigured`) or the API server does not answer (`Unreachable`: worth another try).
    pub async fn connect(config: kube::Config, options: ApiOptions) -> Result<Self, ApiError> {
        Self::new(transport::Transport::new(&config, &options)?, options).await
    }

    /// As [`Api::connect`], over connections that somebody else opens: `host` with the host's own credentials, `tenants`
    /// without any, for requests that bring their token.
    pub async fn over(host: Open, tenants: Open, options: ApiOptions) -> Result<Self, ApiError> {
        Self::new(transport::Transport::over(&host, &tenants, &options)?, options).await
    }

    async fn new(transport: transport::Transport, options: ApiOptions) -> Result<Self, ApiError> {
        let mut inner = Inner {
            cluster: Cluster::local(),
            tokens: token::Tokens::default(),
            rights: review::Rights::new(options.recheck),
            kinds: discovery::Kinds::default(),
            user: None,
            transport,
            options,
        };
        inner.user = inner.whoami().await?;
        Ok(Self(Arc::new(inner)))
    }

    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    /// The host's own user name, as the API server sees it, unless it refused to tell.
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// One request, one answer: the body of a 2xx, or an error. The URI is a path as [`Resource::path`] gives it, with a
    /// query if need be. Nothing is tried twice, but for a GET whose token turned out to be no longer good.
    pub async fn send(&self, actor: &Actor, lane: Lane, request: Request<Vec<u8>>) -> Result<Bytes, ApiError> {
        self.send_within(actor, lane, request, self.0.options.deadline).await
    }

    /// As [`Api::send`], with a deadline of its own.
    pub async fn send_within(
        &self,
        actor: &Actor,
        lane: Lane,
        request: Request<Vec<u8>>,
        deadline: Duration,
    ) -> Result<Bytes, ApiError> {
        self.0.as_actor(actor, request, |request| self.0.transport.send(lane, request, deadline)).await
    }

    /// A long answer, line by line: a watch.
    pub async fn lines(&self, actor: &Actor, request: Request<Vec<u8>>) -> Result<Lines, ApiError> {
        self.0.as_actor(actor, request, |request| self.0.transport.lines(request, self.0.options.deadline)).await
    }

    /// How the API server serves a kind.
    pub async fn resource(&self, kind: &Kind) -> Result<Arc<Resource>, ApiError> {
        self.0.kinds.resource(&self.0, kind).await
    }

    /// Whether the account may, as far as anybody knew within the recheck period.
    pub async fn can(&self, account: &Account, access: &Access) -> Result<bool, ApiError> {
        self.0.rights.can(&self.0, account, access).await
    }

    /// Whether the account exists and is lent to the host at this moment, by asking for a new token (at most once a
    /// second). `NotLent` and `NoAccount` say what is missing; from then on nothing is done in its name.
    pub async fn lent(&self, account: &Account) -> Result<(), ApiError> {
        match self.0.options.accounts {
            Accounts::Lent => self.0.tokens.renew(&self.0, account).await,
            Accounts::Own => Ok(()),
        }
    }

    /// The next request of this account asks for a new token.
    pub fn forget_token(&self, account: &Account) {
        self.0.tokens.forget(account);
    }
}

impl Inner {
    /// Adds identity to a request and makes it; once more if it is a GET and the token was not good any more.
    async fn as_actor<T, F>(
        &self,
        actor: &Actor,
        request: Request<Vec<u8>>,
        make: impl Fn(transport::Outgoing) -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let repeatable = request.method() == Method::GET;
        let (account, agent) = match actor {
            Actor::Host => return make(transport::Outgoing::of_host(request)).await,
            Actor::Account(account) => (account, format!("account/{account}")),
            Actor::Plugin { plugin, account } => (account, format!("plugin/{plugin}")),
        };
        if self.options.accounts == Accounts::Own {
            return make(transport::Outgoing { agent: Some(agent), ..transport::Outgoing::of_host(request) }).await;
        }
        let request = request.map(Bytes::from);
        let mut tries = if repeatable { 2 } else { 1 };
        loop {
            tries -= 1;
            let token = self.tokens.get(self, account).await?;
            let outgoing =
                transport::Outgoing { request: request.clone(), bearer: Some(token.header()), agent: Some(agent.clone()) };
            match make(outgoing).await {
                Err(error) if error.code() == Some(401) => {
                    self.tokens.forget_this(account, &token);
                    if tries == 0 {
                        return Err(error);
                    }
                }
                Err(error) => {
                    if let (Actor::Plugin { plugin, .. }, Some(observe)) = (actor, &self.options.observe_failure) {
                        observe(plugin, &error);
                    }
                    return Err(error);
                }
                answer => return answer,
            }
        }
    }

    /// One request of the host itself.
    async fn send_as_host(&self, request: Request<Vec<u8>>) -> Result<Bytes, ApiError> {
        self.transport.send(Lane::Requests, transport::Outgoing::of_host(request), self.options.deadline).await
    }

    /// POSTs JSON text that asks something and changes nothing.
    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        actor: &Actor,
        path: &str,
        question: &serde_json::Value,
    ) -> Result<T, ApiError> {
        let request = json_request(Method::POST, path, question)?;
        let answer = self.as_actor(actor, request, |r| self.transport.send(Lane::Requests, r, self.options.deadline)).await?;
        decode(path, &answer)
    }

    async fn whoami(&self) -> Result<Option<String>, ApiError> {
        #[derive(Deserialize)]
        struct Review {
            status: ReviewStatus,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReviewStatus {
            user_info: UserInfo,
        }
        #[derive(Deserialize)]
        struct UserInfo {
            username: String,
        }
        let question = serde_json::json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        match self.ask::<Review>(&Actor::Host, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &question).await {
            Ok(review) => Ok(Some(review.status.user_info.username)),
            Err(error) if error.code() == Some(401) => Err(error),
            // It only serves to print a better sentence: a cluster that does not tell is no reason not to run.
            Err(ApiError::Refused(status)) => {
                tracing::warn!(%status, "the API server does not tell the host its own user name");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// A request with a JSON body.
fn json_request(method: Method, path: &str, body: &serde_json::Value) -> Result<Request<Vec<u8>>, ApiError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|e| ApiError::Misconfigured(format!("`{path}` is not a path that can be asked for: {e}")))
}

fn decode<T: for<'de> Deserialize<'de>>(path: &str, answer: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer).map_err(|e| ApiError::Undecodable(format!("the answer to {path} does not decode: {e}")))
}
