//! Creation of the repository and the branch that an upload goes to.

use super::api::{Answer, Api, JSON, Post};
use super::http::{Failure, Method, encoded};
use super::name::RepoName;
use super::retry::retried;
use serde::Deserialize;
use serde_json::json;

/// Text in the refusal of the Hub to create two repositories of an account at once, which has the status of one that exists.
const CONFLICT: &str = "another conflicting operation";

#[derive(Deserialize)]
struct Created {
    url: Option<String>,
}

/// Description of a repository.
#[derive(Deserialize)]
struct Described {
    private: Option<bool>,
}

/// Creates the repository if there is none, and the branch if it is not `main`. Returns the full name. If it is to be private,
/// one that exists must be.
pub(super) fn create(api: &Api<'_>, private: bool) -> Result<RepoName, Failure> {
    let repo = api.client.repo();
    let (organization, name) = match repo.id().split_once('/') {
        Some((organization, name)) => (Some(organization), name),
        None => (None, repo.id()),
    };
    let mut body = json!({"name": name, "organization": organization});
    if private {
        body["visibility"] = "private".into();
    }
    let answer = api.post_once(&json(api, "api/repos/create", &body.to_string()))?;
    let status = answer.status.as_u16();
    if status == 409 && answer.said().contains(CONFLICT) {
        let message = format!(
            "the server is busy with another repository of the account; try again{}",
            answer.said()
        );
        return Err(api.client.refuse(message));
    }
    let repo = match status {
        200..=299 | 409 => match organization {
            Some(_) => repo.clone(),
            None => repo.renamed(&id_of(api, &answer)?)?,
        },
        // A token may have the right to write to a repository, but not the one to create it.
        401..=403 if organization.is_some() && describe(api, repo.id()).is_ok() => repo.clone(),
        _ => return Err(api.refusal(&answer, "create the repository")),
    };
    if private && !answer.status.is_success() && !is_private(api, repo.id())? {
        return Err(api.client.refuse(format!(
            "{} exists already and is not private, so nothing was sent; change its visibility in its settings, or upload to it \
             without `--private`",
            api.client.url(repo.id())
        )));
    }
    create_branch(api, &repo)?;
    Ok(repo)
}

fn create_branch(api: &Api<'_>, repo: &RepoName) -> Result<(), Failure> {
    if repo.revision() == "main" || repo.revision().starts_with("refs/") {
        return Ok(());
    }
    let branch = encoded(repo.revision());
    let request = format!("api/models/{}/branch/{branch}", repo.id());
    let request = json(api, &request, "{}");
    retried(api.client.time_limit(), || {
        let answer = api.post_once(&request)?;
        match answer.status.as_u16() {
            // It exists, or the token may write to it, but not create one: the commit will tell.
            200..=299 | 403 | 409 => Ok(()),
            _ => Err(api.refusal(&answer, "create the branch")),
        }
    })
}

fn json<'r>(api: &Api<'_>, path: &str, body: &'r str) -> Post<'r> {
    Post {
        url: api.client.url(path),
        kind: JSON,
        body: body.as_bytes(),
        is_slow: false,
    }
}

/// Returns the name in the address that the server says a repository has.
fn id_of(api: &Api<'_>, answer: &Answer) -> Result<String, Failure> {
    let created: Created = api.parse(answer)?;
    let mut parts = created.url.as_deref().unwrap_or_default().rsplit('/');
    match (parts.next(), parts.next()) {
        (Some(name), Some(account))
            if name == api.client.repo().id() && !account.is_empty() =>
        {
            Ok(format!("{account}/{name}"))
        }
        _ => Err(api.client.refuse(
            "the server does not say which account it belongs to; give the name with it, as `account/name`",
        )),
    }
}

fn is_private(api: &Api<'_>, id: &str) -> Result<bool, Failure> {
    let described: Described = api.parse(&describe(api, id)?)?;
    Ok(described.private == Some(true))
}

fn describe(api: &Api<'_>, id: &str) -> Result<Answer, Failure> {
    let url = api.client.url(&format!("api/models/{id}"));
    retried(api.client.time_limit(), || {
        Answer::read(api.client.send(Method::Get, &url, None)?)
    })
}
