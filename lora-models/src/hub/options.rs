//! Where the Hub is, where its cache lies, and who asks.

use crate::checkpoint::bounded::read_bounded;
use crate::error::ModelError;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The Hub itself.
const ENDPOINT: &str = "https://huggingface.co";

/// The longest token file read; tokens have some 40 bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Which server is asked, with which token, and where files are kept.
///
/// Displayed for debugging, it shows whether there is a token and not which.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    endpoint: String,
    cache: Option<PathBuf>,
    token: Option<String>,
    certificates: Option<PathBuf>,
    offline: bool,
}

impl HubOptions {
    /// A server and a cache of one's own, without a token.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        let endpoint: String = endpoint.into();
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: Some(cache.into()),
            token: None,
            certificates: None,
            offline: false,
        }
    }

    /// What the environment says, by the variables that the [module](super) lists.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name), std::env::home_dir())
    }

    /// With `token` where a model is private, or access to it is granted to some.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Trusting the certificates in a PEM file instead of Mozilla's, for a server or proxy of one's own.
    #[must_use]
    pub fn with_certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.certificates = Some(file.into());
        self
    }

    /// Asking nothing of the server: what is complete in the cache, or an error.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// The server, without a slash at its end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The token, if there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The file of certificates to trust, if not Mozilla's.
    pub fn certificates(&self) -> Option<&Path> {
        self.certificates.as_deref()
    }

    /// Whether the server is not to be asked.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The cache's directory.
    ///
    /// # Errors
    ///
    /// [`ModelError::Hub`] where the environment names none, and no home directory either.
    pub fn cache(&self) -> Result<&Path, ModelError> {
        self.cache.as_deref().ok_or_else(|| ModelError::Hub {
            message: "there is no home directory to keep models in; set HF_HOME to a directory"
                .to_string(),
        })
    }

    /// An empty variable is one that is not set, as in the Hub's own programs.
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
            .field("offline", &self.offline)
            .finish()
    }
}

/// What a log-in wrote; without one there is no file, and one that cannot be read is no token either.
fn read_token(file: &Path) -> Option<String> {
    String::from_utf8(read_bounded(file, MAX_TOKEN_BYTES).ok()?).ok()
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
            ],
            None,
        );
        assert_eq!(found.endpoint(), "https://mirror.example");
        assert_eq!(found.cache().unwrap(), Path::new("/cache/huggingface/hub"));
        assert_eq!(found.token(), None);
        assert_eq!(found.certificates(), Some(Path::new("/certificates.pem")));
        assert!(found.is_offline());
        let found = options(
            &[
                ("HF_HUB_CACHE", "/a"),
                ("HF_HOME", "/b"),
                ("HF_HUB_OFFLINE", "0"),
            ],
            None,
        );
        assert_eq!(found.cache().unwrap(), Path::new("/a"));
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
