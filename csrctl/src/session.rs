//! Which service is asked, with which token, about which zone or account; the one place that reads the environment.

use std::path::PathBuf;

use reqwest::Url;

use crate::{
    failure::{Class, Failure},
    login::Login,
    scope::Scope,
};

/// What a request needs.
pub struct Session {
    pub url: Url,
    pub token: String,
    pub scope: Scope,
}

impl Session {
    /// What the variables say, and otherwise what the login stored. A zone or account comes from the option, the variable, the login
    /// whose token is used, or the token itself.
    pub fn open(option: Option<Scope>) -> Result<Self, Failure> {
        let (url, token) = (variable("CSRD_URL")?, variable("CSRD_TOKEN")?);
        let named = Scope::of(variable("CSRD_ZONE")?, variable("CSRD_ACCOUNT")?, "CSRD_ZONE and CSRD_ACCOUNT")?;
        let stored = if url.is_some() && token.is_some() { None } else { Login::load(&login_path()?)? };
        let missing = |what: &str| Failure::usage(format!("{what} is not known: run csrctl login, or set CSRD_URL and CSRD_TOKEN"));
        let url = url.or_else(|| stored.as_ref().map(|login| login.url.clone())).ok_or_else(|| missing("the service's URL"))?;
        let stored_scope = if token.is_some() { None } else { stored.as_ref().map(Login::scope).transpose()?.flatten() };
        let token = token.or_else(|| stored.map(|login| login.token)).ok_or_else(|| missing("the token"))?;
        let scope = option.or(named).or(stored_scope).or_else(|| Scope::of_token(&token)).ok_or_else(|| {
            Failure::usage("the token is not for one zone or one account alone: give --zone ID or --account ID, here or at the login")
        })?;
        Ok(Self { url: service_url(&url)?, token: checked_token(&token)?, scope })
    }
}

/// The URL of a service, which may stand behind a prefix; what the API's own paths begin with may be there or not.
pub fn service_url(text: &str) -> Result<Url, Failure> {
    let wrong =
        |why: &str| Failure::usage(format!("{text:?} is no URL of a service, {why}: write one such as https://csr.platform.example"));
    let mut url: Url = text.trim().parse().map_err(|error| wrong(&format!("{error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it is not http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has more than a host and a path"));
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/api/v4").or_else(|| path.strip_suffix("/client/v4")).unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url)
}

/// A token can be sent: one word of visible ASCII characters.
pub fn checked_token(text: &str) -> Result<String, Failure> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::usage("the token is not one word of ASCII characters: give the token alone, as it was issued"));
    }
    Ok(token.to_owned())
}

/// The file that holds the login: in the user's directory of settings.
#[expect(clippy::disallowed_methods, reason = "the environment is read here")]
pub fn login_path() -> Result<PathBuf, Failure> {
    // A relative path counts as none (XDG Base Directory Specification).
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let directory = directory.ok_or_else(|| Failure::usage("there is no place for the login: set XDG_CONFIG_HOME or HOME"))?;
    Ok(directory.join("csrctl/login.json"))
}

/// A variable that is set to something.
#[expect(clippy::disallowed_methods, reason = "the environment is read here")]
fn variable(name: &str) -> Result<Option<String>, Failure> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.into_string().map(Some).map_err(|_| Failure::new(Class::Usage, format!("{name} is set to something that is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_by_its_url_with_or_without_the_path_of_the_api() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("https://a.example/", "https://a.example/"),
            ("https://a.example/api/v4/", "https://a.example/"),
            ("https://a.example/csr/client/v4", "https://a.example/csr"),
            (" http://[::1]:1/\n", "http://[::1]:1/"),
        ] {
            assert_eq!(service_url(text).unwrap().as_str(), url);
        }
        for text in
            ["", "a.example", "ftp://a.example", "https://u:p@a.example", "https://a.example/?q", "https://a.example/#f", "file:///x"]
        {
            assert_eq!(service_url(text).unwrap_err().class, Class::Usage, "{text}");
        }
    }

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(checked_token("a.b.c\n").unwrap(), "a.b.c");
        for text in ["", "\n", "Bearer a.b.c", "a.b.c\nd.e.f", "ä.b.c"] {
            assert!(checked_token(text).is_err(), "{text}");
        }
    }
}
