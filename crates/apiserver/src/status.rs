//! Errors as the API tells them: a `Status` object, with the reasons and the wording of the real one.

use http::StatusCode;
use serde_json::{Value, json};

use crate::resource::Resource;

/// An error that the API answers with.
///
/// The wording is that of a real API server where clients or people read it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub code: u16,
    /// The machine-readable reason, as `NotFound`.
    pub reason: String,
    /// What a person reads.
    pub message: String,
    /// What `Status.details` holds: name, group, kind, uid, causes, retryAfterSeconds.
    pub details: Option<Value>,
}

impl ApiError {
    /// An error of any status; the reason is the one that goes with it.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            406 => "NotAcceptable",
            409 => "Conflict",
            410 => "Expired",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "Unknown",
        };
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let mut details = json!({"name": name, "kind": resource.plural});
        if !resource.group.is_empty() {
            details["group"] = json!(resource.group);
        }
        self.details = Some(details);
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(crate) fn no_such_path() -> Self {
        let mut error = Self::new(404, "the server could not find the requested resource");
        error.details = Some(json!({}));
        error
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, format!(r#"{} "{name}" not found"#, resource.qualified())).about(resource, name)
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!(r#"{} "{name}" already exists"#, resource.qualified());
        let mut error = Self::new(409, message).about(resource, name);
        "AlreadyExists".clone_into(&mut error.reason);
        error
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            r#"Operation cannot be fulfilled on {} "{name}": {why}"#,
            resource.qualified()
        );
        Self::new(409, message).about(resource, name)
    }

    pub(crate) fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(r#"{} "{name}" is forbidden: {why}"#, resource.qualified());
        Self::new(403, message).about(resource, name)
    }

    /// What is wrong with an object: each problem is a field, a reason and what follows the field in the message.
    pub(crate) fn invalid(resource: &Resource, name: &str, problems: &[Problem]) -> Self {
        let texts: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}", problem.field, problem.message))
            .collect();
        let list = if let [one] = texts.as_slice() {
            one.clone()
        } else {
            format!("[{}]", texts.join(", "))
        };
        let mut error = Self::new(422, format!(r#"{} "{name}" is invalid: {list}"#, resource.kind));
        let causes: Vec<Value> = problems
            .iter()
            .map(|problem| {
                json!({"reason": problem.reason, "message": problem.message, "field": problem.field})
            })
            .collect();
        let mut details = json!({"name": name, "kind": resource.kind, "causes": causes});
        if !resource.group.is_empty() {
            details["group"] = json!(resource.group);
        }
        error.details = Some(details);
        error
    }

    pub(crate) fn too_old(asked: u64, oldest: u64) -> Self {
        Self::new(410, format!("too old resource version: {asked} ({oldest})"))
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            405,
            "the server does not allow this method on the requested resource",
        )
    }

    /// As the API sends it.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    pub(crate) fn http_status(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) field: String,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn required(field: impl Into<String>) -> Self {
        Self::new(field, "FieldValueRequired", "Required value")
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self::new(
            field,
            "FieldValueInvalid",
            format!("Invalid value: {value}: {why}"),
        )
    }
}
