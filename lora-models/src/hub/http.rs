//! Requests to the server, and the meaning of its refusals.

use super::HubOptions;
use super::name::RepoName;
use super::pace::Pace;
use crate::checkpoint::bounded::read_bounded;
use crate::error::ModelError;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy, SendBody};

/// Limit for the redirections of one request; the Hub uses two or three.
const MAX_REDIRECTS: usize = 10;

/// Timeout for a connection.
const CONNECT: Duration = Duration::from_secs(15);

/// Longest timeout for the next bytes; a whole download may take any time.
const READ: Duration = Duration::from_secs(60);

/// Limit for a file of certificates, in bytes; Mozilla's have 200 kB.
const MAX_CERTIFICATE_BYTES: u64 = 16 << 20;

/// Longest timeout for the answer to a request that makes the server work: it puts parts together, hashes a file or commits.
const WORK: Duration = Duration::from_secs(300);

/// Reason why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No usable answer now, but perhaps later; the cache may have one.
    Unreachable(String),
    /// A refusal, or an error that a new attempt would not change.
    Refused(ModelError),
}

impl Failure {
    pub(super) fn unreachable(why: impl ToString) -> Self {
        Self::Unreachable(why.to_string())
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::Refused(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Headers only. A redirection to another server is not followed: the Hub describes a file before it redirects to
    /// its content.
    Head,
    Get,
}

/// Method of a request with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Post,
    Put,
}

/// A request with a body.
pub(super) struct Sending<'r> {
    pub(super) verb: Verb,
    pub(super) url: &'r str,
    /// Media type of the body; `None` for the storage, whose addresses are signed without one.
    pub(super) kind: Option<&'r str>,
    /// True if the server may take minutes for its answer.
    pub(super) is_slow: bool,
}

/// Body of a request.
pub(super) enum Content<'b> {
    Bytes(&'b [u8]),
    /// Reader of so many bytes.
    Stream(&'b mut dyn Read, u64),
}

/// Connection to the server about one model.
pub(super) struct Client<'a> {
    agent: Agent,
    repo: &'a RepoName,
    options: &'a HubOptions,
}

