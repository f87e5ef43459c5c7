//! The first argument of each command: a backup directory, or the URL of a mirror.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use burn_backup_remote::Mirror;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParserFactory};

use crate::exit::{Exit, refuse};

/// Where a backup is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    Directory(PathBuf),
    /// A URL, which may hold credentials.
    Mirror(String),
}

impl From<OsString> for Place {
    fn from(argument: OsString) -> Self {
        match argument.to_str() {
            Some(text) if is_url(text) => Self::Mirror(text.to_owned()),
            _ => Self::Directory(argument.into()),
        }
    }
}

/// `memory:` and `file:` URLs need no slashes.
fn is_url(argument: &str) -> bool {
    let Some((scheme, rest)) = argument.split_once(':') else {
        return false;
    };
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme && (rest.starts_with("//") || scheme == "memory" || scheme == "file")
}

impl Place {
    /// The directory. A mirror is refused, because `command` can't use one.
    pub fn directory(&self, command: &str) -> Result<&Path> {
        match self {
            Self::Directory(path) => Ok(path),
            Self::Mirror(_) => Err(refuse(
                Exit::Usage,
                format!(
                    "`{command}` needs a backup directory, but {self} is a mirror: give a directory"
                ),
            )),
        }
    }
}

/// Shows a mirror without its credentials.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Mirror(url) => Mirror::new(url).fmt(f),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl ValueParserFactory for Place {
    type Parser = PlaceParser;

    fn value_parser() -> PlaceParser {
        PlaceParser
    }
}

/// Parses a [`Place`], and refuses an empty one.
#[derive(Clone)]
pub struct PlaceParser;

impl TypedValueParser for PlaceParser {
    type Value = Place;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Place, clap::Error> {
        let value = OsStringValueParser::new().parse_ref(command, argument, value)?;
        if value.is_empty() {
            let message = "the path is empty: give a backup directory or the URL of a mirror\n";
            return Err(clap::Error::raw(
                clap::error::ErrorKind::InvalidValue,
                message,
            ));
        }
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_mirrors_and_other_paths_are_directories() {
        for url in [
            "s3://bucket/run",
            "gs://b",
            "file:///a",
            "file:/a",
            "memory:",
            "memory:/x",
        ] {
            assert_eq!(
                Place::from(OsString::from(url)),
                Place::Mirror(url.to_owned())
            );
        }
        for path in [
            "backup",
            "./a:b",
            "a:b",
            "C:\\backup",
            "/s3/x",
            "s3:",
            ":",
            "1x://y",
        ] {
            assert_eq!(
                Place::from(OsString::from(path)),
                Place::Directory(path.into())
            );
        }
    }

    #[test]
    fn a_mirror_is_shown_without_credentials() {
        let place = Place::Mirror("s3://key:secret@bucket/run?token=secret".to_owned());
        assert!(!format!("{place} {place:?}").contains("secret"));
    }
}
