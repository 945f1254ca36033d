//! One server that answers for a registry: its address, its connections, and who we are to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::auth::{self, Challenge};
use super::credentials::Credentials;
use super::error::Error;
use super::retry::{self, Attempt};
use super::settings::Settings;
use super::transport::{self, Trust};

/// Answers that are kept in memory (errors, tokens), in bytes.
const MAX_ANSWER: u64 = 256 * 1024;
/// A token is renewed so long before its end.
const MARGIN: Duration = Duration::from_secs(10);

/// A registry's server, or a mirror of it.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// `host[:port]`, as in image names, for credentials and messages.
    pub(super) registry: String,
    /// Such as `https://registry-1.docker.io`.
    pub(super) base: String,
    agent: Agent,
    trust: Trust,
    authorizations: Mutex<BTreeMap<String, Authorization>>,
    /// Whether there are credentials for it, once it has asked.
    is_known: AtomicBool,
}

#[derive(Clone)]
struct Authorization {
    header: String,
    until: Instant,
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization")
    }
}

/// What is done to which repository; for the token.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) repository: String,
    /// `pull`, or `pull,push`.
    pub(super) actions: &'static str,
    /// A repository that blobs are taken over from.
    pub(super) from: Option<String>,
}

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self { repository: repository.to_owned(), actions: "pull", from: None }
    }

    fn text(&self) -> String {
        if self.repository.is_empty() {
            return String::new();
        }
        let mut text = format!("repository:{}:{}", self.repository, self.actions);
        if let Some(from) = &self.from {
            text.push_str(&format!(" repository:{from}:pull"));
        }
        text
    }
}

/// Sends a request with the `Authorization` header that it is given.
pub(super) type Send<'a> = &'a mut dyn FnMut(&Agent, Option<&str>) -> Result<Response<Body>, ureq::Error>;