impl<'a> Client<'a> {
    /// Creates a client.
    ///
    /// # Errors
    /// [`ModelError`] if the endpoint is not the address of a server, the token is invalid, or the certificates cannot
    /// be read.
    pub(super) fn new(repo: &'a RepoName, options: &'a HubOptions) -> Result<Self, ModelError> {
        let endpoint = options.endpoint();
        let secure = endpoint.starts_with("https://");
        if !secure && !endpoint.starts_with("http://") {
            return Err(ModelError::hub(format!(
                "HF_ENDPOINT is {endpoint:?}; expected an address that begins with https://"
            )));
        }
        let token = options.token();
        if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(ModelError::hub(
                "the token in HF_TOKEN, or in the file that a login wrote, has spaces or invalid characters; copy it \
                 again",
            ));
        }
        // Whoever listens on the way could use it.
        if token.is_some() && !secure && !is_local(endpoint) {
            return Err(ModelError::hub(format!(
                "HF_ENDPOINT is {endpoint}, to which the token would be sent without encryption; use an address that begins \
                 with https://, or for a public model no token: unset HF_TOKEN, and set HF_TOKEN_PATH to an empty file"
            )));
        }
        let read = READ.min(options.time_limit());
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .https_only(secure)
            .user_agent(concat!("lora-models/", env!("CARGO_PKG_VERSION")))
            // Lengths and ranges must refer to the files, not to compressed content.
            .accept_encoding("identity")
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(read))
            .timeout_recv_response(Some(read))
            .timeout_per_read(Some(read))
            .timeout_per_write(Some(read))
            // A server on this machine is not behind a proxy.
            .proxy(if is_local(endpoint) {
                None
            } else {
                Proxy::try_from_env()
            });
        if let Some(file) = options.certificates() {
            let mut certificates = Vec::new();
            for item in parse_pem(&read_bounded(&file.into(), MAX_CERTIFICATE_BYTES)?) {
                match item {
                    Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                    Ok(_) => {}
                    Err(error) => {
                        let message = format!("no certificates: {error}");
                        return Err(ModelError::malformed(file, message));
                    }
                }
            }
            if certificates.is_empty() {
                return Err(ModelError::malformed(file, "it holds no certificate"));
            }
            let roots = RootCerts::Specific(Arc::new(certificates));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self {
            agent: Agent::new_with_config(config.build()),
            repo,
            options,
        })
    }

    /// Starts to watch over the pace of a download of which there are so many bytes.
    pub(super) fn pace(&self, bytes: u64) -> Pace {
        Pace::new(self.options.time_limit(), bytes)
    }

    /// Returns the time in which a download must make progress.
    pub(super) fn time_limit(&self) -> Duration {
        self.options.time_limit()
    }

    pub(super) fn endpoint(&self) -> &str {
        self.options.endpoint()
    }

    /// Returns the name of the model.
    pub(super) fn repo(&self) -> &RepoName {
        self.repo
    }

    /// Builds a refusal about the model.
    pub(super) fn refuse(&self, message: impl AsRef<str>) -> Failure {
        Failure::Refused(self.repo.error(message))
    }

    /// Returns the address of `path`, whose parts must be [`encoded`].
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint())
    }

    /// Sends a request, optionally for the bytes of a file from `from` on, and follows redirections. Error statuses of
    /// the server are failures, except 416 (range not satisfiable).
    pub(super) fn send(
        &self,
        method: Method,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, Failure> {
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = match method {
                Method::Head => self.agent.head(&url),
                Method::Get => self.agent.get(&url),
            };
            if let Some(token) = self.options.token().filter(|_| self.is_own(&url)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if let Some(from) = from {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| self.failure(error))?;
            let status = response.status();
            if status.is_redirection() {
                let target = header(response.headers(), "location").unwrap_or_default();
                let next = self.join(target)?;
                if method == Method::Head && !self.is_own(&next) {
                    return Ok(response);
                }
                url = next;
            } else if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(response);
            } else {
                return Err(self.refusal(status, response.headers()));
            }
        }
        Err(self.refuse(format!("{} redirects in a circle", self.endpoint())))
    }

    /// Sends a request with a body, with the token if the address is the server's own, and returns the answer whatever its status.
    /// A redirection within the server is followed, if the body is in memory.
    pub(super) fn upload(
        &self,
        sending: &Sending<'_>,
        mut body: Content<'_>,
    ) -> Result<Response<Body>, Failure> {
        let mut url = sending.url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = match sending.verb {
                Verb::Post => self.agent.post(&url),
                Verb::Put => self.agent.put(&url),
            };
            if let Some(kind) = sending.kind {
                request = request.header("content-type", kind);
                // Git LFS answers in its own type, all else in JSON.
                let accept =
                    Some(kind).filter(|kind| kind.ends_with("json") && !kind.ends_with("ndjson"));
                request = request.header("accept", accept.unwrap_or("application/json"));
            }
            if sending.is_slow {
                let patient = request.config().timeout_recv_response(Some(WORK));
                request = patient.timeout_per_read(Some(WORK)).build();
            }
            if let Some(token) = self.options.token().filter(|_| self.is_own(&url)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = match &mut body {
                Content::Bytes(bytes) => request.send(*bytes),
                Content::Stream(reader, length) => request
                    .header("content-length", length.to_string())
                    .send(SendBody::from_reader(*reader)),
            };
            let response = response.map_err(|error| self.failure(error))?;
            if !response.status().is_redirection() || matches!(body, Content::Stream(..)) {
                return Ok(response);
            }
            let target = header(response.headers(), "location").unwrap_or_default();
            url = self.join(target)?;
            if !self.is_own(&url) {
                return Ok(response);
            }
        }
        Err(self.refuse(format!("{} redirects in a circle", self.endpoint())))
    }

    /// Returns the target of a redirection.
    fn join(&self, target: &str) -> Result<String, Failure> {
        if target.starts_with("https://") || target.starts_with("http://") {
            Ok(target.to_string())
        } else if target.starts_with('/') && !target.starts_with("//") {
            Ok(format!("{}{target}", origin(self.endpoint())))
        } else {
            let message = format!(
                "{} redirects to {target:?}, which is not an address",
                self.endpoint()
            );
            Err(self.refuse(message))
        }
    }

    /// True if an address belongs to the server that the token is for.
    fn is_own(&self, url: &str) -> bool {
        origin(url) == origin(self.endpoint())
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        use ureq::Error;
        match error {
            Error::BadUri(_)
            | Error::Http(_)
            | Error::RequireHttpsOnly(_)
            | Error::InvalidProxyUrl => {
                self.refuse(format!("{} cannot be requested: {error}", self.endpoint()))
            }
            error => Failure::unreachable(error),
        }
    }

    /// Translates an error status of the server. It answers 401 for models that do not exist, so as not to disclose
    /// private ones.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Failure {
        let (endpoint, id) = (self.endpoint(), self.repo.id());
        let code = header(headers, "x-error-code").unwrap_or_default();
        let message = match (status.as_u16(), code) {
            (_, "GatedRepo") => format!(
                "access must be requested at {endpoint}/{id}; once it is granted, set HF_TOKEN to your token"
            ),
            (_, "RevisionNotFound") => format!("it has no revision `{}`", self.repo.revision()),
            (_, "EntryNotFound") => "a listed file does not exist".to_string(),
            (401 | 404, _) if self.options.token().is_none() => format!(
                "no such directory here, and no such model on {endpoint}; or it is private: set HF_TOKEN to a token with \
                 read access"
            ),
            (404, _) => format!(
                "no such directory here, and no such model on {endpoint}; or it is private, and the token has no access"
            ),
            (401, _) => format!(
                "{endpoint} does not accept the token, or has no such model; set HF_TOKEN to a token with read access"
            ),
            (403, _) => format!(
                "{endpoint} denies access: the token may not read the model, or the model is disabled"
            ),
            (408 | 429 | 500..=599, _) => {
                return Failure::unreachable(format!("it answered {status}"));
            }
            _ => format!("{endpoint} answered {status}"),
        };
        self.refuse(message)
    }
}

