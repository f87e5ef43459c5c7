//! `~/.aws/credentials`, which `object_store` does not read.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::PathBuf;

/// The static credentials of a profile.
pub(crate) struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

/// Environment variables for other sources of credentials, which have priority.
const OTHER_SOURCES: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// The credentials of the profile that `AWS_PROFILE` names, or of the default one. `None` if there are none, or if the
/// environment names another source.
pub(crate) fn credentials() -> Option<Credentials> {
    if OTHER_SOURCES.iter().any(|name| env::var_os(name).is_some()) {
        return None;
    }
    let file = match env::var_os("AWS_SHARED_CREDENTIALS_FILE") {
        Some(file) => PathBuf::from(file),
        None => env::home_dir()?.join(".aws/credentials"),
    };
    let text = fs::read_to_string(file).ok()?;
    let profile = env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
    parse(&text, &profile)
}

fn parse(text: &str, profile: &str) -> Option<Credentials> {
    let mut is_it = false;
    let mut settings = HashMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            is_it = section.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=')
            && is_it
            && !line.starts_with(['#', ';'])
        {
            settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    Some(Credentials {
        access_key_id: settings.remove("aws_access_key_id")?,
        secret_access_key: settings.remove("aws_secret_access_key")?,
        session_token: settings.remove("aws_session_token"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requested_profile_is_read() {
        let text = "# a comment\n[default]\naws_access_key_id=A\naws_secret_access_key = B=\n\n\
                    [ other ]\naws_access_key_id = C\naws_secret_access_key = D\naws_session_token = E\n[none]\n";
        let default = parse(text, "default").unwrap();
        assert_eq!(default.access_key_id, "A");
        assert_eq!(default.secret_access_key, "B=");
        assert_eq!(default.session_token, None);
        let other = parse(text, "other").unwrap();
        assert_eq!(other.session_token.as_deref(), Some("E"));
        assert!(parse(text, "none").is_none() && parse(text, "missing").is_none());
    }
}
