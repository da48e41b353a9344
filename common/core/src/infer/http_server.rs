//! An HTTP server and the part of it that the jobs of an image may use: the paths, the query
//! parameters, and the fields of the body that the image's contract sets or removes.
//!
//! One server answers the jobs of all tenants. So a job must not reach any path or field that reads
//! the server's state or keeps state across calls. A path is compared byte by byte with the paths
//! that the contract lists, and is never decoded. A query is parsed and written anew from the
//! parameters that the contract lists. A body is parsed data here, so it has no duplicate keys and
//! no escapes. Field names are compared as the most lenient parser would compare them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{InferError, MAX_PATH};
use crate::id::{ImageName, clip};

/// An HTTP server, and the part of it that jobs may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpServer {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The port it listens on.
    pub port: u16,
    /// The path that returns a 2xx status once the model is loaded. Default `/health`.
    #[serde(default = "health")]
    pub health: String,
    /// The default path, for jobs that name none.
    pub path: String,
    /// Paths that jobs may name in addition to the default path, as `/path`, `GET /path` or `POST
    /// /path`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<HttpRoute>,
    /// Names of the query parameters that a job's path may contain.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub query: BTreeSet<String>,
    /// Fields that are set to these values in every body; the job's own values are replaced.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub force: Map<String, Value>,
    /// Fields that are removed from every body. A dot leads into an object, or into each object of
    /// a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

fn health() -> String {
    "/health".to_owned()
}

/// The method of an HTTP call. A job without an input makes a GET request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A request without a body.
    Get,
    /// A request with a body.
    Post,
}

impl Method {
    /// Returns the method of a call with this input.
    #[must_use]
    pub const fn of(input: &Value) -> Self {
        match input {
            Value::Null => Self::Get,
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => Self::Post,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Post => "POST",
        })
    }
}

/// A path that jobs may name, and the only method for it if there is just one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpRoute {
    method: Option<Method>,
    path: String,
}

impl HttpRoute {
    fn allows(&self, method: Method, path: &str) -> bool {
        self.path == path && self.method.is_none_or(|only| only == method)
    }
}

impl fmt::Display for HttpRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            None => f.write_str(&self.path),
            Some(method) => write!(f, "{method} {}", self.path),
        }
    }
}

impl FromStr for HttpRoute {
    type Err = InferError;

    fn from_str(text: &str) -> Result<Self, InferError> {
        let (method, path) = match text.split_once(' ') {
            Some(("GET", path)) => (Some(Method::Get), path),
            Some(("POST", path)) => (Some(Method::Post), path),
            Some(_) | None => (None, text),
        };
        if is_plain_path(path) {
            let path = path.to_owned();
            Ok(Self { method, path })
        } else {
            Err(InferError::BadRoute {
                route: clip(text, 80),
            })
        }
    }
}

impl TryFrom<String> for HttpRoute {
    type Error = InferError;

    fn try_from(text: String) -> Result<Self, InferError> {
        text.parse()
    }
}

impl From<HttpRoute> for String {
    fn from(route: HttpRoute) -> Self {
        route.to_string()
    }
}