/// Returns the text of a header.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Encodes `text` as a part of an address.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let encode = |byte: u8| match Some(byte).filter(plain) {
        Some(byte) => char::from(byte).to_string(),
        None => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Returns scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| host + at);
    &url[..end]
}

/// True if a server runs on this machine.
fn is_local(url: &str) -> bool {
    let origin = origin(url);
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_all_before_the_path() {
        assert_eq!(origin("https://a.b:1/c/d?e"), "https://a.b:1");
        assert_eq!(origin("https://a.b?c=/"), "https://a.b");
        assert_ne!(
            origin("https://huggingface.co.evil.example/"),
            origin("https://huggingface.co")
        );
        assert_ne!(origin("http://a.b/"), origin("https://a.b/"));
        assert_ne!(origin("https://a.b@evil.example/"), origin("https://a.b"));
    }

    #[test]
    fn only_this_machine_is_local() {
        assert!(
            is_local("http://127.0.0.1:8080/x")
                && is_local("http://localhost")
                && is_local("http://[::1]:80")
        );
        for other in [
            "http://localhost.example:80",
            "https://huggingface.co",
            "http://localhost:80@evil.example",
            "http://127.0.0.1@evil.example/",
        ] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn parts_of_an_address_lose_what_has_a_meaning_there() {
        assert_eq!(encoded("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b?ü.safetensors"), "a%20b%3F%C3%BC.safetensors");
    }
}
