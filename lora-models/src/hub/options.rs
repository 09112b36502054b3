//! Hub endpoint, cache directory and access token.

use crate::checkpoint::bounded::read_bounded;
use crate::error::ModelError;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Address of the Hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Limit for a token file, in bytes; tokens have some 40.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Time in which a download must make progress.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Hub endpoint, access token and cache directory.
///
/// The `Debug` form shows whether there is a token, but not the token.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    endpoint: String,
    cache: Option<PathBuf>,
    token: Option<String>,
    certificates: Option<PathBuf>,
    time_limit: Duration,
    offline: bool,
}

impl HubOptions {
    /// Creates options for another server and cache, without a token.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        let endpoint: String = endpoint.into();
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: Some(cache.into()),
            token: None,
            certificates: None,
            time_limit: TIME_LIMIT,
            offline: false,
        }
    }

    /// Reads the options from the environment variables that the [module](super) lists.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name), std::env::home_dir())
    }

    /// Sets the access token, for private models and those with restricted access.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets a PEM file of trusted certificates in place of Mozilla's, for a private server or proxy.
    #[must_use]
    pub fn with_certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.certificates = Some(file.into());
        self
    }

    /// Sets the time in which a download must make progress; otherwise it ends. Default: two minutes.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Enables offline mode: only complete models in the cache are used, and others are errors.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Returns the server, without a slash at its end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the token, if there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Returns the file of trusted certificates, if not Mozilla's.
    pub fn certificates(&self) -> Option<&Path> {
        self.certificates.as_deref()
    }

    /// Returns the time in which a download must make progress.
    pub fn time_limit(&self) -> Duration {
        self.time_limit
    }

    /// True in offline mode.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Returns the cache directory.
    ///
    /// # Errors
    /// [`ModelError::Hub`] if the environment names neither a cache nor a home directory.
    pub fn cache(&self) -> Result<&Path, ModelError> {
        let cache = self.cache.as_deref();
        let missing = "there is no home directory for the cache; set HF_HOME to a directory";
        cache.ok_or_else(|| ModelError::hub(missing))
    }

    /// Reads the options from variables; an empty variable counts as unset, as in the Hub's own programs.
    fn from_variables(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let text = |name: &str| variable(name)?.into_string().ok();

        let base = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(base.as_ref()?.join("token")));
        let token = text("HF_TOKEN").or_else(|| read_token(&token_file?));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_string());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: path("HF_HUB_CACHE").or_else(|| Some(base?.join("hub"))),
            token: token
                .map(|token| token.trim().to_string())
                .filter(|token| !token.is_empty()),
            certificates: path("SSL_CERT_FILE"),
            time_limit: text("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|seconds| seconds.trim().parse().ok())
                .filter(|seconds| *seconds > 0)
                .map_or(TIME_LIMIT, Duration::from_secs),
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| {
                ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
            }),
        }
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("certificates", &self.certificates)
            .field("time_limit", &self.time_limit)
            .field("offline", &self.offline)
            .finish()
    }
}

/// Reads the token that a login wrote; an unreadable file counts as none.
fn read_token(file: &Path) -> Option<String> {
    String::from_utf8(read_bounded(&file.into(), MAX_TOKEN_BYTES).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)], home: Option<&Path>) -> HubOptions {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        HubOptions::from_variables(variable, home.map(Path::to_path_buf))
    }

    #[test]
    fn without_variables_the_hub_and_the_home_directory_are_used() {
        let found = options(&[], Some(Path::new("/home/me")));
        assert_eq!(found.endpoint(), ENDPOINT);
        assert_eq!(
            found.cache().unwrap(),
            Path::new("/home/me/.cache/huggingface/hub")
        );
        assert_eq!(found.token(), None);
        assert!(!found.is_offline());
        let error = options(&[], None).cache().unwrap_err().to_string();
        assert!(error.contains("HF_HOME"), "{error}");
    }

    #[test]
    fn variables_say_where_and_an_empty_one_is_none() {
        let found = options(
            &[
                ("HF_ENDPOINT", "https://mirror.example/"),
                ("XDG_CACHE_HOME", "/cache"),
                ("HF_TOKEN", ""),
                ("HF_HUB_OFFLINE", "true"),
                ("SSL_CERT_FILE", "/certificates.pem"),
                ("HF_HUB_DOWNLOAD_TIMEOUT", "30"),
            ],
            None,
        );
        assert_eq!(found.endpoint(), "https://mirror.example");
        assert_eq!(found.cache().unwrap(), Path::new("/cache/huggingface/hub"));
        assert_eq!(found.token(), None);
        assert_eq!(found.certificates(), Some(Path::new("/certificates.pem")));
        assert!(found.is_offline());
        assert_eq!(found.time_limit(), Duration::from_secs(30));
        let found = options(
            &[
                ("HF_HUB_CACHE", "/a"),
                ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
                ("HF_HOME", "/b"),
                ("HF_HUB_OFFLINE", "0"),
            ],
            None,
        );
        assert_eq!(found.cache().unwrap(), Path::new("/a"));
        assert_eq!(found.time_limit(), TIME_LIMIT);
        assert!(!found.is_offline());
    }

    #[test]
    fn the_token_is_the_variable_or_what_a_log_in_wrote() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_written\n").unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(
            options(&[("HF_HOME", home)], None).token(),
            Some("hf_written")
        );
        let both = options(&[("HF_HOME", home), ("HF_TOKEN", " hf_set ")], None);
        assert_eq!(both.token(), Some("hf_set"));
        let other = dir.path().join("other");
        std::fs::write(&other, "  \n").unwrap();
        let other = other.to_str().unwrap();
        assert_eq!(
            options(&[("HF_HOME", home), ("HF_TOKEN_PATH", other)], None).token(),
            None
        );
    }

    #[test]
    fn debugging_output_does_not_show_the_token() {
        let options = HubOptions::new("https://x.example", "/c").with_token("hf_secret");
        let shown = format!("{options:?}");
        assert!(
            shown.contains("token: Some") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
