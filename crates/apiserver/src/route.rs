//! From a request to what it asks for: the path, the verb, the query.

use std::fmt;
use std::time::Duration;

use http::Method;

use crate::selector::{FieldSelector, LabelSelector};
use crate::status::ApiError;

/// What a request does, in the API's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads all objects of a kind.
    List,
    /// Follows the changes of a kind.
    Watch,
    /// Makes an object.
    Create,
    /// Replaces an object.
    Update,
    /// Changes an object by any kind of patch, server-side apply among them.
    Patch,
    /// Deletes an object.
    Delete,
    /// Deletes all objects that match.
    DeleteCollection,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        })
    }
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/VERSION`, `/apis/GROUP/VERSION`
    Resources {
        group: String,
        version: String,
    },
    Objects(Target),
}

/// Objects of a kind, or one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    /// Empty for a cluster-scoped kind, and for all namespaces.
    pub(crate) namespace: String,
    /// Empty for all objects.
    pub(crate) name: String,
    pub(crate) subresource: String,
}

impl Route {
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let decode = |segment: &str| {
            let bytes = percent_encoding::percent_decode_str(segment);
            bytes.decode_utf8().ok().map(std::borrow::Cow::into_owned)
        };
        let trimmed = path.strip_prefix('/')?;
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        let segments: Vec<String> = trimmed.split('/').map(decode).collect::<Option<_>>()?;
        if segments.iter().any(String::is_empty) {
            return None;
        }
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => Some(Self::Health),
            ["version"] => Some(Self::Version),
            ["api"] => Some(Self::CoreVersions),
            ["apis"] => Some(Self::Groups),
            ["apis", group] => Some(Self::Group((*group).to_owned())),
            ["api", version] => Some(Self::Resources {
                group: String::new(),
                version: (*version).to_owned(),
            }),
            ["apis", group, version] => Some(Self::Resources {
                group: (*group).to_owned(),
                version: (*version).to_owned(),
            }),
            ["api", version, rest @ ..] => Target::parse("", version, rest).map(Self::Objects),
            ["apis", group, version, rest @ ..] => Target::parse(group, version, rest).map(Self::Objects),
            _ => None,
        }
    }
}

impl Target {
    fn parse(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let (namespace, plural, rest) = match rest {
            // A namespace's own subresources, not a kind in it.
            ["namespaces", _, "status" | "finalize"] => ("", "namespaces", rest.get(1..)?),
            ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest),
            [plural, rest @ ..] => ("", *plural, rest),
            [] => return None,
        };
        let (name, subresource) = match rest {
            [] => ("", ""),
            [name] => (*name, ""),
            [name, subresource] => (*name, *subresource),
            _ => return None,
        };
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }

    /// What a method does to it.
    pub(crate) fn verb(&self, method: &Method, options: &Options) -> Option<Verb> {
        let one = !self.name.is_empty();
        Some(match *method {
            Method::GET if options.watch => Verb::Watch,
            Method::GET if one => Verb::Get,
            Method::GET => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT if one => Verb::Update,
            Method::PATCH if one => Verb::Patch,
            Method::DELETE if one => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => return None,
        })
    }
}

/// The query's parameters.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are the API's own parameters")]
pub(crate) struct Options {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    /// None where it is absent or empty; `Some(0)` is "any".
    pub(crate) resource_version: Option<u64>,
    pub(crate) version_match: String,
    pub(crate) limit: Option<usize>,
    pub(crate) continue_token: String,
    pub(crate) watch: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: bool,
    pub(crate) field_manager: String,
    pub(crate) force: bool,
    pub(crate) dry_run: bool,
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: String,
    /// `Metadata`, `Object` or `None`: what goes along with a table's rows.
    pub(crate) include_object: String,
}

impl Options {
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let mut out = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |why: &dyn fmt::Display| ApiError::bad_request(format!("{name}={value}: {why}"));
            let is_true = matches!(&*value, "true" | "1" | "True" | "");
            match &*name {
                "labelSelector" => out.labels = value.parse().map_err(|error| wrong(&error))?,
                "fieldSelector" => out.fields = value.parse().map_err(|error| wrong(&error))?,
                "resourceVersion" => out.resource_version = revision(&value)?,
                "resourceVersionMatch" => out.version_match = value.into_owned(),
                "limit" => {
                    let limit: i64 = value.parse().map_err(|error| wrong(&error))?;
                    out.limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
                }
                "continue" => out.continue_token = value.into_owned(),
                "watch" => out.watch = is_true,
                "timeoutSeconds" => {
                    let seconds: u32 = value.parse().map_err(|error| wrong(&error))?;
                    out.timeout = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                }
                "allowWatchBookmarks" => out.bookmarks = is_true,
                "sendInitialEvents" => out.initial_events = is_true,
                "fieldManager" => out.field_manager = value.into_owned(),
                "force" => out.force = is_true,
                "dryRun" => {
                    if value != "All" {
                        return Err(wrong(&"the only value is All"));
                    }
                    out.dry_run = true;
                }
                "gracePeriodSeconds" => out.grace = Some(value.parse().map_err(|error| wrong(&error))?),
                "propagationPolicy" => out.propagation = value.into_owned(),
                "includeObject" => out.include_object = value.into_owned(),
                _ => {}
            }
        }
        Ok(out)
    }
}

/// A resourceVersion; none where it is empty.
pub(crate) fn revision(text: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let revision = text.parse();
    revision.map(Some).map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(path: &str) -> Target {
        match Route::parse(path) {
            Some(Route::Objects(target)) => target,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_name_what_the_api_says_they_do() {
        let pod = objects("/api/v1/namespaces/ns/pods/p/status");
        assert_eq!((pod.namespace.as_str(), pod.plural.as_str()), ("ns", "pods"));
        assert_eq!((pod.name.as_str(), pod.subresource.as_str()), ("p", "status"));
        let namespace = objects("/api/v1/namespaces/ns/status");
        assert_eq!(
            (namespace.plural.as_str(), namespace.name.as_str()),
            ("namespaces", "ns")
        );
        assert_eq!(objects("/api/v1/namespaces/ns").name, "ns");
        assert_eq!(
            objects("/apis/rbac.authorization.k8s.io/v1/clusterroles/a%3Ab").name,
            "a:b"
        );
        assert_eq!(
            objects("/apis/coordination.k8s.io/v1/leases").group,
            "coordination.k8s.io"
        );
        for path in [
            "",
            "/",
            "//",
            "/api/v1/pods//x",
            "/apis/a/b/c/d/e/f",
            "/x",
            "/api/v1/%ff",
        ] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }

    #[test]
    fn queries_are_read_or_refused_with_the_parameter() {
        let options =
            Options::parse("labelSelector=a%3Db%2Cc&limit=2&watch=1&resourceVersion=7&x=y").unwrap();
        assert_eq!(options.labels.to_string(), "a in (b),c");
        assert_eq!(
            (options.limit, options.watch, options.resource_version),
            (Some(2), true, Some(7))
        );
        for query in [
            "limit=x",
            "dryRun=Some",
            "labelSelector=a%20b",
            "resourceVersion=x",
        ] {
            assert!(Options::parse(query).is_err(), "{query}");
        }
    }
}
