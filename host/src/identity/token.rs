//! Tokens of the accounts that were lent to the host: one per account, asked for when it is needed.
//!
//! A token is renewed well before it expires, by whoever needs it first. It lives in memory only; nothing here prints it.

use std::time::Duration;

use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{ApiError, Inner, Status, answers::Answers, decode, json_request};
use crate::names::Account;

/// How soon a renewal that failed is tried again while the old token is still good.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive: its `Debug` says only that.
    header: HeaderValue,
    renew: Instant,
    expires: Instant,
}

impl Token {
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

pub(super) struct Tokens(Answers<Account, Token>);

impl Default for Tokens {
    fn default() -> Self {
        Self(Answers::new(20_000))
    }
}

impl Tokens {
    pub(super) async fn get(&self, api: &Inner, account: &Account) -> Result<Token, ApiError> {
        let ask = |last: Option<Token>| async move {
            match mint(api, account).await {
                Ok(token) => Ok((token.clone(), token.renew)),
                // Taken back: from now on nothing is done in its name, whatever the old token could still do.
                Err(gone @ (ApiError::NotLent { .. } | ApiError::NoAccount { .. })) => Err(gone),
                Err(error) => match last.filter(|l| Instant::now() < l.expires) {
                    Some(last) => Ok((last.clone(), last.expires.min(Instant::now() + AGAIN))),
                    None => Err(error),
                },
            }
        };
        self.0.get(account, ask).await
    }

    /// Asks for a new one, unless that was done within the last second.
    pub(super) async fn renew(&self, api: &Inner, account: &Account) -> Result<(), ApiError> {
        self.0.doubt(account, |_, asked| asked.elapsed() >= Duration::from_secs(1));
        self.get(api, account).await.map(drop)
    }

    pub(super) fn forget(&self, account: &Account) {
        self.0.drop_if(account, |_| true);
    }

    /// Forgets this token, but not one that somebody got in the meantime.
    pub(super) fn forget_this(&self, account: &Account, token: &Token) {
        self.0.drop_if(account, |known| known.header == token.header);
    }
}

async fn mint(api: &Inner, account: &Account) -> Result<Token, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        spec: Spec,
        status: Minted,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        expiration_seconds: u64,
    }
    #[derive(Deserialize)]
    struct Minted {
        token: String,
    }
    let kind = crate::names::Kind::new("", "v1", "ServiceAccount");
    let accounts =
        super::Resource { kind, plural: "serviceaccounts".into(), namespaced: true, status: false, subresources: Vec::new() };
    let path = accounts.path(&account.namespace, Some(&account.name), Some("token"));
    let question = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": { "expirationSeconds": api.options.token_lifetime.as_secs() },
    });
    let asked = Instant::now();
    let request = json_request(Method::POST, &path, &question)?;
    let answer = api.send_as_host(request).await.map_err(|e| explain(api, account, e))?;
    // An answer that does not decode holds a token all the same: its text goes nowhere.
    let answer: Answer =
        decode(&path, &answer).map_err(|_| ApiError::Undecodable(format!("the answer to {path} is no token")))?;
    let mut header = HeaderValue::try_from(format!("Bearer {}", answer.status.token))
        .map_err(|_| ApiError::Undecodable(format!("the token in the answer to {path} cannot be sent")))?;
    header.set_sensitive(true);
    let lifetime = Duration::from_secs(answer.spec.expiration_seconds);
    Ok(Token { header, renew: asked + renewal(lifetime, random()), expires: asked + lifetime })
}

/// 70 to 80 % of the lifetime, so that accounts that came together do not renew together.
fn renewal(lifetime: Duration, random: u32) -> Duration {
    let jitter = f64::from(random) / f64::from(u32::MAX) / 10.0;
    lifetime.mul_f64(0.8 - jitter)
}

fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}

fn explain(api: &Inner, account: &Account, error: ApiError) -> ApiError {
    match error {
        ApiError::Refused(status) if status.code == 404 => ApiError::NoAccount { account: account.clone() },
        // Not a missing right: the namespace is going away.
        ApiError::Refused(status) if status.code == 403 && status.message.contains("being terminated") => {
            ApiError::Refused(status)
        }
        ApiError::Refused(status) if status.code == 403 => {
            ApiError::NotLent { account: account.clone(), message: how_to_lend(account, api.user.as_deref(), &status) }
        }
        other => other,
    }
}

/// What is missing, and the two commands that give it.
fn how_to_lend(account: &Account, host: Option<&str>, status: &Status) -> String {
    let Account { namespace, name } = account;
    let subject = match host.map(|user| (user, user.strip_prefix("system:serviceaccount:"))) {
        Some((_, Some(account))) => format!("--serviceaccount={account}"),
        Some((user, None)) => format!("--user={}", quoted(user)),
        None => "--user=HOST".to_string(),
    };
    format!(
        "ServiceAccount {account} is not lent to the host: {}. Lend it with `kubectl create role reef-lend-{name} -n {namespace} \
         --verb=create --resource=serviceaccounts/token --resource-name={name}` and `kubectl create rolebinding \
         reef-lend-{name} -n {namespace} --role=reef-lend-{name} {subject}`",
        status.message
    )
}

/// As a shell needs it.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/@".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status { code: 403, reason: "Forbidden".into(), message: "no".into(), retry_after: None, causes: Vec::new() }
    }

    #[test]
    fn the_sentence_names_the_commands_that_lend() {
        let account = Account::new("team-a", "hello");
        let text = how_to_lend(&account, Some("system:serviceaccount:reef-system:reef"), &status());
        let role =
            "kubectl create role reef-lend-hello -n team-a --verb=create --resource=serviceaccounts/token --resource-name=hello`";
        assert!(text.contains(role), "{text}");
        let binding =
            "kubectl create rolebinding reef-lend-hello -n team-a --role=reef-lend-hello --serviceaccount=reef-system:reef`";
        assert!(text.contains(binding), "{text}");
        assert!(how_to_lend(&account, Some("o'neill x"), &status()).contains(r"--user='o'\''neill x'"));
    }

    #[test]
    fn a_token_is_renewed_between_70_and_80_percent() {
        let hour = Duration::from_secs(3600);
        assert!(renewal(hour, 0).abs_diff(Duration::from_secs(2880)) < Duration::from_secs(1));
        assert!(renewal(hour, u32::MAX).abs_diff(Duration::from_secs(2520)) < Duration::from_secs(1));
    }

    #[test]
    fn a_token_does_not_print_itself() {
        let mut header = HeaderValue::from_static("Bearer secret");
        header.set_sensitive(true);
        assert!(!format!("{header:?}").contains("secret"));
    }
}