impl Endpoint {
    /// The servers for a registry, in the order they are to be asked.
    pub(super) fn all(settings: &Settings, registry: &str) -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        if registry == "docker.io" {
            for url in &settings.mirrors {
                found.push(Self::at_url(settings, url)?);
            }
            let agent = transport::agent(settings, "registry-1.docker.io", Trust::Certificates)?;
            found.push(Self::new(registry, "https://registry-1.docker.io", agent, Trust::Certificates));
        } else if settings.is_insecure(registry) {
            found.push(Self::insecure(settings, registry)?);
        } else {
            found.push(Self::at_url(settings, &format!("https://{registry}"))?);
        }
        Ok(found)
    }

    fn new(registry: &str, base: &str, agent: Agent, trust: Trust) -> Self {
        let (registry, base) = (registry.to_owned(), base.to_owned());
        Self { registry, base, agent, trust, authorizations: Mutex::default(), is_known: AtomicBool::new(false) }
    }

    fn at_url(settings: &Settings, url: &str) -> Result<Self, Error> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or(rest);
        let trust = match url.starts_with("http://") {
            true => Trust::Plain,
            false if settings.is_insecure(host) => Trust::Anybody,
            false => Trust::Certificates,
        };
        Ok(Self::new(host, url, transport::agent(settings, host, trust)?, trust))
    }

    /// The server alone, without a path that a mirror may have.
    pub(super) fn origin(&self) -> &str {
        let start = self.base.find("://").map_or(0, |at| at + 3);
        let end = self.base.get(start..).and_then(|rest| rest.find('/')).map_or(self.base.len(), |at| start + at);
        self.base.get(..end).unwrap_or(&self.base)
    }

    /// Whether the registry takes these credentials; they are kept nowhere.
    pub(super) fn login(&self, settings: &Settings, credentials: &Credentials) -> Result<(), Error> {
        let url = format!("{}/v2/", self.base);
        let failed = |error| transport::failure(&self.registry, error);
        let answer = self.agent.get(&url).call().map_err(failed)?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return if answer.status().is_success() { Ok(()) } else { Err(self.refusal(&Scope::pull(""), answer).1) };
        }
        let header = self.prove(settings, "", &challenge_header(&answer), Some(credentials))?;
        let request = self.agent.get(&url);
        let answer = match &header {
            Some(known) => request.header("authorization", &known.header),
            None => request,
        };
        let answer = answer.call().map_err(failed)?;
        match answer.status().as_u16() {
            401 | 403 => Err(Error::WrongPassword { registry: self.registry.clone() }),
            200..300 => Ok(()),
            _ => Err(self.refusal(&Scope::pull(""), answer).1),
        }
    }

    /// Finds out whether an insecure registry speaks plain HTTP or TLS; nothing secret is sent for that.
    fn insecure(settings: &Settings, registry: &str) -> Result<Self, Error> {
        let plain = Self::at_url(settings, &format!("http://{registry}"))?;
        let answer = plain.agent.get(format!("{}/v2/", plain.base)).call();
        match answer {
            Ok(answer)
                if matches!(answer.status(), StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
            {
                Ok(plain)
            }
            Ok(_) | Err(ureq::Error::Protocol(_)) => Self::at_url(settings, &format!("https://{registry}")),
            Err(error) => match transport::failure(registry, error) {
                Error::Broken { .. } => Self::at_url(settings, &format!("https://{registry}")),
                other => Err(other),
            },
        }
    }

    /// Sends a request that may be sent twice, until it is answered or there is no hope.
    pub(super) fn request(&self, settings: &Settings, scope: &Scope, send: Send<'_>) -> Result<Response<Body>, Error> {
        let mut number = 1;
        loop {
            let (attempt, error) = match self.once(settings, scope, send) {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => self.refusal(scope, answer),
                Err(error @ (Error::Broken { .. } | Error::Timeout { .. })) => (Attempt::Connection, error),
                Err(error) => return Err(error),
            };
            match retry::pause(attempt, number) {
                Some(pause) => thread::sleep(pause),
                None => return Err(error),
            }
            number += 1;
        }
    }

    /// Sends a request, and again after having proved who we are where that is asked for.
    pub(super) fn once(&self, settings: &Settings, scope: &Scope, send: Send<'_>) -> Result<Response<Body>, Error> {
        let known = self.authorization(&scope.text());
        let answer = send(&self.agent, known.as_deref()).map_err(|error| transport::failure(&self.registry, error))?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let credentials = settings.credentials.get(&self.registry)?;
        self.is_known.store(credentials.is_some(), Ordering::Relaxed);
        let proof = self.prove(settings, &scope.text(), &challenge_header(&answer), credentials.as_ref())?;
        let header = proof.as_ref().map(|proof| proof.header.clone());
        if let Some(proof) = proof {
            self.authorizations.lock().unwrap_or_else(PoisonError::into_inner).insert(scope.text(), proof);
        }
        send(&self.agent, header.as_deref()).map_err(|error| transport::failure(&self.registry, error))
    }

    fn authorization(&self, scope: &str) -> Option<String> {
        let known = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(scope).filter(|known| known.until > Instant::now()).map(|known| known.header.clone())
    }

    /// Answers a challenge; `None`: we have nothing to prove who we are.
    fn prove(
        &self,
        settings: &Settings,
        scope: &str,
        header: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Option<Authorization>, Error> {
        let challenges = auth::challenges(header);
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service.as_deref(), scope)),
            Challenge::Basic => None,
        });
        if let Some((realm, service, asked)) = bearer {
            // Ours names both repositories of a mount; a registry with scopes of its own says which it wants.
            let scope = if scope.is_empty() { asked.as_deref().unwrap_or_default() } else { scope };
            return self.token(settings, realm, service, scope, credentials).map(Some);
        }
        if !challenges.contains(&Challenge::Basic) {
            return Err(Error::UnknownChallenge { registry: self.registry.clone(), header: header.to_owned() });
        }
        let Some(Credentials::Password { user, password }) = credentials else { return Ok(None) };
        let until = Instant::now() + Duration::from_secs(24 * 3600);
        Ok(Some(Authorization { header: basic(user, password), until }))
    }

    fn token(
        &self,
        settings: &Settings,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Authorization, Error> {
        let server = Self::at_url(settings, realm)?;
        // What would go over an encrypted line to the registry does not go over a plain one to its token server.
        if server.trust == Trust::Plain && self.trust == Trust::Certificates {
            let reason = format!("its token server `{realm}` has no certificate");
            return Err(Error::Certificate { registry: self.registry.clone(), reason });
        }
        let mut number = 1;
        let answer = loop {
            let sent = match credentials {
                Some(Credentials::IdentityToken(token)) => {
                    let form = [
                        ("grant_type", "refresh_token"),
                        ("service", service.unwrap_or_default()),
                        ("scope", scope),
                        ("client_id", "rcompose"),
                        ("refresh_token", token),
                    ];
                    server.agent.post(realm).send_form(form)
                }
                Some(Credentials::Password { user, password }) => {
                    let url = auth::token_url(realm, service, scope, Some(user));
                    server.agent.get(url).header("authorization", basic(user, password)).call()
                }
                None => server.agent.get(auth::token_url(realm, service, scope, None)).call(),
            };
            let (attempt, error) = match sent {
                Ok(answer) if answer.status().is_success() => break answer,
                Ok(answer) if matches!(answer.status().as_u16(), 400 | 401 | 403) => {
                    return Err(self.no_token(scope, credentials));
                }
                Ok(answer) => server.refusal(&Scope::pull(""), answer),
                Err(error) => (Attempt::Connection, transport::failure(&server.registry, error)),
            };
            match retry::pause(attempt, number) {
                Some(pause) if !matches!(error, Error::Certificate { .. } | Error::UnknownHost { .. }) => {
                    thread::sleep(pause)
                }
                _ => return Err(error),
            }
            number += 1;
        };
        let begun = Instant::now();
        let token = auth::token(&self.small(answer)?);
        let token = token.ok_or_else(|| Error::Protocol {
            registry: self.registry.clone(),
            reason: "its token server gives no token".to_owned(),
        })?;
        let life = Duration::from_secs(token.life).saturating_sub(MARGIN).max(Duration::from_secs(1));
        Ok(Authorization { header: format!("Bearer {}", token.value), until: begun + life })
    }

    fn no_token(&self, scope: &str, credentials: Option<&Credentials>) -> Error {
        let registry = self.registry.clone();
        match credentials {
            Some(_) => Error::WrongPassword { registry },
            None => {
                let repository = scope.split(':').nth(1).unwrap_or_default().to_owned();
                Error::Denied { registry, repository, logged_in: false }
            }
        }
    }

    /// The body of an answer that must be small.
    pub(super) fn small(&self, answer: Response<Body>) -> Result<Vec<u8>, Error> {
        let body = answer.into_body().into_with_config().limit(MAX_ANSWER).read_to_vec();
        body.map_err(|error| transport::failure(&self.registry, error))
    }

    /// What an answer that is no success means.
    pub(super) fn refusal(&self, scope: &Scope, answer: Response<Body>) -> (Attempt, Error) {
        let status = answer.status().as_u16();
        let now = jiff::Timestamp::now().as_second().unsigned_abs();
        let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|header| retry::retry_after(header, now));
        let attempt = Attempt::Status { code: status, retry_after };
        let message = self.small(answer).map(|body| message(&body)).unwrap_or_default();
        let registry = self.registry.clone();
        let error = match status {
            401 | 403 => {
                let logged_in = self.is_known.load(Ordering::Relaxed);
                Error::Denied { registry, repository: scope.repository.clone(), logged_in }
            }
            404 => Error::NotFound { registry, name: scope.repository.clone() },
            429 => Error::TooManyRequests { registry, retry_after },
            code => Error::Status { registry, code, message },
        };
        (attempt, error)
    }
}

fn challenge_header(answer: &Response<Body>) -> String {
    let headers = answer.headers().get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
    headers.collect::<Vec<_>>().join(", ")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What a registry's error document says, on one line.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Document {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(document) = serde_json::from_slice::<Document>(body) else { return String::new() };
    let said = document.errors.into_iter().map(|one| if one.message.is_empty() { one.code } else { one.message });
    let said = said.collect::<Vec<_>>().join("; ");
    said.chars().filter(|c| !c.is_control()).take(300).collect()
}
