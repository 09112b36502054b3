//! Asking the server, and what its refusals mean.

use super::HubOptions;
use super::name::RepoName;
use crate::checkpoint::bounded::read_bounded;
use crate::error::ModelError;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

/// The most redirections followed for one request; the Hub has two or three.
const MAX_REDIRECTS: usize = 10;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(15);

/// How long to wait for the next bytes; a whole download may take as long as it does.
const READ: Duration = Duration::from_secs(60);

/// The longest file of certificates read; Mozilla's have 200 kB.
const MAX_CERTIFICATE_BYTES: u64 = 16 << 20;

/// Why a request gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no usable answer now; there may be one later, and the cache may do.
    Unreachable(String),
    /// The answer is no, or asking again would not help.
    Refused(ModelError),
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::Refused(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// The headers alone. A redirection to another server is not followed: the Hub says what a file is before it sends
    /// to where it lies.
    Head,
    Get,
}

/// A connection to the server about one model.
pub(super) struct Client<'a> {
    agent: Agent,
    repo: &'a RepoName,
    endpoint: &'a str,
    token: Option<&'a str>,
}

impl<'a> Client<'a> {
    /// # Errors
    ///
    /// [`ModelError`] if the endpoint is no address of a server, the token none, or the certificates cannot be read.
    pub(super) fn new(repo: &'a RepoName, options: &'a HubOptions) -> Result<Self, ModelError> {
        let endpoint = options.endpoint();
        let secure = endpoint.starts_with("https://");
        if !secure && !endpoint.starts_with("http://") {
            return Err(ModelError::Hub {
                message: format!(
                    "HF_ENDPOINT is {endpoint:?}; expected an address that begins with https://"
                ),
            });
        }
        let token = options.token();
        if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(ModelError::Hub {
                message: "the token of HF_TOKEN, or of the file a log-in wrote, has spaces or signs that no token has; \
                          copy it again"
                    .to_string(),
            });
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .https_only(secure)
            .user_agent(concat!("lora-models/", env!("CARGO_PKG_VERSION")))
            // Lengths and ranges are those of the files, not of something compressed.
            .accept_encoding("identity")
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(READ))
            .timeout_per_write(Some(READ))
            // A server on this machine is not on the other side of a proxy.
            .proxy(if is_local(endpoint) {
                None
            } else {
                Proxy::try_from_env()
            });
        if let Some(file) = options.certificates() {
            let mut certificates = Vec::new();
            for item in parse_pem(&read_bounded(file, MAX_CERTIFICATE_BYTES)?) {
                match item {
                    Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                    Ok(_) => {}
                    Err(error) => {
                        return Err(ModelError::malformed(
                            file,
                            format!("no certificates: {error}"),
                        ));
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
            endpoint,
            token,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        self.endpoint
    }

    /// An error about the model.
    pub(super) fn error(&self, message: impl AsRef<str>) -> ModelError {
        self.repo.error(message)
    }

    /// The address of what lies at `path`, parts of which must be [`encoded`].
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// Sends a request, for the bytes of a file from `from` on if that is given, and follows redirections. An answer
    /// that is an error of the server's is given as a failure, but not 416, the range that cannot be had.
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
            if let Some(token) = self.token.filter(|_| self.is_own(&url)) {
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
        let error = self.error(format!("{} redirects in a circle", self.endpoint));
        Err(Failure::Refused(error))
    }

    /// Where a redirection leads.
    fn join(&self, target: &str) -> Result<String, Failure> {
        if target.starts_with("https://") || target.starts_with("http://") {
            Ok(target.to_string())
        } else if target.starts_with('/') && !target.starts_with("//") {
            Ok(format!("{}{target}", origin(self.endpoint)))
        } else {
            let message = format!(
                "{} redirects to {target:?}, which is no address",
                self.endpoint
            );
            Err(Failure::Refused(self.error(message)))
        }
    }

    /// Whether an address is of the server that the token is for.
    fn is_own(&self, url: &str) -> bool {
        origin(url) == origin(self.endpoint)
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        use ureq::Error;
        match error {
            Error::BadUri(_)
            | Error::Http(_)
            | Error::RequireHttpsOnly(_)
            | Error::InvalidProxyUrl => {
                let message = format!("{} cannot be asked: {error}", self.endpoint);
                Failure::Refused(self.error(message))
            }
            error => Failure::Unreachable(error.to_string()),
        }
    }

    /// What an error of the server's means. It answers 401 for what does not exist, so as not to tell what is private.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Failure {
        let (endpoint, id) = (self.endpoint, self.repo.id());
        let code = header(headers, "x-error-code").unwrap_or_default();
        let message = match (status.as_u16(), code) {
            (_, "GatedRepo") => format!(
                "access must be asked for at {endpoint}/{id}; once it is granted, set HF_TOKEN to a token of yours"
            ),
            (_, "RevisionNotFound") => format!("it has no revision `{}`", self.repo.revision()),
            (_, "EntryNotFound") => "a file that is listed is not there".to_string(),
            (401 | 404, _) if self.token.is_none() => format!(
                "no such directory here, and no such model on {endpoint}; or it is private: set HF_TOKEN to a token that \
                 may read it"
            ),
            (404, _) => format!(
                "no such directory here, and no such model on {endpoint}; or it is private, and not for this token"
            ),
            (401, _) => format!(
                "{endpoint} does not accept the token, or has no such model; set HF_TOKEN to a token that may read it"
            ),
            (403, _) => format!(
                "{endpoint} forbids it: this token may not read it, or the model is disabled"
            ),
            (408 | 429 | 500..=599, _) => {
                return Failure::Unreachable(format!("it answers {status}"));
            }
            _ => format!("{endpoint} answers {status}"),
        };
        Failure::Refused(self.error(message))
    }
}

/// A header's text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// `text` as a part of an address.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Whether a server is on this machine.
fn is_local(url: &str) -> bool {
    let origin = origin(url);
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
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
        assert!(!is_local("http://localhost.example:80") && !is_local("https://huggingface.co"));
    }

    #[test]
    fn parts_of_an_address_lose_what_has_a_meaning_there() {
        assert_eq!(encoded("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b?ü.safetensors"), "a%20b%3F%C3%BC.safetensors");
    }
}