impl HttpServer {
    /// Returns the path and query that are sent for a job that names `path`. The default path is
    /// sent unchanged.
    ///
    /// # Errors
    /// Fails if the image does not serve them.
    pub(super) fn route(
        &self,
        image: &ImageName,
        path: &str,
        method: Method,
    ) -> Result<String, InferError> {
        if path == self.path {
            return Ok(path.to_owned());
        }
        let (bare, query) = match path.split_once('?') {
            Some((bare, query)) => (bare, Some(query)),
            None => (path, None),
        };
        let is_served =
            bare == self.path || self.paths.iter().any(|route| route.allows(method, bare));
        if !is_served {
            let routes = self.paths.iter().map(HttpRoute::to_string);
            return Err(InferError::not_offered(
                image,
                format!("{method} {:?}", clip(path, 80)),
                std::iter::once(self.path.clone()).chain(routes),
            ));
        }
        let Some(query) = query else {
            return Ok(bare.to_owned());
        };
        let mut kept = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !self.query.contains(name.as_ref()) {
                return Err(InferError::not_offered(
                    image,
                    format!("the query parameter {:?}", clip(&name, 80)),
                    self.query.iter().cloned(),
                ));
            }
            kept.append_pair(&name, &value);
        }
        Ok(match kept.finish().as_str() {
            "" => bare.to_owned(),
            query => format!("{bare}?{query}"),
        })
    }

    /// Returns the body that is sent for an input. Null stays null: such a call has no body.
    ///
    /// # Errors
    /// Fails if the contract sets or removes fields, and the input is not an object.
    pub(super) fn body(&self, image: &ImageName, mut input: Value) -> Result<Value, InferError> {
        let rules = !self.force.is_empty() || !self.drop.is_empty();
        if !rules || input.is_null() {
            return Ok(input);
        }
        let Value::Object(fields) = &mut input else {
            return Err(InferError::NotAnObject {
                image: image.clone(),
            });
        };
        for name in &self.drop {
            drop_field(fields, name);
        }
        force_fields(fields, &self.force);
        Ok(input)
    }

    /// Checks that the keys for the access of jobs are consistent.
    ///
    /// # Errors
    /// Names the first invalid key.
    pub(super) fn check_access(&self) -> Result<(), InferError> {
        let bad = |key, detail| Err(InferError::BadServing { key, detail });
        let is_name = |name: &str| !name.is_empty() && name.split('.').all(|part| !part.is_empty());
        if !self.drop.iter().all(|name| is_name(name)) {
            return bad(
                "server.drop",
                "want names of fields, such as \"a\" or \"a.b\"",
            );
        }
        if self.force.keys().any(String::is_empty) {
            return bad("server.force", "want names of fields");
        }
        let fields_with_rules: BTreeSet<String> = self
            .force
            .keys()
            .chain(&self.drop)
            .map(|name| case_fold(name))
            .collect();
        if self
            .query
            .iter()
            .any(|name| fields_with_rules.contains(&case_fold(name)))
        {
            let detail = "names a field that is in server.force or server.drop";
            return bad("server.query", detail);
        }
        Ok(())
    }
}

/// Returns whether a path has the same meaning for every server: it needs no decoding and has no
/// empty, `.` or `..` segments.
fn is_plain_path(path: &str) -> bool {
    let segments = path.strip_prefix('/').map(|rest| {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        rest.split('/')
    });
    path.len() <= MAX_PATH
        && path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte))
        && segments.is_some_and(|mut segments| {
            path == "/" || segments.all(|segment| !matches!(segment, "" | "." | ".."))
        })
}

/// Returns a field's name in the form in which the most lenient parser would compare it: without
/// case, and without surrounding spaces.
fn case_fold(name: &str) -> String {
    // First upper case, then lower case: only this order maps letters such as `ſ` and the Kelvin
    // sign to `s` and `k`.
    name.trim().to_uppercase().to_lowercase()
}

/// Removes a field: the one with this whole name, and the one that the dots of the name lead to.
fn drop_field(fields: &mut Map<String, Value>, name: &str) {
    fields.retain(|field, _| case_fold(field) != case_fold(name));
    if let Some((outer, inner)) = name.split_once('.') {
        for (field, value) in fields.iter_mut() {
            if case_fold(field) == case_fold(outer) {
                drop_within(value, inner);
            }
        }
    }
}

fn drop_within(value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => drop_field(fields, name),
        Value::Array(values) => {
            for value in values {
                drop_within(value, name);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Sets fields, including those of nested objects.
fn force_fields(fields: &mut Map<String, Value>, forced: &Map<String, Value>) {
    for (name, value) in forced {
        fields.retain(|field, _| field == name || case_fold(field) != case_fold(name));
        match (fields.get_mut(name), value) {
            (Some(Value::Object(inner)), Value::Object(forced)) => force_fields(inner, forced),
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
