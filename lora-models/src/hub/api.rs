//! Requests of an upload: their answers, and the meaning of refusals.

use super::http::{Client, Content, Failure, Sending, Verb, header};
use super::retry::retried;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::Read;
use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode};

/// Limit for an answer of the server, in bytes. One with a signed address for each part of a file of 50 GB has less than 10 MB.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Limit for a message of the server, in characters.
pub(super) const MAX_MESSAGE: usize = 300;

/// Media type of JSON.
pub(super) const JSON: &str = "application/json";

/// Whole answer of a server.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A request with its body in memory.
pub(super) struct Post<'r> {
    pub(super) url: String,
    /// Media type of the body.
    pub(super) kind: &'r str,
    pub(super) body: &'r [u8],
    /// True if the server may take minutes for its answer.
    pub(super) is_slow: bool,
}

/// Requests of an upload to the repository of a client.
pub(super) struct Api<'c> {
    pub(super) client: &'c Client<'c>,
}

impl Api<'_> {
    /// Sends a request until it is accepted or refused for good. `what` names it in a refusal: the token may not … .
    pub(super) fn post(&self, what: &str, request: &Post<'_>) -> Result<Answer, Failure> {
        retried(self.client.time_limit(), || {
            let answer = self.post_once(request)?;
            if answer.status.is_success() {
                Ok(answer)
            } else {
                Err(self.refusal(&answer, what))
            }
        })
    }

    /// Sends a request once, and returns the answer whatever its status.
    pub(super) fn post_once(&self, request: &Post<'_>) -> Result<Answer, Failure> {
        let sending = Sending {
            verb: Verb::Post,
            url: &request.url,
            kind: Some(request.kind),
            is_slow: request.is_slow,
        };
        let response = self.client.upload(&sending, Content::Bytes(request.body))?;
        Answer::read(response)
    }

    /// Parses the JSON of an answer.
    pub(super) fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Failure> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            let endpoint = self.client.endpoint();
            let message = format!("{endpoint} does not answer as a model server: {error}");
            self.client.refuse(message)
        })
    }

    /// Translates an error status of the server.
    pub(super) fn refusal(&self, answer: &Answer, what: &str) -> Failure {
        let (endpoint, status, said) = (self.client.endpoint(), answer.status, answer.said());
        self.client.refuse(match status.as_u16() {
            401 => format!(
                "{endpoint} does not accept the token; set HF_TOKEN to one with the right to write{said}"
            ),
            403 => format!("the token may not {what}: it needs the right to write there{said}"),
            404 => format!(
                "{endpoint} has no such account, repository or branch, or the token may not see it{said}"
            ),
            409 | 412 => format!(
                "somebody else changed the repository meanwhile; nothing was committed, try again{said}"
            ),
            408 | 429 | 500..=599 => {
                return Failure::unreachable(format!("it answered {status}{said}"));
            }
            _ => format!("{endpoint} answered {status} to the request to {what}{said}"),
        })
    }
}

impl Answer {
    /// Reads a response, up to a limit.
    pub(super) fn read(response: Response<Body>) -> Result<Self, Failure> {
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut body = body.into_reader().take(MAX_ANSWER_BYTES);
        body.read_to_end(&mut bytes).map_err(Failure::unreachable)?;
        Ok(Self {
            status: parts.status,
            headers: parts.headers,
            body: bytes,
        })
    }

    /// Returns the text of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Returns the reasons that the server gives, as the end of a message; empty without one.
    pub(super) fn said(&self) -> String {
        let mut reasons = Vec::new();
        let mut add = |reason: Option<&str>| {
            let reason = reason.unwrap_or_default().trim();
            if !reason.is_empty() && !reasons.iter().any(|other| other == reason) {
                reasons.push(reason.to_string());
            }
        };
        add(self.header("x-error-message"));
        if let Ok(json) = serde_json::from_slice::<Value>(&self.body) {
            add(json["error"].as_str());
            let list = |key: &str| json[key].as_array().into_iter().flatten();
            list("error").for_each(|error| add(error.as_str()));
            add(json["error_description"].as_str());
            list("errors").for_each(|error| add(error["message"].as_str()));
        } else {
            let text = String::from_utf8_lossy(&self.body);
            // The storage answers in XML.
            let message = text.split_once("<Message>");
            let message = message.and_then(|(_, rest)| Some(rest.split_once("</Message>")?.0));
            let is_page = text.trim_start().starts_with('<');
            add(message.or((!is_page).then_some(&*text)));
        }
        let reasons = reasons.join("; ");
        if reasons.is_empty() {
            return reasons;
        }
        let reasons: String = reasons.chars().take(MAX_MESSAGE).collect();
        format!("; it says: {reasons}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_in_the_header_or_the_body() {
        let said = |header: Option<&'static str>, body: &str| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("x-error-message", header.parse().unwrap());
            }
            let answer = Answer {
                status: StatusCode::BAD_REQUEST,
                headers,
                body: body.into(),
            };
            answer.said().replace("; it says: ", "")
        };
        for (header, body, expected) in [
            (None, "{}", ""),
            (None, "", ""),
            (None, "<html>oops</html>", ""),
            (Some("bad name"), r#"{"error": "bad name"}"#, "bad name"),
            (None, r#"{"error": ["a", "b"]}"#, "a; b"),
            (
                Some("no"),
                r#"{"error": "Invalid", "errors": [{"message": "license is missing"}, {"x": 1}]}"#,
                "no; Invalid; license is missing",
            ),
            (None, "Bad gateway\n", "Bad gateway"),
            (
                None,
                "<?xml?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
                "Request has expired",
            ),
        ] {
            assert_eq!(said(header, body), expected, "{body}");
        }
        assert_eq!(said(None, &"é".repeat(1000)).chars().count(), MAX_MESSAGE);
    }
}
